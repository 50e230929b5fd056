"""Statistics of tokens, and the terms that losses are sums of.

A weight says what a token or an example counts for: 0 where it is padding, else 1 if nobody asks
for more or less; a mask is such a weight. Sums of parts of a batch add up, so that accumulated
gradients are exactly the large batch's.

Letters in names: B examples, T target tokens, D model width, V vocabulary, C candidate
instructions.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from hir_jax.model import products

TOKENS, EXAMPLES = "tokens", "examples"


@flax.struct.dataclass
class Term:
    """A part of a loss: weighed losses, summed, and what becomes of the sum over a whole batch.

    Attributes:
        sum: float32 scalar.
        per: TOKENS or EXAMPLES, by whose number in the batch the sum is divided.
        coefficient: of the mean in the loss; 0 makes it a figure for the log.
    """

    sum: jax.Array
    per: str = flax.struct.field(pytree_node=False)
    coefficient: float = flax.struct.field(pytree_node=False, default=1.0)


Terms = dict[str, Term]


def of_tokens(loss_BxT: jax.Array, weight_BxT: jax.Array, coefficient: float = 1.0) -> Term:
    """The term of a loss of each token."""
    return Term(_weighed(loss_BxT, weight_BxT), TOKENS, coefficient)


def of_examples(loss_B: jax.Array, weight_B: jax.Array, coefficient: float = 1.0) -> Term:
    """The term of a loss of each example."""
    return Term(_weighed(loss_B, weight_B), EXAMPLES, coefficient)


def _weighed(loss: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(weight > 0, weight * loss, 0.0))


class TokenStatistics(NamedTuple):
    """What the terms need of the logits at each target token; float32 BxT each, in nats."""

    logprob: jax.Array  # of the target token
    mean_logprob: jax.Array  # over the vocabulary, for label smoothing
    entropy: jax.Array  # of the distribution


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def token_statistics(
    decoded_BxTxD: jax.Array, head_DxV: jax.Array, targets_BxT: jax.Array, pieces: int = 1
) -> TokenStatistics:
    """Reduces the logits decoded @ head over the vocabulary, without ever holding all of them.

    Logits are computed in float32 for T / pieces positions at a time, reduced, and forgotten; the
    gradient computes them again. With p the distribution and H its entropy, the gradients with
    respect to the logits are

        of the target's log-probability   onehot - p
        of the mean log-probability       1/V - p
        of the entropy                    -p (log p + H)

    Args:
        decoded_BxTxD: the decoder's output, in the precision that the product is computed in.
        head_DxV: the output embedding.
        targets_BxT: token ids.
        pieces: parts of the T positions; a divisor of T.
    """
    return _reduce(decoded_BxTxD, head_DxV, targets_BxT, pieces)[0]


def _reduce(
    decoded_BxTxD: jax.Array, head_DxV: jax.Array, targets_BxT: jax.Array, pieces: int
) -> tuple[TokenStatistics, tuple[jax.Array, ...]]:
    """The statistics, and what the gradient needs."""

    def reduce(decoded: jax.Array, targets: jax.Array) -> tuple[jax.Array, ...]:
        logits = _logits(decoded, head_DxV)
        log_z = jax.nn.logsumexp(logits, axis=-1)
        logp = logits - log_z[..., None]
        entropy = -jnp.sum(jnp.exp(logp) * logp, axis=-1)
        target = jnp.sum(jnp.where(_is_target(targets, logits), logits, 0.0), axis=-1)
        return log_z, entropy, target, jnp.mean(logits, axis=-1)

    log_z, entropy, target, mean = in_pieces(reduce, pieces, decoded_BxTxD, targets_BxT)
    statistics = TokenStatistics(target - log_z, mean - log_z, entropy)
    return statistics, (decoded_BxTxD, head_DxV, targets_BxT, log_z, entropy)


def _gradient(
    pieces: int, kept: tuple[jax.Array, ...], cotangents: TokenStatistics
) -> tuple[jax.Array, jax.Array, None]:
    decoded_BxTxD, head_DxV, *of_tokens = kept

    def add(dhead_DxV: jax.Array, piece: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        decoded, targets, *scalars = piece
        log_z, entropy, of_logprob, of_mean, of_entropy = (x[..., None] for x in scalars)
        logp = _logits(decoded, head_DxV) - log_z
        dlogits = jnp.where(_is_target(targets, logp), of_logprob, 0.0)
        dlogits += of_mean / logp.shape[-1]
        dlogits -= jnp.exp(logp) * (of_logprob + of_mean + of_entropy * (logp + entropy))
        dlogits = dlogits.astype(decoded.dtype)
        ddecoded = products.back(dlogits, head_DxV.astype(decoded.dtype))
        return dhead_DxV + products.across(decoded, dlogits), ddecoded

    parts = _split((decoded_BxTxD, *of_tokens, *cotangents), pieces)
    dhead_DxV, ddecoded = jax.lax.scan(add, jnp.zeros(head_DxV.shape), parts)
    return _join(ddecoded), dhead_DxV.astype(head_DxV.dtype), None


token_statistics.defvjp(_reduce, _gradient)


def pieces_for(rows: int, length: int, vocab_size: int, logits_at_once: int) -> int:
    """The fewest equal parts of `length` positions with so many logits at most; else `length`."""
    return fewest_parts(length, rows * length * vocab_size / logits_at_once)


def fewest_parts(length: int, wanted: float) -> int:
    """The least divisor of `length` that is not below `wanted`; `length` where none is."""
    return next(n for n in range(1, length + 1) if length % n == 0 and (n >= wanted or n == length))


def in_pieces(reduce: Callable[..., Any], pieces: int, *arrays_BxTx: jax.Array) -> Any:
    """`reduce(*arrays)`, a tree of BxT, computed for T / pieces positions at a time."""
    return _join(jax.lax.map(lambda part: reduce(*part), _split(arrays_BxTx, pieces)))


def _split(tree: Any, pieces: int) -> Any:
    # Along the positions, so that each device keeps its rows of the batch.
    return jax.tree.map(
        lambda x: x.reshape(x.shape[0], pieces, -1, *x.shape[2:]).swapaxes(0, 1), tree
    )


def _join(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(x.shape[1], -1, *x.shape[3:]), tree)


def _logits(decoded: jax.Array, head_DxV: jax.Array) -> jax.Array:
    head = head_DxV.astype(decoded.dtype)
    return jnp.matmul(decoded, head, preferred_element_type=jnp.float32)


def _is_target(targets: jax.Array, logits: jax.Array) -> jax.Array:
    # Not an indexed read, which would gather a vocabulary that is split over devices.
    return jnp.arange(logits.shape[-1]) == targets[..., None]


def supervised(statistics: TokenStatistics, weight_BxT: jax.Array, smoothing: float) -> Term:
    """Cross-entropy with label smoothing ε: (1-ε)(-log p(y)) + ε mean_v(-log p(v)), a token."""
    loss_BxT = -(1 - smoothing) * statistics.logprob - smoothing * statistics.mean_logprob
    return of_tokens(loss_BxT, weight_BxT)


def negative_entropy(
    statistics: TokenStatistics, weight_BxT: jax.Array, coefficient: float = 1.0
) -> Term:
    """-H, a token; adding it to a loss rewards entropy."""
    return of_tokens(-statistics.entropy, weight_BxT, coefficient)


def mean_logprob(logprob_BxT: jax.Array, mask_BxT: jax.Array) -> jax.Array:
    """The score s of a whole target: the mean log-probability of its real tokens; B."""
    total_B = sum_logprob(logprob_BxT, mask_BxT)
    return total_B / jnp.maximum(jnp.sum(mask_BxT, axis=-1), 1)


def sum_logprob(logprob_BxT: jax.Array, mask_BxT: jax.Array) -> jax.Array:
    """log π of a whole target; B."""
    return jnp.sum(jnp.where(mask_BxT, logprob_BxT, 0.0), axis=-1)


def pairwise_contrastive(
    positive_B: jax.Array,
    negative_B: jax.Array,
    weight_B: jax.Array,
    smoothing: float,
    coefficient: float = 1.0,
) -> Term:
    """The reference code's contrastive loss (Zhang et al., 2023), an example.

    With c the softmax over the scores under p* and p⁻: -(1-ε) log c(p*) - ε log c(p⁻).
    """
    margin_B = positive_B - negative_B
    right_B, wrong_B = jax.nn.log_sigmoid(margin_B), jax.nn.log_sigmoid(-margin_B)
    loss_B = -(1 - smoothing) * right_B - smoothing * wrong_B
    return of_examples(loss_B, weight_B, coefficient)


def in_batch_contrastive(
    logprob_BxC: jax.Array, weight_B: jax.Array, coefficient: float = 1.0
) -> Term:
    """Eq. 4 of Zhang et al. (2023), an example: -log(exp P_ii / Σ_k exp P_ik).

    Args:
        logprob_BxC: P_ik, the summed log-probability of output i under prompt k; square.
        weight_B: of each example; those of weight 0 are no candidates either.
        coefficient: see `Term`.
    """
    # Differences first: sums over long outputs are large, and float32 would round their losses.
    candidates_BxC = logprob_BxC - jnp.diagonal(logprob_BxC)[:, None]
    candidates_BxC = jnp.where(weight_B[None, :] > 0, candidates_BxC, -jnp.inf)
    return of_examples(jax.nn.logsumexp(candidates_BxC, axis=-1), weight_B, coefficient)


def kl_divergence(
    decoded_BxTxD: jax.Array,
    head_DxV: jax.Array,
    reference_BxTxD: jax.Array,
    reference_head_DxV: jax.Array,
    weight_BxT: jax.Array,
    pieces: int = 1,
    coefficient: float = 1.0,
) -> Term:
    """KL(π_θ ‖ π_ref), a token, from the decoder's outputs; in pieces as `token_statistics`."""

    @jax.checkpoint
    def divergence(decoded: jax.Array, reference: jax.Array) -> jax.Array:
        logp = jax.nn.log_softmax(_logits(decoded, head_DxV))
        difference = logp - jax.nn.log_softmax(_logits(reference, reference_head_DxV))
        return jnp.sum(jnp.exp(logp) * difference, axis=-1)

    loss_BxT = in_pieces(divergence, pieces, decoded_BxTxD, reference_BxTxD)
    return of_tokens(loss_BxT, weight_BxT, coefficient)
