"""Proximal policy optimization (Schulman et al., 1707.06347) of a language model.

    L = -min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) + c max((V - G)², (clip(V, V_old ± ε_v) - G)²) / 2

a token. The reward r comes with the last token; every token costs β (log π_old - log π_start), the
penalty of Ziegler et al. (1909.08593), whose coefficient may adapt. A is the generalized advantage
estimate (Schulman et al., 1506.02438) by the value head, G = A + V_old, and A is whitened over all
tokens of an iteration.

When: the method that HIR is compared with; credit to single tokens of long outputs. When not: short
outputs and checked answers, where a value head learns little that a group's mean does not say.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np

from hir_jax.hindsight.relabel import Pair
from hir_jax.hindsight.sample import Sample
from hir_jax.methods import ratios
from hir_jax.methods.method import BEHAVIOUR, REFERENCE, VALUES, View, whole
from hir_jax.methods.policy_gradient import Clipped
from hir_jax.training import losses
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Statistics

ADAPTS_BY = 0.1  # K_β of Ziegler et al., whose error is cut off at 0.2


@dataclasses.dataclass(frozen=True)
class Ppo(Clipped):
    """Advantages by a value head, under a clipped ratio, and the value head's own loss.

    Attributes:
        discount: γ, a token.
        trace: λ of the advantages.
        value_weight: c.
        value_clip: ε_v; 0 leaves values unclipped.
        whiten: whether advantages get mean 0 and variance 1.
        kl_coefficient: β, at the start where it adapts; 0 leaves the penalty out.
        kl_target: nats an output that β adapts to; 0 keeps it.
    """

    discount: float = 1.0
    trace: float = 0.95
    value_weight: float = 0.5
    value_clip: float = 0.2
    whiten: bool = True
    kl_coefficient: float = 0.0
    kl_target: float = 0.0

    reads: ClassVar[tuple[str, ...]] = (*Clipped.reads, "ppo.")

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.ppo` as well."""
        return dataclasses.replace(super().make(config), **config.ppo.to_dict())

    @classmethod
    def faults(cls, config: Any) -> list[str]:
        """Of ratios, and of a penalty that would compare two kinds of probabilities."""
        faults = super().faults(config)
        if config.ppo.kl_coefficient and config.ratio.behaviour == "drawn":
            faults.append(
                "config.ppo.kl_coefficient: expected 0 with ratio.behaviour='drawn', since the "
                "penalty compares the whole policy with the start; found "
                f"{config.ppo.kl_coefficient}. Use loss.kl_weight"
            )
        if config.ppo.kl_target and not config.ppo.kl_coefficient:
            faults.append(
                "config.ppo.kl_coefficient: expected above 0 where kl_target is set; found 0"
            )
        return faults

    @property
    def needs(self) -> frozenset[str]:
        """Values, and the start where moving away from it costs something."""
        return super().needs | {VALUES} | ({REFERENCE} if self.kl_coefficient else set())

    @property
    def of_rows(self) -> tuple[str, ...]:
        """Nothing: all is a token's."""
        return ()

    @property
    def of_tokens(self) -> tuple[str, ...]:
        """log μ, A, G and V_old."""
        return (BEHAVIOUR, "advantage", "returns", "value")

    def after_sampling(
        self, samples: Sequence[Sample], state: Mapping[str, float]
    ) -> dict[str, float]:
        """β for these samples, by how far those before had moved, and how far these have."""
        if not self.kl_coefficient:
            return {}
        coefficient = state.get("kl_coefficient", self.kl_coefficient)
        if self.kl_target and "kl" in state:
            error = np.clip(state["kl"] / self.kl_target - 1, -0.2, 0.2)
            coefficient *= 1 + ADAPTS_BY * float(error)
        moved = [sum(sample.logprobs) - sum(sample.reference) for sample in samples]
        return {"kl_coefficient": coefficient, "kl": float(np.mean(moved))}

    def pairs(self, view: View) -> list[Pair]:
        """All of the newest samples."""
        samples = view.newest
        if not samples:
            return []
        estimates = [self._estimate(sample, view.state) for sample in samples]
        every = np.concatenate([advantage for advantage, _ in estimates])
        shift, scale = (every.mean(), every.std() + 1e-8) if self.whiten else (0.0, 1.0)
        return [
            whole(
                sample,
                advantage=((advantage - shift) / scale).tolist(),
                returns=returns.tolist(),
                value=sample.values,
            )
            for sample, (advantage, returns) in zip(samples, estimates, strict=True)
        ]

    def _estimate(
        self, sample: Sample, state: Mapping[str, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A and G of each token."""
        value = np.array(sample.values)
        reward = np.zeros(len(value))
        if self.kl_coefficient:
            moved = np.array(sample.logprobs) - np.array(sample.reference)
            reward -= state["kl_coefficient"] * moved
        reward[-1:] += sample.reward
        advantage = advantages(reward, value, self.discount, self.trace)
        return advantage, advantage + value

    def terms(self, statistics: Statistics) -> Terms:
        """The clipped surrogate and the clipped value loss."""
        s = statistics
        returns, old = s.scalars["returns"], s.scalars["value"]
        square = jnp.square(s.value_BxT - returns)
        if self.value_clip:
            near = old + jnp.clip(s.value_BxT - old, -self.value_clip, self.value_clip)
            square = jnp.maximum(square, jnp.square(near - returns))
        return {
            **ratios.clipped(s, s.scalars["advantage"], self.clip_low, self.clip_high),
            "value": losses.of_tokens(square / 2, s.weight_BxT, self.value_weight),
        }

    def figures(self, view: View) -> dict[str, float]:
        """How much of the spread of G the value head knew before, and β."""
        samples = view.newest
        returns = np.concatenate([self._estimate(sample, view.state)[1] for sample in samples])
        value = np.concatenate([sample.values for sample in samples])
        spread = float(returns.var())
        explained = 1 - float((returns - value).var()) / spread if spread else 0.0
        return {"explained_variance": explained, **view.state}


def advantages(
    reward_T: np.ndarray, value_T: np.ndarray, discount: float, trace: float
) -> np.ndarray:
    """Generalized advantage estimates of one output: Σ_l (γλ)^l δ_{t+l}.

    δ_t = r_t + γ V_{t+1} - V_t, where nothing is expected after the last token.
    """
    after_T = np.append(value_T[1:], 0.0)
    error_T = reward_T + discount * after_T - value_T
    advantage_T, running = np.zeros(len(error_T)), 0.0
    for t in reversed(range(len(error_T))):
        running = error_T[t] + discount * trace * running
        advantage_T[t] = running
    return advantage_T
