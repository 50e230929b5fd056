"""ρ = π/μ, a token: how much likelier the policy finds it than the one that drew it, and clips.

μ is one of `BEHAVIOURS`: the whole, untempered policy of the sampling phase, so that ρ begins at 1;
or the tempered and truncated distribution that tokens were really drawn from, so that ρ is an exact
importance weight.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from hir_jax.methods.method import BEHAVIOUR, LOGPROBS, Method
from hir_jax.training import losses
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Statistics

BEHAVIOURS = ("whole", "drawn")


def log_ratio(s: Statistics) -> jax.Array:
    """log ρ, 0 at padding; float32 BxT."""
    return jnp.where(s.mask_BxT, s.own.logprob - s.scalars[BEHAVIOUR], 0.0)


def clipped(s: Statistics, advantage_BxT: jax.Array, low: float, high: float) -> Terms:
    """The clipped surrogate (Schulman et al., 2017, 1707.06347, eq. 7), and figures of ρ.

    -min(ρ A, clip(ρ, 1 - low, 1 + high) A), a token.
    """
    ratio_BxT = jnp.exp(log_ratio(s))
    bounded_BxT = jnp.clip(ratio_BxT, 1 - low, 1 + high)
    free, cut = ratio_BxT * advantage_BxT, bounded_BxT * advantage_BxT
    return {
        "policy": losses.of_tokens(-jnp.minimum(free, cut), s.weight_BxT),
        "clip_share": figure(s, cut < free),
        **figures(s),
    }


def figures(s: Statistics) -> Terms:
    """For the log: means over an output's tokens, then over outputs.

    `ratio` of ρ, `ratio_off` of |ρ - 1|, and `kl_behaviour` of ρ - 1 - log ρ, an estimate of
    KL(μ ‖ π) that is never negative (Schulman, "Approximating KL divergence", 2020).
    """
    log_BxT = log_ratio(s)
    off_BxT = jnp.expm1(log_BxT)
    return {
        "ratio": figure(s, off_BxT + 1),
        "ratio_off": figure(s, jnp.abs(off_BxT)),
        "kl_behaviour": figure(s, off_BxT - log_BxT),
    }


def figure(s: Statistics, value_BxT: jax.Array) -> losses.Term:
    """For the log: the mean of BxT over an output's tokens, then over outputs."""
    mean_B = losses.mean_logprob(value_BxT.astype(jnp.float32), s.mask_BxT)
    return losses.of_examples(jax.lax.stop_gradient(mean_B), s.weight_B, coefficient=0.0)


@dataclasses.dataclass(frozen=True)
class WithRatio(Method):
    """What methods have in common that divide by the probabilities of the policy that drew."""

    @classmethod
    def faults(cls, config: Any) -> list[str]:
        """Of ratios."""
        return _faults(config)

    @property
    def one_pass(self) -> bool:
        """Never: ratios say how far the policy has moved from its samples."""
        return False

    @property
    def needs(self) -> frozenset[str]:
        """What ratios divide by."""
        return frozenset({LOGPROBS})

    @property
    def of_tokens(self) -> tuple[str, ...]:
        """log μ."""
        return (BEHAVIOUR,)


def _faults(config: Any) -> list[str]:
    """Why ratios cannot be: samples are drawn otherwise than the whole policy would."""
    sample = config.sample
    if config.ratio.behaviour == "drawn":
        return []
    faults = []
    if sample.guidance:
        faults.append(
            f"config.sample.guidance: expected 0 with algorithm={config.algorithm}, whose ratios "
            f"are of the policy without guidance; found {sample.guidance}. Or divide by the "
            "probabilities of what was drawn from, with --config.ratio.behaviour=drawn"
        )
    if sample.among:
        faults.append(
            f"config.sample.among: expected '' with algorithm={config.algorithm}, whose ratios are "
            f"of the whole policy, which might draw any output; found {sample.among!r}. Or divide "
            "by the probabilities among these outputs, with --config.ratio.behaviour=drawn"
        )
    if not (sample.top_k or sample.top_p < 1):
        return faults
    return [
        *faults,
        f"config.sample.top_k and top_p: expected 0 (or None) and 1 with algorithm="
        f"{config.algorithm}, whose ratios are of the whole policy, which might draw any token; "
        f"found {sample.top_k} and {sample.top_p}. Or divide by the truncated probabilities, with "
        "--config.ratio.behaviour=drawn",
    ]
