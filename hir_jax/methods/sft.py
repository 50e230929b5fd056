"""Supervised fine-tuning, a baseline of the HIR paper (2302.05206): imitation of true answers.

    L = -log π(answer | q)

When: true answers are at hand, as a bound for what samples may teach. It draws none.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from hir_jax.hindsight.relabel import Goal, Pair
from hir_jax.methods.method import ANSWERS, EPOCHS, SUPERVISED, Method, View
from hir_jax.training import losses
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Statistics


@dataclasses.dataclass(frozen=True)
class Sft(Method):
    """Cross-entropy on the first target of each training question.

    Attributes:
        smoothing: ε of the cross-entropy.
    """

    smoothing: float = 0.0

    reads: ClassVar[tuple[str, ...]] = (EPOCHS, "loss.smoothing")

    defaults: ClassVar[Mapping[str, Any]] = SUPERVISED

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.loss`."""
        return cls(config.loss.smoothing)

    @property
    def needs(self) -> frozenset[str]:
        """Answers."""
        return frozenset({ANSWERS})

    def pairs(self, view: View) -> list[Pair]:
        """One of each question."""
        return [
            Pair(e.id, (), (*view.encode(e.targets[0]), view.eos_id), Goal(True))
            for e in view.examples
        ]

    def terms(self, statistics: Statistics) -> Terms:
        """The cross-entropy."""
        term = losses.supervised(statistics.own, statistics.weight_BxT, self.smoothing)
        return {"supervised": term}
