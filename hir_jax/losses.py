"""The loss terms of HIR (Zhang et al., 2023, section 3), each as (sum, weight).

A batch's term is sum / weight; sums and weights of parts of a batch add up, so that accumulated
gradients are exactly the large batch's.

Letters in names: B examples, T target tokens, V vocabulary, C candidate instructions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Term(NamedTuple):
    """A loss summed over what it is averaged over, and how much that is; float32 scalars."""

    sum: jax.Array
    weight: jax.Array


class TokenStatistics(NamedTuple):
    """What the terms need of the logits at each target token; float32 BxT each, in nats."""

    logprob: jax.Array  # of the target token
    mean_logprob: jax.Array  # over the vocabulary, for label smoothing
    entropy: jax.Array  # of the distribution


def token_statistics(logits_BxTxV: jax.Array, targets_BxT: jax.Array) -> TokenStatistics:
    """Reduces float32 logits over the vocabulary."""
    log_z_BxT = jax.nn.logsumexp(logits_BxTxV, axis=-1)
    target_BxT = jnp.take_along_axis(logits_BxTxV, targets_BxT[..., None], axis=-1)[..., 0]
    expected_BxT = jnp.sum(jnp.exp(logits_BxTxV - log_z_BxT[..., None]) * logits_BxTxV, axis=-1)
    return TokenStatistics(
        logprob=target_BxT - log_z_BxT,
        mean_logprob=jnp.mean(logits_BxTxV, axis=-1) - log_z_BxT,
        entropy=log_z_BxT - expected_BxT,
    )


def supervised(statistics: TokenStatistics, mask_BxT: jax.Array, smoothing: float) -> Term:
    """Cross-entropy with label smoothing ε: (1-ε)(-log p(y)) + ε mean_v(-log p(v)), a token."""
    loss_BxT = -(1 - smoothing) * statistics.logprob - smoothing * statistics.mean_logprob
    return _masked(loss_BxT, mask_BxT)


def negative_entropy(statistics: TokenStatistics, mask_BxT: jax.Array) -> Term:
    """-H, a token; adding it to a loss rewards entropy."""
    return _masked(-statistics.entropy, mask_BxT)


def mean_logprob(logprob_BxT: jax.Array, mask_BxT: jax.Array) -> jax.Array:
    """The score s of a whole target: the mean log-probability of its real tokens; B."""
    total_B = jnp.sum(jnp.where(mask_BxT, logprob_BxT, 0.0), axis=-1)
    return total_B / jnp.maximum(jnp.sum(mask_BxT, axis=-1), 1)


def pairwise_contrastive(
    positive_B: jax.Array, negative_B: jax.Array, row_mask_B: jax.Array, smoothing: float
) -> Term:
    """The reference code's contrastive loss, an example.

    With c the softmax over the scores under p* and p⁻: -(1-ε) log c(p*) - ε log c(p⁻).
    """
    margin_B = positive_B - negative_B
    right_B, wrong_B = jax.nn.log_sigmoid(margin_B), jax.nn.log_sigmoid(-margin_B)
    return _masked(-(1 - smoothing) * right_B - smoothing * wrong_B, row_mask_B)


def in_batch_contrastive(logprob_BxC: jax.Array, row_mask_B: jax.Array) -> Term:
    """The paper's Eq. 4, an example: -log(exp P_ii / Σ_k exp P_ik).

    Args:
        logprob_BxC: P_ik, the summed log-probability of output i under prompt k; square.
        row_mask_B: True at real examples; others are no candidates either.
    """
    # Differences first: sums over long outputs are large, and float32 would round their losses.
    candidates_BxC = logprob_BxC - jnp.diagonal(logprob_BxC)[:, None]
    candidates_BxC = jnp.where(row_mask_B[None, :], candidates_BxC, -jnp.inf)
    return _masked(jax.nn.logsumexp(candidates_BxC, axis=-1), row_mask_B)


def kl_divergence(
    logits_BxTxV: jax.Array, reference_logits_BxTxV: jax.Array, mask_BxT: jax.Array
) -> Term:
    """KL(π_θ ‖ π_ref), a token."""
    logp = jax.nn.log_softmax(logits_BxTxV)
    difference = logp - jax.nn.log_softmax(reference_logits_BxTxV)
    return _masked(jnp.sum(jnp.exp(logp) * difference, axis=-1), mask_BxT)


def _masked(loss: jax.Array, mask: jax.Array) -> Term:
    return Term(jnp.sum(jnp.where(mask, loss, 0.0)), jnp.sum(mask, dtype=jnp.float32))
