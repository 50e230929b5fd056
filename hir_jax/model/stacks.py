"""Encoder, decoder and the whole T5 as Linen modules; `t5` has the functions over them.

Letters in names: B sources in the batch, N rows, L lanes (a multiple of B), S source tokens,
T target tokens, D model width, H heads, K width of a head, F feed-forward width, V vocabulary.
"""

from collections.abc import Callable
from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from hir_jax.model.cache import Cache, Lanes
from hir_jax.model.config import T5Config
from hir_jax.model.layers import (
    MASKED,
    Attention,
    Dropout,
    FeedForward,
    RMSNorm,
    bias_table,
    mask_bias,
    relative_bucket,
)

T = TypeVar("T")

BLOCK = "block"  # the name of what a block gives, for policies of `jax.checkpoint`


def spread(table: jax.Array, buckets_QxS: np.ndarray | jax.Array) -> jax.Array:
    """The biases of pairs of positions, 1xHxQxS."""
    return table[buckets_QxS].transpose(2, 0, 1)[None]


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and feed-forward, each with a residual."""

    config: T5Config

    @nn.compact
    def __call__(
        self, x_BxSxD: jax.Array, bias: jax.Array, buckets_SxS: jax.Array | None = None
    ) -> jax.Array:
        """BxSxD -> BxSxD. With buckets the block has a table, whose biases are added to `bias`."""
        c = self.config
        if buckets_SxS is not None:
            bias = spread(bias_table(self), buckets_SxS) + bias
        y = RMSNorm(c, name="self_attention_norm")(x_BxSxD)
        x = x_BxSxD + Dropout(c.dropout_rate)(Attention(c, name="self_attention")(y, bias))
        y = FeedForward(c, name="feed_forward")(RMSNorm(c, name="feed_forward_norm")(x))
        return x + Dropout(c.dropout_rate)(y)


class DecoderBlock(nn.Module):
    """Pre-norm self-attention, cross-attention and feed-forward, each with a residual."""

    config: T5Config

    def setup(self) -> None:
        """Three sub-layers and their norms."""
        c = self.config
        if c.layer_biases:
            self.relative_bias = bias_table(self)
        self.self_attention_norm = RMSNorm(c)
        self.self_attention = Attention(c)
        self.cross_attention_norm = RMSNorm(c)
        self.cross_attention = Attention(c)
        self.feed_forward_norm = RMSNorm(c)
        self.feed_forward = FeedForward(c)
        self.dropout = Dropout(c.dropout_rate)

    def __call__(
        self,
        x_NxTxD: jax.Array,
        bias: jax.Array,
        cross: tuple[jax.Array, jax.Array],
        cross_bias: jax.Array,
    ) -> jax.Array:
        """A whole target, NxTxD; `cross` from `cross_attention.project`."""
        x = x_NxTxD + self.dropout(self.self_attention(self.self_attention_norm(x_NxTxD), bias))
        return self._attend_source(x, cross, cross_bias)

    def in_pieces(
        self,
        x_BxTxD: jax.Array,
        bias: Callable[[jax.Array], jax.Array],
        cross: tuple[jax.Array, jax.Array],
        cross_bias: jax.Array,
        pieces: int,
    ) -> jax.Array:
        """The same, without dropout; attention for T / pieces positions at a time."""
        y = self.self_attention_norm(x_BxTxD)
        kept = self.self_attention.project(y)
        x = x_BxTxD + self.self_attention.attend(y, *kept, bias, pieces=pieces)
        return self._attend_source(x, cross, lambda start: cross_bias, pieces=pieces)

    def step(
        self,
        x_Nx1xD: jax.Array,
        kept: tuple[jax.Array, jax.Array],
        column: jax.Array,
        bias: jax.Array,
        cross: tuple[jax.Array, jax.Array],
        cross_bias: jax.Array,
        lanes: Lanes | None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """One token a row, its key and value written at `column` of those kept."""
        y = self.self_attention_norm(x_Nx1xD)
        new = self.self_attention.project(y)
        start = (0, 0, column, 0)
        key, value = (
            jax.lax.dynamic_update_slice(old, one.astype(old.dtype), start)
            for old, one in zip(kept, new, strict=True)
        )
        x = x_Nx1xD + self.self_attention.attend(y, key, value, bias)
        return self._attend_source(x, cross, cross_bias, lanes), (key, value)

    def _attend_source(
        self,
        x: jax.Array,
        cross: tuple[jax.Array, jax.Array],
        cross_bias: jax.Array | Callable[[jax.Array], jax.Array],
        lanes: Lanes | None = None,
        pieces: int = 1,
    ) -> jax.Array:
        y = self.cross_attention_norm(x)
        y = self.cross_attention.attend(y, *cross, cross_bias, lanes, pieces)
        x = x + self.dropout(y)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Encoder(nn.Module):
    """Blocks that share one relative-position bias, or have one each, then a norm."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxSxD: jax.Array, mask_BxS: jax.Array) -> jax.Array:
        """BxSxD -> BxSxD."""
        c = self.config
        positions = np.arange(x_BxSxD.shape[1])
        buckets_SxS = relative_bucket(c, positions[None, :] - positions[:, None], True)
        if c.layer_biases:
            biases = (mask_bias(mask_BxS), buckets_SxS)
        else:
            biases = (spread(bias_table(self), buckets_SxS) + mask_bias(mask_BxS),)
        x = Dropout(c.dropout_rate)(x_BxSxD)
        block = nn.remat(EncoderBlock) if c.remat else EncoderBlock
        for i in range(c.num_layers):
            x = checkpoint_name(block(c, name=f"block_{i}")(x, *biases), BLOCK)
        return Dropout(c.dropout_rate)(RMSNorm(c, name="final_norm")(x))


