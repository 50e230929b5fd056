"""Maximum-likelihood reinforcement learning (Tajwar et al., MaxRL, 2602.02710).

    L = -A log π(o_i | q),  A_i = (r_i - p) / p,  0 where p = 0

When: hard questions are to count for more than in `rloo`, as they do in the likelihood of a right
answer. When not: R = 1.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hir_jax.hindsight.sample import Sample
from hir_jax.methods import groups
from hir_jax.methods.method import GROUPS
from hir_jax.methods.policy_gradient import PolicyGradient


@dataclasses.dataclass(frozen=True)
class MaxRl(PolicyGradient):
    """The method with a control variate: the mean over the right samples alone, centred."""

    @property
    def needs(self) -> frozenset[str]:
        """Groups."""
        return frozenset({GROUPS})

    def advantages(self, samples: Sequence[Sample]) -> np.ndarray:
        """(r - p) / p."""
        rate = groups.pass_rates(samples)
        return np.divide(groups.rewards(samples) - rate, rate, np.zeros_like(rate), where=rate > 0)
