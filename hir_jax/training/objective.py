"""The loss of a batch: one fused pass over its prompts, and the terms that a method makes of it.

Letters in names: B examples, P prompts of each, S source tokens, T target tokens.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hir_jax.errors import UserError
from hir_jax.model import t5, value_head
from hir_jax.model.config import Params, T5Config
from hir_jax.training import losses
from hir_jax.training.batch import Batch
from hir_jax.training.losses import EXAMPLES, TOKENS, Term, Terms, TokenStatistics

AVERAGES = ("tokens", "examples", "constant")


class Statistics(NamedTuple):
    """What a method's terms are made of; float32, and 0 in weights and scalars at padding."""

    own: TokenStatistics  # of the targets under p*
    opposite: TokenStatistics | None  # under p⁻, where the method needs it
    value_BxT: jax.Array | None  # what the value head expects, before each target token
    mask_BxT: jax.Array
    weight_BxT: jax.Array  # what each token counts for, see `token_weights`
    weight_B: jax.Array  # what each example counts for
    scalars: Mapping[str, jax.Array]  # those of the method's rows, B or BxT
    crossed: Callable[[], jax.Array]  # P_ik, see `cross_logprobs`; computed where it is called


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a step descends on.

    Attributes:
        terms: of a method.
        opposite: whether they need the targets under p⁻.
        values: whether they need the value head.
        crossed: whether they need every output under every prompt of the batch.
        entropy_weight: β.
        kl_weight: κ, of the divergence from the starting model under the sampling prompt.
        average: one of `AVERAGES`, what terms of tokens are a mean over. Of 'examples', each is the
            mean over its own tokens, so that a long output counts no more than a short one; of
            'constant', the sum over its tokens divided by `length` (Liu et al., 2025, 2503.20783).
        length: tokens of the longest output.
        logits_at_once: float32 logits that the loss holds at a time, of all devices together.
    """

    terms: Callable[[Statistics], Terms]
    opposite: bool = False
    values: bool = False
    crossed: bool = False
    entropy_weight: float = 0.0
    kl_weight: float = 0.0
    average: str = "tokens"
    length: int = 1
    logits_at_once: int = 2**24


def total_loss(
    params: Params,
    batch: Batch,
    dropout_key: jax.Array | None,
    *,
    config: T5Config,
    objective: Objective,
    counts: dict[str, jax.Array],
    reference: Params | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighed sum of the terms of `batch`, a part of a batch of `counts`; and each term.

    The parts' losses, gradients and terms add up to the whole batch's. A term is divided by how
    many tokens or examples there are, not by their weights: those are 1 on average over an epoch,
    and where a batch of alike examples has heavy ones only, they are to stay heavy.
    """
    terms = loss_terms(params, batch, dropout_key, config, objective, reference)
    means = {name: term.sum / counts[term.per] for name, term in terms.items()}
    # A figure for the log has no gradient, not one times 0.
    parts = [t.coefficient * means[name] for name, t in terms.items() if t.coefficient]
    return sum(parts), means


def loss_terms(
    params: Params,
    batch: Batch,
    dropout_key: jax.Array | None,
    config: T5Config,
    objective: Objective,
    reference: Params | None = None,
) -> Terms:
    """All terms of the loss: the entropy's, the method's, the divergence from the start."""
    prompts = 2 if objective.opposite else 1
    size, source_length = batch.sources_BxPxS.shape[0], batch.sources_BxPxS.shape[-1]
    # One pass over all prompts of each example, neighbours in the batch axis so that an example
    # stays on its device.
    source = batch.sources_BxPxS[:, :prompts].reshape(size * prompts, source_length)
    source_mask = batch.source_masks_BxPxS[:, :prompts].reshape(size * prompts, source_length)
    inputs_BxT = t5.shift_right(config, batch.targets_BxT)
    inputs = jnp.repeat(inputs_BxT, prompts, axis=0)
    encode_key, decode_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    encoded = t5.encode(params, config, source, source_mask, encode_key)
    decoded = t5.decode(params, config, encoded, source_mask, inputs, decode_key)
    head_DxV = t5.head(params, config)
    rows, length = inputs.shape
    pieces = losses.pieces_for(rows, length, config.vocab_size, objective.logits_at_once)
    mask_BxT = batch.target_mask_BxT
    weight_BxT = token_weights(batch, objective.average, objective.length)

    statistics = losses.token_statistics(
        decoded, head_DxV, jnp.repeat(batch.targets_BxT, prompts, axis=0), pieces
    )
    by_prompt = lambda x: x.reshape(size, prompts, *x.shape[1:])  # noqa: E731
    under = [TokenStatistics(*(by_prompt(x)[:, p] for x in statistics)) for p in range(prompts)]
    own_encoded = by_prompt(encoded)[:, 0]
    given = Statistics(
        own=under[0],
        opposite=under[1] if objective.opposite else None,
        value_BxT=(
            value_head.values(params, by_prompt(decoded)[:, 0]) if objective.values else None
        ),
        mask_BxT=mask_BxT,
        weight_BxT=weight_BxT,
        weight_B=jnp.where(jnp.any(mask_BxT, axis=1), batch.weight_B, 0.0),
        scalars=batch.scalars,
        crossed=lambda: cross_logprobs(
            params, config, own_encoded, batch.source_masks_BxPxS[:, 0], batch, decode_key
        ),
    )
    entropy = losses.negative_entropy(under[0], weight_BxT, objective.entropy_weight)
    own = objective.terms(given)
    if not (isinstance(own, dict) and own and all(isinstance(t, Term) for t in own.values())):
        raise UserError(
            "config.algorithm: expected `terms` of a method to give a dict of terms, as "
            "hir_jax.training.losses.of_tokens and of_examples make them; found "
            f"{own!r:.200}."
        )
    terms = {"negative_entropy": entropy} | own
    if objective.kl_weight:
        prompt, prompt_mask, policy = (
            _under_sampling_prompt(x, batch.correct_B)
            for x in (batch.sources_BxPxS, batch.source_masks_BxPxS, by_prompt(decoded))
        )
        reference_encoded = t5.encode(reference, config, prompt, prompt_mask)
        kept = t5.decode(reference, config, reference_encoded, prompt_mask, inputs_BxT)
        terms["kl"] = losses.kl_divergence(
            policy,
            head_DxV,
            kept,
            t5.head(reference, config),
            weight_BxT,
            pieces,
            objective.kl_weight,
        )
    return terms


