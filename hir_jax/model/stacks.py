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

from hir_jax.model import remat
from hir_jax.model.cache import Cache, Lanes
from hir_jax.model.config import T5Config
from hir_jax.model.layers import Attention, Dropout, FeedForward, RMSNorm, bias_table
from hir_jax.model.positions import MASKED, mask_bias, relative_bucket

T = TypeVar("T")


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and feed-forward, each with a residual."""

    config: T5Config

    @nn.compact
    def __call__(
        self, x_BxSxD: jax.Array, table: jax.Array | None, mask_BxS: jax.Array
    ) -> jax.Array:
        """BxSxD -> BxSxD. Without a table of biases the block has one of its own."""
        c = self.config
        table = bias_table(self) if table is None else table
        y = RMSNorm(c, name="self_attention_norm")(x_BxSxD)
        y = Attention(c, name="self_attention")(y, table, mask_BxS)
        x = remat.product(x_BxSxD + Dropout(c.dropout_rate)(y))
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
        table: jax.Array,
        cross: tuple[jax.Array, jax.Array],
        source_mask_BxS: jax.Array,
    ) -> jax.Array:
        """A whole target, NxTxD; `cross` from `cross_attention.project`."""
        y = self.self_attention(self.self_attention_norm(x_NxTxD), table, causal=True)
        x = remat.product(x_NxTxD + self.dropout(y))
        y = self.cross_attention_norm(x)
        y = self.cross_attention.attend(y, *cross, source_mask_BxS)
        x = remat.product(x + self.dropout(y))
        return self._feed_forward(x)

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
        new = self.self_attention.project(y, self.config.heads_together)
        start = (0, 0, column, 0)
        key, value = (
            jax.lax.dynamic_update_slice(old, one.astype(old.dtype), start)
            for old, one in zip(kept, new, strict=True)
        )
        x = x_Nx1xD + self.self_attention.step(y, key, value, bias)
        y = self.cross_attention_norm(x)
        x = x + self.cross_attention.step(y, *cross, cross_bias, lanes)
        return self._feed_forward(x), (key, value)

    def _feed_forward(self, x: jax.Array) -> jax.Array:
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


def _forgetful(block: type[nn.Module], config: T5Config) -> type[nn.Module]:
    """The block, which computes again for the gradient what `config.remat` does not keep."""
    return nn.remat(block, policy=remat.policy(config.remat)) if config.remat else block


class Encoder(nn.Module):
    """Blocks that share one relative-position bias, or have one each, then a norm."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxSxD: jax.Array, mask_BxS: jax.Array) -> jax.Array:
        """BxSxD -> BxSxD."""
        c = self.config
        table = None if c.layer_biases else bias_table(self)
        x = Dropout(c.dropout_rate)(x_BxSxD)
        block = _forgetful(EncoderBlock, c)
        for i in range(c.num_layers):
            x = remat.block(block(c, name=f"block_{i}")(x, table, mask_BxS))
        return Dropout(c.dropout_rate)(RMSNorm(c, name="final_norm")(x))


class Decoder(nn.Module):
    """Blocks that share one causal relative-position bias, or have one each, then a norm."""

    config: T5Config

    def setup(self) -> None:
        """The blocks, `block_0` on."""
        c = self.config
        if not c.layer_biases:
            self.relative_bias = bias_table(self)
        block = _forgetful(DecoderBlock, c)
        self.block = [block(c) for _ in range(c.num_decoder_layers)]
        self.final_norm = RMSNorm(c)
        self.dropout = Dropout(c.dropout_rate)

    def project_cross(
        self, encoded_BxSxD: jax.Array, together: int = 1
    ) -> list[tuple[jax.Array, jax.Array]]:
        """Cross-attention keys and values of each layer, as `Attention.project` has them."""
        return [block.cross_attention.project(encoded_BxSxD, together) for block in self.block]

    def biases(self, of: Callable[[jax.Array], T]) -> list[T]:
        """For each block what `of` makes of its table; once where they share one."""
        if self.config.layer_biases:
            return [of(block.relative_bias) for block in self.block]
        return [of(self.relative_bias)] * len(self.block)

    def __call__(
        self, x_NxTxD: jax.Array, encoded_BxSxD: jax.Array, source_mask_BxS: jax.Array
    ) -> jax.Array:
        """A whole target at once, NxTxD."""
        tables = self.biases(lambda table: table)
        x = self.dropout(x_NxTxD)
        crosses = self.project_cross(encoded_BxSxD)
        for block, table, cross in zip(self.block, tables, crosses, strict=True):
            x = remat.block(block(x, table, cross, source_mask_BxS))
        return self.dropout(self.final_norm(x))

    def step(
        self,
        x_Nx1xD: jax.Array,
        cache: Cache,
        clock: jax.Array,
        age_N: jax.Array,
        lanes: Lanes | None,
    ) -> tuple[jax.Array, Cache]:
        """One token a row, Nx1xD, and the cache with it."""
        length = cache.keys_NxGxTxC[0].shape[2]
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
            old = (cache.keys_NxGxTxC[i], cache.values_NxGxTxC[i])
            x, new = block.step(x, old, clock % length, bias, cache.cross(i), cross_bias, lanes)
            kept.append(new)
        keys, values = zip(*kept, strict=True)
        return self.final_norm(x), cache.replace(keys_NxGxTxC=keys, values_NxGxTxC=values)


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
    ) -> jax.Array:
        """See the function `decode`."""
        x = self._embed(inputs_NxT)
        return self._scale(self.decoder(x, encoded_BxSxD, source_mask_BxS))

    def project_cross(self, encoded_BxSxD: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        """Cross-attention keys and values of each layer, as decoding keeps them."""
        return self.decoder.project_cross(encoded_BxSxD, self.config.heads_together)

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
