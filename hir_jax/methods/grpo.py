"""Group relative policy optimization (Shao et al., DeepSeekMath, 2402.03300).

    L = -min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) a token,  A_i = (r_i - p) / (σ + 1e-6)

of the R samples of a question, mean over the tokens of each output; `loss.kl_weight` adds the
divergence from the starting model (its exact value a token, not the paper's estimate). Dr. GRPO
(Liu et al., 2503.20783) is `grpo.divide_by_spread=False` with `loss.average=constant`.

When: several samples a question, of which some are right. When not: R = 1, or all samples of a
question mostly right or wrong together (`grpo.skip_flat` leaves those out).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from hir_jax.hindsight.relabel import Pair
from hir_jax.hindsight.sample import Sample
from hir_jax.methods import groups
from hir_jax.methods.method import GROUPS, View
from hir_jax.methods.policy_gradient import Clipped


@dataclasses.dataclass(frozen=True)
class Grpo(Clipped):
    """Advantages relative to the group, under a clipped ratio.

    Attributes:
        divide_by_spread: by σ; without, questions of middling difficulty weigh more.
        skip_flat: leave out questions whose samples are all rewarded alike: they have no gradient,
            and count in no mean then.
    """

    divide_by_spread: bool = True
    skip_flat: bool = False

    reads: ClassVar[tuple[str, ...]] = (*Clipped.reads, "grpo.")
    defaults: ClassVar[Mapping[str, Any]] = {**Clipped.defaults, "loss.average": "examples"}

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.grpo` as well."""
        return dataclasses.replace(super().make(config), **config.grpo.to_dict())

    @property
    def needs(self) -> frozenset[str]:
        """Groups as well."""
        return super().needs | {GROUPS}

    def advantages(self, samples: Sequence[Sample]) -> np.ndarray:
        """(r - p) / (σ + 1e-6)."""
        advantage = groups.rewards(samples) - groups.pass_rates(samples)
        return advantage / (groups.spreads(samples) + 1e-6) if self.divide_by_spread else advantage

    def pairs(self, view: View) -> list[Pair]:
        """All of the newest samples, or those of questions that tell something."""
        pairs = super().pairs(view)
        if not self.skip_flat:
            return pairs
        told = groups.differ(view.newest)
        return [pair for pair, tells in zip(pairs, told, strict=True) if tells]
