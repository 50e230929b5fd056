"""What methods have in common that imitate outputs of the replay buffer, whole or in part."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from hir_jax.hindsight import relabel, replay
from hir_jax.hindsight.relabel import NO_FACTS, Facts, Pair
from hir_jax.hindsight.sample import Sample
from hir_jax.methods.method import EPOCHS, SAMPLING, SUPERVISED, Method, View
from hir_jax.training import losses
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Statistics


@dataclasses.dataclass(frozen=True)
class Imitation(Method):
    """Cross-entropy on outputs, under the instruction that each of them fulfils.

    Attributes:
        smoothing: ε of the cross-entropy.
        keep_iterations, dedup, max_size, hold_out: see `hindsight.replay`.
        sub_output, prob, facts: see `relabel.hindsight_pairs`.
    """

    smoothing: float = 0.0
    keep_iterations: int = 0
    dedup: str = "all"
    max_size: int = 0
    hold_out: float = 0.0
    sub_output: str = "full"
    prob: float = 0.0
    facts: Facts = NO_FACTS

    reads: ClassVar[tuple[str, ...]] = (
        *SAMPLING,
        EPOCHS,
        "replay.",
        "sub_output.",
        "loss.smoothing",
    )

    defaults: ClassVar[Mapping[str, Any]] = SUPERVISED

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.loss`, `config.replay` and `config.sub_output`."""
        return cls(
            smoothing=config.loss.smoothing,
            **config.replay.to_dict(),
            sub_output=config.sub_output.mode,
            prob=config.sub_output.prob,
        )

    @property
    def replay(self) -> dict[str, Any]:
        """As it is configured."""
        return {"keep_iterations": self.keep_iterations, "dedup": self.dedup}

    def chosen(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Those of the samples in view that are imitated."""
        return samples

    def pairs(self, view: View) -> list[Pair]:
        """A part of each chosen sample, relabeled."""
        counted = self.dedup == "count"
        samples = self.chosen(
            replay.view(
                replay.distinct(view.samples) if counted else view.samples,
                max_size=self.max_size,
                seed=view.seed,
                hold_out=self.hold_out,
            )
        )
        pairs = relabel.hindsight_pairs(
            samples,
            mode=self.sub_output,
            prob=self.prob,
            seed=view.seed,
            iteration=view.iteration,
            epoch=view.epoch,
            eos_ids=(view.eos_id, *view.other_eos_ids),
            decode=view.decode,
            answers={example.id: example.targets[0] for example in view.examples},
            facts=self.facts,
            opening_ids=view.opening_ids,
        )
        if counted:
            return replay.counted(pairs, replay.times_drawn(samples, view.samples))
        return pairs

    def terms(self, statistics: Statistics) -> Terms:
        """The cross-entropy."""
        term = losses.supervised(statistics.own, statistics.weight_BxT, self.smoothing)
        return {"supervised": term}
