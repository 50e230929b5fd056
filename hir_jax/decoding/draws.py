"""From logits to tokens: temperature, top-k, top-p, greedy.

Draws invert a cumulative distribution with two uniforms a row, so a step costs two random numbers
a row instead of one a vocabulary entry. Keys belong to (question, sample, position), never to the
place in a batch: the same draw comes out wherever a row is computed.

Letters in names: N rows, V vocabulary, K tokens kept.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Which log-probability of each token is kept: none, the whole policy's (`token_logprob`), or that
# of what the token was drawn from (`scored_draw`).
LOGPROBS = ("none", "whole", "drawn")

BLOCK = 128  # of a draw from the whole vocabulary
TOP_BLOCK = 32  # of a search for the likeliest tokens


def row_keys(key: jax.Array, question_N: jax.Array, sample_N: jax.Array) -> jax.Array:
    """A key for each row, from the iteration's key, a question's uint32 id and a sample's index."""
    fold = jax.vmap(jax.random.fold_in)
    return fold(jax.vmap(jax.random.fold_in, (None, 0))(key, question_N), sample_N)


def uniforms(key_N: jax.Array, position_N: jax.Array) -> jax.Array:
    """Two uniform numbers in [0, 1) for the draw at each row's position; Nx2."""
    return jax.vmap(lambda key, t: jax.random.uniform(jax.random.fold_in(key, t), (2,)))(
        key_N, position_N
    )


def draw(
    logits_NxV: jax.Array,
    uniform_Nx2: jax.Array,
    temperature: jax.Array,
    top_k: int = 0,
    top_p: float = 1.0,
) -> jax.Array:
    """Draws a token a row; int32 N.

    Args:
        logits_NxV: float32 scores.
        uniform_Nx2: from `uniforms`.
        temperature: scalar above 0; see `greedy` for 0.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: of those, keep the fewest whose probability reaches p (Holtzman et al., 2020).
    """
    return _draw(logits_NxV / temperature, uniform_Nx2, top_k, top_p)[0]


