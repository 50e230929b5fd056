"""Weighted REINFORCE (Zhu et al., 2506.01347); with λ = 0 negative-sample reinforcement.

    L = -A log π(o | q),  A = λ of a right output, -1 of a wrong one   (λ r - (1 - r) of others)

When: many answers are right, and the policy is to stay diverse (pass@k with large k). When not:
with λ small, little says what to do instead of a mistake.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from hir_jax.hindsight.sample import Sample
from hir_jax.methods import groups
from hir_jax.methods.method import SAMPLING
from hir_jax.methods.policy_gradient import PolicyGradient


@dataclasses.dataclass(frozen=True)
class WReinforce(PolicyGradient):
    """Right and wrong outputs with weights of their own.

    Attributes:
        right_weight: λ.
    """

    right_weight: float = 0.1

    reads: ClassVar[tuple[str, ...]] = (*SAMPLING, "w_reinforce.")

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.w_reinforce`."""
        return cls(config.w_reinforce.right_weight)

    def advantages(self, samples: Sequence[Sample]) -> np.ndarray:
        """λ r - (1 - r)."""
        reward = groups.rewards(samples)
        return self.right_weight * reward - (1 - reward)
