"""Tapered off-policy REINFORCE (Le Roux et al., 2503.14286).

    L = -log π(o | q) of right o,   +sg[clip(π(o)/μ(o), 0, 1)] log π(o | q) of wrong o

with the ratio of whole outputs; an output of reward r between has r of the one and 1 - r of the
other.

When: several steps on the same samples: a mistake that the policy no longer makes is no longer
pushed away. When not: mistakes are few and varied.
"""

import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp

from hir_jax.hindsight.relabel import Pair
from hir_jax.methods import ratios
from hir_jax.methods.method import EPOCHS, SAMPLING, View, whole
from hir_jax.methods.ratios import WithRatio
from hir_jax.training import losses
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Statistics


@dataclasses.dataclass(frozen=True)
class Topr(WithRatio):
    """Right outputs up, wrong ones down as far as they are still likely.

    Attributes:
        low, high: what the ratio of a wrong output is clipped to.
    """

    low: float = 0.0
    high: float = 1.0

    reads: ClassVar[tuple[str, ...]] = (*SAMPLING, EPOCHS, "topr.", "ratio.behaviour")

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.topr`."""
        return cls(**config.topr.to_dict())

    @classmethod
    def faults(cls, config: Any) -> list[str]:
        """Of ratios, and of bounds that cross."""
        low, high = config.topr.low, config.topr.high
        expected = f"config.topr.low: expected at most topr.high={high}; found {low}"
        return super().faults(config) + ([expected] if low > high else [])

    @property
    def of_rows(self) -> tuple[str, ...]:
        """r."""
        return ("reward",)

    def pairs(self, view: View) -> list[Pair]:
        """All of the newest samples."""
        return [whole(sample, reward=sample.reward) for sample in view.newest]

    def terms(self, statistics: Statistics) -> Terms:
        """Right outputs up, wrong ones down as far as they are still likely."""
        s, reward_B = statistics, statistics.scalars["reward"]
        ratio_B = jnp.exp(jnp.sum(ratios.log_ratio(s), axis=1))
        taper_B = jax.lax.stop_gradient(jnp.clip(ratio_B, self.low, self.high))
        push_B = reward_B - (1 - reward_B) * taper_B
        loss_BxT = -push_B[:, None] * s.own.logprob
        return {"policy": losses.of_tokens(loss_BxT, s.weight_BxT), **ratios.figures(s)}