def scored_draw(
    logits_NxV: jax.Array,
    uniform_Nx2: jax.Array,
    temperature: jax.Array,
    top_k: int = 0,
    top_p: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """`draw`, and the log-probability of each token under what it is drawn from; float32 N.

    That is tempered, cut off by `top_k` and `top_p`, and sums to 1 again.
    """
    drawn_N, logprob = _draw(logits_NxV / temperature, uniform_Nx2, top_k, top_p)
    return drawn_N, logprob()


def _draw(
    scaled_NxV: jax.Array, uniform_Nx2: jax.Array, top_k: int, top_p: float
) -> tuple[jax.Array, Callable[[], jax.Array]]:
    """Tokens, and what computes their log-probability out of what drawing has computed."""
    if not top_k and top_p >= 1:
        drawn_N = _draw_in_blocks(jax.nn.softmax(scaled_NxV), uniform_Nx2)
        return drawn_N, lambda: token_logprob(scaled_NxV, drawn_N)
    vocabulary = scaled_NxV.shape[-1]
    values_NxK, tokens_NxK = likeliest(scaled_NxV, min(top_k or vocabulary, vocabulary))
    probs_NxK = jax.nn.softmax(values_NxK)
    before_NxK = jnp.cumsum(probs_NxK, axis=-1) - probs_NxK
    least = jnp.finfo(probs_NxK.dtype).tiny  # the likeliest is kept always
    kept_NxK = jnp.where(before_NxK < max(top_p, least), probs_NxK, 0.0)
    chosen_N = _invert(kept_NxK, uniform_Nx2[:, 0])

    def of_chosen(x_NxK: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x_NxK, chosen_N[:, None], axis=1)[:, 0]

    return of_chosen(tokens_NxK), lambda: jnp.log(of_chosen(kept_NxK) / jnp.sum(kept_NxK, axis=-1))


def likeliest(scores_NxV: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k`, equal scores in the order of their ids too, but a few times cheaper.

    The k highest scores lie in the k blocks with the highest maxima, so only those are searched.
    """
    rows, vocabulary = scores_NxV.shape
    if k * TOP_BLOCK > vocabulary // 2:
        return jax.lax.top_k(scores_NxV, k)
    blocked = _in_blocks(scores_NxV, TOP_BLOCK, -jnp.inf)
    chosen_NxK = jnp.sort(jax.lax.top_k(blocked.max(axis=-1), k)[1])
    candidates = jnp.take_along_axis(blocked, chosen_NxK[..., None], axis=1)
    values_NxK, place_NxK = jax.lax.top_k(candidates.reshape(rows, -1), k)
    block_NxK = jnp.take_along_axis(chosen_NxK, place_NxK // TOP_BLOCK, axis=1)
    return values_NxK, block_NxK * TOP_BLOCK + place_NxK % TOP_BLOCK


def greedy(logits_NxV: jax.Array) -> jax.Array:
    """The likeliest token of each row, the lowest id among equals; int32 N."""
    # argmax in two plain reductions, which a CPU runs several times faster than the one over pairs.
    vocabulary = logits_NxV.shape[-1]
    highest_N = jnp.max(logits_NxV, axis=-1, keepdims=True)
    ids_NxV = jnp.where(logits_NxV == highest_N, jnp.arange(vocabulary), vocabulary - 1)
    return jnp.min(ids_NxV, axis=-1).astype(jnp.int32)


def token_logprob(logits_NxV: jax.Array, token_N: jax.Array) -> jax.Array:
    """Log-probability of each row's token under the whole, untempered softmax; float32 N."""
    chosen_N = jnp.take_along_axis(logits_NxV, token_N[:, None], axis=1)[:, 0]
    return chosen_N - jax.nn.logsumexp(logits_NxV, axis=-1)


def guided(
    logits_NxV: jax.Array, opposite_NxV: jax.Array, guidance: jax.Array, cutoff: jax.Array
) -> jax.Array:
    """Scores of (1 + γ) log π(. | p) - γ log π(. | p⁻), of those tokens that p finds plausible.

    Classifier-free guidance (Ho & Salimans, 2207.12598) with the opposite instruction in the place
    of none, and contrastive decoding's cut-off (Li et al., 2210.15097): tokens less likely than α
    times the likeliest are left out, since a token that both find unlikely may get any difference.

    Args:
        logits_NxV: float32, under p.
        opposite_NxV: float32, under p⁻.
        guidance: γ; with 0 the scores are `logits_NxV`, bit by bit.
        cutoff: α; 0 leaves none out.
    """
    logp_NxV = jax.nn.log_softmax(logits_NxV)
    moved_NxV = logits_NxV + guidance * (logp_NxV - jax.nn.log_softmax(opposite_NxV))
    likeliest_N = jnp.max(logits_NxV, axis=-1, keepdims=True)
    plausible_NxV = logits_NxV >= likeliest_N + jnp.log(cutoff)
    return jnp.where(plausible_NxV | (guidance == 0), moved_NxV, -jnp.inf)


def _draw_in_blocks(probs_NxV: jax.Array, uniform_Nx2: jax.Array) -> jax.Array:
    # One uniform picks a block of the vocabulary, the other a token in it. Sums of 128 terms are
    # cheaper than a running sum over the vocabulary, and 46 random bits resolve rare tokens.
    blocks = _in_blocks(probs_NxV, BLOCK, 0.0)
    block_N = _invert(blocks.sum(axis=-1), uniform_Nx2[:, 0])
    block = jnp.take_along_axis(blocks, block_N[:, None, None], axis=1)[:, 0]
    return block_N * BLOCK + _invert(block, uniform_Nx2[:, 1])


def _in_blocks(x_NxV: jax.Array, size: int, fill: float) -> jax.Array:
    padding = ((0, 0), (0, -x_NxV.shape[1] % size))
    return jnp.pad(x_NxV, padding, constant_values=fill).reshape(x_NxV.shape[0], -1, size)


def _invert(weights_NxK: jax.Array, uniform_N: jax.Array) -> jax.Array:
    # The first index whose cumulative weight exceeds uniform * total. The largest float32 uniform
    # is 1 - 2^-23, so there is one. Long running sums are computed in a tree, whose rounding can
    # raise the sum at an entry of no weight: such entries are left out.
    cumulative = jnp.where(weights_NxK > 0, jnp.cumsum(weights_NxK, axis=-1), 0.0)
    threshold = uniform_N[:, None] * cumulative.max(axis=-1, keepdims=True)
    return jnp.argmax(cumulative > threshold, axis=-1).astype(jnp.int32)