def _under_sampling_prompt(x_BxP: jax.Array, correct_B: jax.Array) -> jax.Array:
    # Sampling asks for a right answer: p* of a right output, p⁻ of a wrong one. Where a method has
    # one prompt alone, that is it.
    if x_BxP.shape[1] == 1:
        return x_BxP[:, 0]
    return jnp.where(jnp.expand_dims(correct_B, range(1, x_BxP.ndim - 1)), x_BxP[:, 0], x_BxP[:, 1])


def cross_logprobs(
    params: Params,
    config: T5Config,
    encoded_BxSxD: jax.Array,
    source_mask_BxS: jax.Array,
    batch: Batch,
    dropout_key: jax.Array | None,
) -> jax.Array:
    """P_ik, the summed log-probability of output i under prompt k; BxB.

    Prompts are encoded once. Outputs are decoded one at a time against all prompts, and again in
    the backward pass, so that logits of one output are in memory and not of all pairs.
    """
    size = encoded_BxSxD.shape[0]

    @jax.checkpoint
    def scores(target_T: jax.Array, mask_T: jax.Array) -> jax.Array:
        targets = jnp.broadcast_to(target_T, (size, *target_T.shape))
        inputs = t5.shift_right(config, targets)
        decoded = t5.decode(params, config, encoded_BxSxD, source_mask_BxS, inputs, dropout_key)
        logprob_BxT = losses.token_statistics(decoded, t5.head(params, config), targets).logprob
        return losses.sum_logprob(logprob_BxT, mask_T)

    return jax.lax.map(lambda row: scores(*row), (batch.targets_BxT, batch.target_mask_BxT))


def token_weights(batch: Batch, average: str, length: int = 1) -> jax.Array:
    """What each target token counts for, 0 where it is padding; float32 BxT.

    Of two examples of weights 1 and 3::

        targets     a b c $    average tokens      1 1 1 1       examples    1/4 1/4 1/4 1/4
                    a $ - -                        3 3 0 0                   3/2 3/2 0   0
                               constant, length 8  1/8 1/8 1/8 1/8
                                                   3/8 3/8 0   0
    """
    weight_B = batch.weight_B
    if average == "examples":
        weight_B = weight_B / jnp.maximum(jnp.sum(batch.target_mask_BxT, axis=1), 1)
    elif average == "constant":
        weight_B = weight_B / length
    return jnp.where(batch.target_mask_BxT, weight_B[:, None], 0.0)


def counts_of(batch: Batch, average: str) -> dict[str, jax.Array]:
    """What terms of a whole batch are divided by: real tokens or real examples."""
    tokens = jnp.sum(batch.target_mask_BxT, dtype=jnp.float32)
    rows = jnp.sum(jnp.any(batch.target_mask_BxT, axis=1), dtype=jnp.float32)
    of_tokens = tokens if average == "tokens" else rows
    return {TOKENS: jnp.maximum(of_tokens, 1.0), EXAMPLES: jnp.maximum(rows, 1.0)}


def a_token(
    means: Mapping[str, jax.Array], batch: Batch, average: str, length: int = 1
) -> dict[str, jax.Array]:
    """Entropy and divergence from the start in nats a token, of the means of a batch's terms.

    Terms are means of what tokens count for, which is less than 1 where `average` is 'constant' and
    in batches of light examples. NaN in a batch whose examples all weigh nothing.
    """
    weight = jnp.sum(token_weights(batch, average, length)) / counts_of(batch, average)[TOKENS]
    found = {"entropy": -means["negative_entropy"] / weight}
    return found | ({"kl": means["kl"] / weight} if "kl" in means else {})
