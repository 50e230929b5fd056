"""What methods have in common that weigh outputs by how much better they are than expected."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax
import numpy as np

from hir_jax.hindsight.relabel import Pair
from hir_jax.hindsight.sample import Sample
from hir_jax.methods import ratios
from hir_jax.methods.method import EPOCHS, SAMPLING, Method, View, whole
from hir_jax.methods.ratios import WithRatio
from hir_jax.training import losses
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Statistics


@dataclasses.dataclass(frozen=True)
class PolicyGradient(Method):
    """-A log π(o | q), A an advantage of the whole output, on the newest samples."""

    reads: ClassVar[tuple[str, ...]] = SAMPLING

    @property
    def one_pass(self) -> bool:
        """Always."""
        return True

    @property
    def of_rows(self) -> tuple[str, ...]:
        """A."""
        return ("advantage",)

    def advantages(self, samples: Sequence[Sample]) -> np.ndarray:
        """A of each sample."""
        raise NotImplementedError

    def pairs(self, view: View) -> list[Pair]:
        """All of the newest samples."""
        samples = view.newest
        advantages = self.advantages(samples).tolist() if samples else []
        return [whole(s, advantage=a) for s, a in zip(samples, advantages, strict=True)]

    def terms(self, statistics: Statistics) -> Terms:
        """The policy's gradient by Williams (1992)."""
        loss_BxT = -_advantage(statistics) * statistics.own.logprob
        return {"policy": losses.of_tokens(loss_BxT, statistics.weight_BxT)}


@dataclasses.dataclass(frozen=True)
class Clipped(WithRatio, PolicyGradient):
    """The same with a clipped ratio: several steps on the same samples stay near their policy.

    Attributes:
        clip_low, clip_high: ρ moves the loss between 1 - clip_low and 1 + clip_high.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2

    reads: ClassVar[tuple[str, ...]] = (*SAMPLING, EPOCHS, "ratio.")

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.ratio`."""
        return cls(clip_low=config.ratio.clip_low, clip_high=config.ratio.clip_high)

    def terms(self, statistics: Statistics) -> Terms:
        """The clipped surrogate."""
        advantage = _advantage(statistics)
        return ratios.clipped(statistics, advantage, self.clip_low, self.clip_high)


def _advantage(statistics: Statistics) -> jax.Array:
    return statistics.scalars["advantage"][:, None]
