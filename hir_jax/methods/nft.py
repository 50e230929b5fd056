"""Negative-aware fine-tuning (Chen et al., NFT, 2505.18116).

    L = w (-r log ρ - (1 - r) log max((1 - p ρ) / (1 - p), ε)) a token,  w = sqrt((1 - p) / p)

where the max keeps the gradient of what it cuts (eq. 10; ε = 1 is the paper's, since with less,
wrong outputs weigh so much that it learns worse). Wrong outputs are imitated by a policy that is
implied: what is left of the old one where its right answers, a share p, are the new one's. On
policy the gradient is GRPO's; with w = 1 - p (`nft.divide_by_spread=False`) it is Dr. GRPO's.

When: as a supervised view of GRPO, several steps on the same samples. When not: R = 1; questions
whose samples are all right or all wrong teach nothing.
"""

import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from hir_jax.hindsight.relabel import Pair
from hir_jax.methods import groups, ratios
from hir_jax.methods.method import EPOCHS, GROUPS, SAMPLING, View, whole
from hir_jax.methods.ratios import WithRatio
from hir_jax.training import losses
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Statistics


@dataclasses.dataclass(frozen=True)
class Nft(WithRatio):
    """Right outputs under the policy, wrong ones under the one that is implied.

    Attributes:
        least: ε, of the likelihood ratio of the implied policy.
        divide_by_spread: whether w is sqrt((1 - p) / p) or 1 - p.
    """

    least: float = 1.0
    divide_by_spread: bool = True

    reads: ClassVar[tuple[str, ...]] = (*SAMPLING, EPOCHS, "nft.", "ratio.behaviour")

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.nft`."""
        return cls(**config.nft.to_dict())

    @classmethod
    def faults(cls, config: Any) -> list[str]:
        """Of ratios, and of an ε whose logarithm there is not."""
        least = config.nft.least
        expected = "config.nft.least: expected above 0, since its logarithm is taken; found"
        return super().faults(config) + ([] if least > 0 else [f"{expected} {least}"])

    @property
    def needs(self) -> frozenset[str]:
        """Groups as well."""
        return super().needs | {GROUPS}

    @property
    def of_rows(self) -> tuple[str, ...]:
        """r and p."""
        return ("reward", "pass_rate")

    def pairs(self, view: View) -> list[Pair]:
        """The newest samples of questions that are answered neither right nor wrong always."""
        samples = view.newest
        if not samples:
            return []
        rate, least = groups.pass_rates(samples), 0.5 / groups.sizes(samples)
        told = groups.differ(samples)
        rate = np.clip(rate, least, 1 - least)
        return [
            whole(sample, reward=sample.reward, pass_rate=float(p))
            for sample, p, tells in zip(samples, rate, told, strict=True)
            if tells
        ]

    def terms(self, statistics: Statistics) -> Terms:
        """Right outputs under the policy, wrong ones under the one that is implied."""
        s, log_BxT = statistics, ratios.log_ratio(statistics)
        reward = s.scalars["reward"][:, None]
        p = jnp.where(s.weight_B > 0, s.scalars["pass_rate"], 0.5)[:, None]  # 0 at padding
        implied_BxT = (1 - p * jnp.exp(log_BxT)) / (1 - p)
        cut_BxT = (implied_BxT < 0.999 * self.least) & (reward < 1)  # on policy it is 1, rounded
        bounded_BxT = jnp.maximum(implied_BxT, self.least)
        implied_BxT += jax.lax.stop_gradient(bounded_BxT - implied_BxT)
        loss_BxT = -reward * log_BxT - (1 - reward) * jnp.log(implied_BxT)
        weight = jnp.sqrt((1 - p) / p) if self.divide_by_spread else 1 - p
        return {
            "policy": losses.of_tokens(weight * loss_BxT, s.weight_BxT),
            "clip_share": ratios.figure(s, cut_BxT),
            **ratios.figures(s),
        }
