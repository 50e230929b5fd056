"""The loss of a batch: one fused pass over [p*; p⁻], and its terms added up.

Letters in names: B examples, S source tokens, T target tokens.
"""

import dataclasses

import jax
import jax.numpy as jnp

from hir_jax.model import t5
from hir_jax.model.config import Params, T5Config
from hir_jax.training import losses
from hir_jax.training.batch import Batch

Terms = dict[str, losses.Term]


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Coefficients and forms of the terms; `losses` defines each.

    Attributes:
        smoothing: ε of the supervised term.
        contrastive: 'pairwise' or 'in_batch'; matters only where `contrastive_weight` is not 0.
        contrastive_weight: α.
        contrastive_smoothing: ε_c of the pairwise form.
        entropy_weight: β.
        kl_weight: κ.
        average: 'tokens' or 'examples': what the terms of tokens are a mean over. An example is
            then the mean over its own tokens, so that a long output counts no more than a short.
        logits_at_once: float32 logits that the loss holds at a time, of all devices together.
    """

    smoothing: float
    contrastive: str = "pairwise"
    contrastive_weight: float = 0.0
    contrastive_smoothing: float = 0.0
    entropy_weight: float = 0.0
    kl_weight: float = 0.0
    average: str = "tokens"
    logits_at_once: int = 2**24

    @property
    def uses_negative(self) -> bool:
        """Whether a pass under p⁻ is needed."""
        pairwise = self.contrastive_weight != 0 and self.contrastive == "pairwise"
        return pairwise or self.kl_weight != 0


def total_loss(
    params: Params,
    batch: Batch,
    dropout_key: jax.Array | None,
    *,
    config: T5Config,
    settings: LossSettings,
    weights: dict[str, jax.Array],
    reference: Params | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """L_sup + α L_contrastive + β L_entropy + κ KL of `batch`, a part of a batch of `weights`.

    The parts' losses, gradients and terms add up to the whole batch's. A term is divided by how
    many tokens or examples there are, not by their weights: those are 1 on average over an epoch,
    and where a batch of alike examples has heavy ones only, they are to stay heavy.
    """
    terms = loss_terms(params, batch, dropout_key, config, settings, reference)
    coefficients = {
        "supervised": 1.0,
        "contrastive": settings.contrastive_weight,
        "negative_entropy": settings.entropy_weight,
        "kl": settings.kl_weight,
    }
    shares = {name: term.sum / weights[name] for name, term in terms.items()}
    return sum(coefficients[name] * share for name, share in shares.items()), shares


def loss_terms(
    params: Params,
    batch: Batch,
    dropout_key: jax.Array | None,
    config: T5Config,
    settings: LossSettings,
    reference: Params | None = None,
) -> Terms:
    """Each term of the loss as (sum, weight)."""
    kinds = 2 if settings.uses_negative else 1
    size, source_length = batch.sources_Bx2xS.shape[0], batch.sources_Bx2xS.shape[-1]
    # One pass over both prompts of each example, neighbours in the batch axis so that an example
    # stays on its device.
    source = batch.sources_Bx2xS[:, :kinds].reshape(size * kinds, source_length)
    source_mask = batch.source_masks_Bx2xS[:, :kinds].reshape(size * kinds, source_length)
    inputs_BxT = t5.shift_right(config, batch.targets_BxT)
    inputs = jnp.repeat(inputs_BxT, kinds, axis=0)
    encode_key, decode_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    encoded = t5.encode(params, config, source, source_mask, encode_key)
    decoded = t5.decode(params, config, encoded, source_mask, inputs, decode_key)
    head_DxV = t5.head(params, config)
    length = inputs.shape[1]
    pieces = losses.pieces_for(size * kinds, length, config.vocab_size, settings.logits_at_once)
    mask_BxT = batch.target_mask_BxT
    weight_B = jnp.where(jnp.any(mask_BxT, axis=1), batch.weight_B, 0.0)
    weight_BxT = token_weights(batch, settings.average)

    statistics = losses.token_statistics(
        decoded, head_DxV, jnp.repeat(batch.targets_BxT, kinds, axis=0), pieces
    )
    by_kind = lambda x: x.reshape(size, kinds, *x.shape[1:])  # noqa: E731
    positive = losses.TokenStatistics(*(by_kind(x)[:, 0] for x in statistics))
    terms = {
        "supervised": losses.supervised(positive, weight_BxT, settings.smoothing),
        "negative_entropy": losses.negative_entropy(positive, weight_BxT),
    }
    if settings.contrastive_weight and settings.contrastive == "pairwise":
        terms["contrastive"] = losses.pairwise_contrastive(
            losses.mean_logprob(positive.logprob, mask_BxT),
            losses.mean_logprob(by_kind(statistics.logprob)[:, 1], mask_BxT),
            weight_B,
            settings.contrastive_smoothing,
        )
    elif settings.contrastive_weight:
        logprob_BxC = cross_logprobs(
            params,
            config,
            by_kind(encoded)[:, 0],
            batch.source_masks_Bx2xS[:, 0],
            batch,
            decode_key,
        )
        terms["contrastive"] = losses.in_batch_contrastive(logprob_BxC, weight_B)
    if settings.kl_weight:
        prompt, prompt_mask, policy = (
            _under_sampling_prompt(x, batch.correct_B)
            for x in (batch.sources_Bx2xS, batch.source_masks_Bx2xS, by_kind(decoded))
        )
        reference_encoded = t5.encode(reference, config, prompt, prompt_mask)
        kept = t5.decode(reference, config, reference_encoded, prompt_mask, inputs_BxT)
        terms["kl"] = losses.kl_divergence(
            policy, head_DxV, kept, t5.head(reference, config), weight_BxT, pieces
        )
    return terms


def _under_sampling_prompt(x_Bx2: jax.Array, correct_B: jax.Array) -> jax.Array:
    # Sampling asks for a right answer: p* of a right output, p⁻ of a wrong one.
    return jnp.where(jnp.expand_dims(correct_B, range(1, x_Bx2.ndim - 1)), x_Bx2[:, 0], x_Bx2[:, 1])


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
        return jnp.sum(jnp.where(mask_T, logprob_BxT, 0.0), axis=-1)

    return jax.lax.map(lambda row: scores(*row), (batch.targets_BxT, batch.target_mask_BxT))


def token_weights(batch: Batch, average: str) -> jax.Array:
    """What each target token counts for, 0 where it is padding; float32 BxT.

    Of two examples of weights 1 and 3::

        targets     a b c $    average tokens      1 1 1 1       examples    1/4 1/4 1/4 1/4
                    a $ - -                        3 3 0 0                   3/2 3/2 0   0
    """
    weight_B = batch.weight_B
    if average == "examples":
        weight_B = weight_B / jnp.maximum(jnp.sum(batch.target_mask_BxT, axis=1), 1)
    return jnp.where(batch.target_mask_BxT, weight_B[:, None], 0.0)


def weights_of(batch: Batch, average: str) -> dict[str, jax.Array]:
    """What each term of a whole batch is averaged over: real tokens or real examples."""
    tokens = jnp.sum(batch.target_mask_BxT, dtype=jnp.float32)
    rows = jnp.sum(jnp.any(batch.target_mask_BxT, axis=1), dtype=jnp.float32)
    of_tokens = jnp.maximum(rows if average == "examples" else tokens, 1.0)
    return {
        "supervised": of_tokens,
        "negative_entropy": of_tokens,
        "kl": of_tokens,
        "contrastive": jnp.maximum(rows, 1.0),
    }