class Decoder(nn.Module):
    """Blocks that share one causal relative-position bias, or have one each, then a norm."""

    config: T5Config

    def setup(self) -> None:
        """The blocks, `block_0` on."""
        c = self.config
        if not c.layer_biases:
            self.relative_bias = bias_table(self)
        block = nn.remat(DecoderBlock) if c.remat else DecoderBlock
        self.block = [block(c) for _ in range(c.num_decoder_layers)]
        self.final_norm = RMSNorm(c)
        self.dropout = Dropout(c.dropout_rate)

    def project_cross(self, encoded_BxSxD: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        """Cross-attention keys and values of each layer, BxHxSxK."""
        return [block.cross_attention.project(encoded_BxSxD) for block in self.block]

    def biases(self, of: Callable[[jax.Array], T]) -> list[T]:
        """For each block what `of` makes of its table; once where they share one."""
        if self.config.layer_biases:
            return [of(block.relative_bias) for block in self.block]
        return [of(self.relative_bias)] * len(self.block)

    def __call__(
        self, x_NxTxD: jax.Array, encoded_BxSxD: jax.Array, source_mask_BxS: jax.Array
    ) -> jax.Array:
        """A whole target at once, NxTxD."""
        positions = np.arange(x_NxTxD.shape[1])
        distance_TxT = positions[None, :] - positions[:, None]
        buckets_TxT = relative_bucket(self.config, distance_TxT, False)
        unseen_TxT = np.where(distance_TxT <= 0, 0.0, MASKED)
        biases = self.biases(lambda table: spread(table, buckets_TxT) + unseen_TxT)
        cross_bias = mask_bias(source_mask_BxS)
        x = self.dropout(x_NxTxD)
        crosses = self.project_cross(encoded_BxSxD)
        for block, bias, cross in zip(self.block, biases, crosses, strict=True):
            x = checkpoint_name(block(x, bias, cross, cross_bias), BLOCK)
        return self.dropout(self.final_norm(x))

    def in_pieces(
        self,
        x_BxTxD: jax.Array,
        encoded_BxSxD: jax.Array,
        source_mask_BxS: jax.Array,
        pieces: int,
    ) -> jax.Array:
        """The same, without dropout; attention for T / pieces positions at a time."""
        length = x_BxTxD.shape[1]
        buckets_T = relative_bucket(self.config, -np.arange(length), False)

        def of_pieces(table: jax.Array) -> Callable[[jax.Array], jax.Array]:
            table_TxH = table[buckets_T]

            def bias(start: jax.Array) -> jax.Array:
                queries = start + jnp.arange(length // pieces)
                steps_ago_QxT = queries[:, None] - jnp.arange(length)
                seen = spread(table_TxH, jnp.maximum(steps_ago_QxT, 0))
                return seen + jnp.where(steps_ago_QxT >= 0, 0.0, MASKED)

            return bias

        biases = self.biases(of_pieces)
        cross_bias, x = mask_bias(source_mask_BxS), x_BxTxD
        crosses = self.project_cross(encoded_BxSxD)
        for block, bias, cross in zip(self.block, biases, crosses, strict=True):
            x = block.in_pieces(x, bias, cross, cross_bias, pieces)
        return self.final_norm(x)

    def step(
        self,
        x_Nx1xD: jax.Array,
        cache: Cache,
        clock: jax.Array,
        age_N: jax.Array,
        lanes: Lanes | None,
    ) -> tuple[jax.Array, Cache]:
        """One token a row, Nx1xD, and the cache with it."""
        length = cache.keys_NxHxTxK[0].shape[2]
        steps_ago_T = (clock - jnp.arange(length)) % length
        buckets_T = relative_bucket(self.config, -np.arange(length), False)

        def bias_of(table: jax.Array) -> jax.Array:
            table_TxH = table[buckets_T]
            unseen_NxT = steps_ago_T > age_N[:, None]
            return table_TxH[steps_ago_T].T[None, :, None] + MASKED * unseen_NxT[:, None, None]

        biases = self.biases(bias_of)
        cross_bias = mask_bias(cache.source_mask_BxS)
        x, kept = x_Nx1xD, []
        for i, (block, bias) in enumerate(zip(self.block, biases, strict=True)):
            old = (cache.keys_NxHxTxK[i], cache.values_NxHxTxK[i])
            x, new = block.step(x, old, clock % length, bias, cache.cross(i), cross_bias, lanes)
            kept.append(new)
        keys, values = zip(*kept, strict=True)
        return self.final_norm(x), cache.replace(keys_NxHxTxK=keys, values_NxHxTxK=values)


class T5(nn.Module):
    """The whole model."""

    config: T5Config

    def setup(self) -> None:
        """Embedding, two stacks, and a head where it is not tied to the embedding."""
        c = self.config
        shape = (c.vocab_size, c.d_model)
        self.embedding_VxD = self.param("shared", nn.initializers.normal(1.0), shape)
        self.encoder = Encoder(c)
        self.decoder = Decoder(c)
        if not c.tie_lm_head:
            initializer = nn.initializers.normal(c.d_model**-0.5)
            self.head_DxV = self.param("lm_head", initializer, shape[::-1])

    def __call__(
        self, source_BxS: jax.Array, source_mask_BxS: jax.Array, inputs_NxT: jax.Array
    ) -> jax.Array:
        """See `forward`."""
        encoded = self.encode(source_BxS, source_mask_BxS)
        return self._logits(self.decode(encoded, source_mask_BxS, inputs_NxT))

    def encode(self, source_BxS: jax.Array, source_mask_BxS: jax.Array) -> jax.Array:
        """See the function `encode`."""
        return self.encoder(self._embed(source_BxS), source_mask_BxS)

    def decode(
        self,
        encoded_BxSxD: jax.Array,
        source_mask_BxS: jax.Array,
        inputs_NxT: jax.Array,
        pieces: int = 1,
    ) -> jax.Array:
        """See the function `decode`."""
        given = (self._embed(inputs_NxT), encoded_BxSxD, source_mask_BxS)
        decoded = self.decoder(*given) if pieces == 1 else self.decoder.in_pieces(*given, pieces)
        return self._scale(decoded)

    def project_cross(self, encoded_BxSxD: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        """Cross-attention keys and values of each layer."""
        return self.decoder.project_cross(encoded_BxSxD)

    def decode_step(
        self,
        cache: Cache,
        token_N: jax.Array,
        clock: jax.Array,
        age_N: jax.Array,
        lanes: Lanes | None,
    ) -> tuple[jax.Array, Cache]:
        """See the function `decode_step`."""
        x, cache = self.decoder.step(self._embed(token_N[:, None]), cache, clock, age_N, lanes)
        return self._logits(self._scale(x))[:, 0], cache

    def _embed(self, tokens: jax.Array) -> jax.Array:
        return self.embedding_VxD[tokens].astype(self.config.dtype)

    def _scale(self, x: jax.Array) -> jax.Array:
        return x * self.config.d_model**-0.5 if self.config.scale_decoder_outputs else x

    def _logits(self, x: jax.Array) -> jax.Array:
        c = self.config
        head_DxV = self.embedding_VxD.T if c.tie_lm_head else self.head_DxV
        return jnp.matmul(x, head_DxV.astype(c.dtype), preferred_element_type=jnp.float32)
