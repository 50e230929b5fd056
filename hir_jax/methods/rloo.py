"""REINFORCE leave-one-out (Ahmadian et al., 2402.14740; Kool et al., 2019).

    L = -A log π(o_i | q),  A_i = r_i - mean of the other R - 1 rewards of the question

or, with `rloo.clip`, the clipped ratio in place of log π, for several epochs on the same samples.

When: a baseline for each question without a value network. When not: R = 1.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from hir_jax.hindsight.sample import Sample
from hir_jax.methods import groups
from hir_jax.methods.method import GROUPS
from hir_jax.methods.policy_gradient import Clipped, PolicyGradient
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Statistics


@dataclasses.dataclass(frozen=True)
class Rloo(Clipped):
    """Advantages over the question's other samples, under log π or a clipped ratio.

    Attributes:
        clip: whether the ratio is clipped, or log π is taken.
    """

    clip: bool = False

    reads: ClassVar[tuple[str, ...]] = (*Clipped.reads, "rloo.")

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.rloo` as well."""
        return dataclasses.replace(super().make(config), clip=config.rloo.clip)

    @classmethod
    def faults(cls, config: Any) -> list[str]:
        """Of ratios, where there are any."""
        return super().faults(config) if config.rloo.clip else []

    @property
    def one_pass(self) -> bool:
        """Where ratios are not clipped."""
        return not self.clip

    @property
    def needs(self) -> frozenset[str]:
        """Groups, and what ratios divide by where they are clipped."""
        return frozenset({GROUPS}) | (super().needs if self.clip else frozenset())

    @property
    def of_tokens(self) -> tuple[str, ...]:
        """log μ, where ratios are clipped."""
        return super().of_tokens if self.clip else ()

    def advantages(self, samples: Sequence[Sample]) -> np.ndarray:
        """r_i - (R p - r_i) / (R - 1) = (r_i - p) R / (R - 1)."""
        size = groups.sizes(samples)
        return (groups.rewards(samples) - groups.pass_rates(samples)) * size / (size - 1)

    def terms(self, statistics: Statistics) -> Terms:
        """The clipped surrogate, or the plain gradient."""
        if self.clip:
            return super().terms(statistics)
        return PolicyGradient.terms(self, statistics)
