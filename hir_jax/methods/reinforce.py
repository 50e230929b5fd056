"""REINFORCE (Williams, "Simple statistical gradient-following algorithms", 1992).

    L = -A log π(o | q),  A = r - b,  b = 0 or the mean reward of all samples

When: as the simplest of its kind, to compare with. When not: questions differ in how hard they are,
which b does not know (`rloo`, `grpo`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from hir_jax.hindsight.sample import Sample
from hir_jax.methods import groups
from hir_jax.methods.method import SAMPLING
from hir_jax.methods.policy_gradient import PolicyGradient

BASELINES = ("mean", "none")


@dataclasses.dataclass(frozen=True)
class Reinforce(PolicyGradient):
    """Rewards above a baseline.

    Attributes:
        baseline: one of `BASELINES`.
    """

    baseline: str = "mean"

    reads: ClassVar[tuple[str, ...]] = (*SAMPLING, "reinforce.")

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.reinforce`."""
        return cls(config.reinforce.baseline)

    def advantages(self, samples: Sequence[Sample]) -> np.ndarray:
        """r - b."""
        reward = groups.rewards(samples)
        return reward - (reward.mean() if self.baseline == "mean" else 0.0)
