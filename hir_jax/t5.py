"""T5 (Raffel et al., 2020), v1.0 and v1.1/FLAN, as Linen modules behind pure functions.

Parameters are a plain nested dict of float32 arrays; caches and dropout keys are arguments.

Letters in names: B sources in the batch, N rows, L lanes (a multiple of B), S source tokens,
T target tokens, D model width, H heads, K width of a head, F feed-forward width, V vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

Params = dict[str, Any]

BLOCK = "block"  # the name of what a block gives, for policies of `jax.checkpoint`

# Added to the score of a key that must not be seen; far below any real score in float32.
MASKED = -1e9

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": lambda x: nn.gelu(x, approximate=True),
    "silu": nn.silu,
}


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The shape of a T5 and the precision it computes in.

    Attributes:
        activation: a key of `ACTIVATIONS`.
        gated: v1.1's feed-forward, act(x W0) * (x W1), instead of v1.0's act(x W).
        tie_lm_head: logits use the embedding matrix instead of an `lm_head` of their own.
        scale_decoder_outputs: multiply the decoder's output by d_model ** -0.5 before the head.
        dtype: of activations and matrix products; norms, softmax and logits are float32 always.
        remat: keep of a block's activations only its input, and compute the rest again for the
            gradient; a third more work for a fraction of the memory. (`train_step` gathers weights
            that are split over devices again, too.)
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    activation: str = "gelu_new"
    gated: bool = True
    tie_lm_head: bool = False
    scale_decoder_outputs: bool = False
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0
    dtype: str = "float32"
    remat: bool = False


@flax.struct.dataclass
class Lanes:
    """Which source each row of a decode step reads.

    Source b has the lanes b * L/B ... (b + 1) * L/B - 1. Rows are dense, lanes need not all be
    taken: cross-attention alone is computed lane by lane, so that the rows of one source share its
    keys and values wherever they stand in the batch.
    """

    of_row_N: jax.Array  # each row's lane; L for a row that reads no source
    row_L: jax.Array  # each lane's row; any row where the lane is not taken

    @classmethod
    def make(cls, of_row_N: jax.Array, lanes: int) -> "Lanes":
        """From the lane of each row; a lane has one row at most."""
        rows = jnp.arange(of_row_N.shape[0], dtype=jnp.int32)
        return cls(of_row_N, jnp.zeros(lanes, jnp.int32).at[of_row_N].set(rows, mode="drop"))


@flax.struct.dataclass
class Cache:
    """What decoding keeps between steps; one array a decoder layer in each tuple.

    Self-attention is a ring on a clock that all rows share: at clock t every row writes column
    t mod T, so column c holds the token of (t - c) mod T steps ago. A row that began `age` steps
    ago sees only the columns that are at most `age` steps old. With T = 4, at clock 5:

        column             0  1  2  3
        steps ago          1  0  3  2
        seen at age 5      x  x  x  x      (a row may be as old as the clock, T columns at most)
        seen at age 1      x  x  .  .

    Cross-attention's keys and values are BxHxSxK where each source has one lane. Where it has more
    they are BxHxKxS, since a product with a few queries at once is four times as fast then on a
    CPU (one with a single query is a third slower).
    """

    keys_NxHxTxK: tuple[jax.Array, ...]
    values_NxHxTxK: tuple[jax.Array, ...]
    cross_keys: tuple[jax.Array, ...]
    cross_values: tuple[jax.Array, ...]
    source_mask_BxS: jax.Array
    transposed: bool = flax.struct.field(pytree_node=False)  # BxHxKxS

    def cross(self, layer: int) -> tuple[jax.Array, jax.Array]:
        """Keys and values of a layer's cross-attention, BxHxSxK."""
        return self.turn(self.cross_keys[layer]), self.turn(self.cross_values[layer])

    def turn(self, x: jax.Array) -> jax.Array:
        """From BxHxSxK to what is kept, and back."""
        return x.swapaxes(2, 3) if self.transposed else x


# Pure functions ------------------------------------------------------------------------------


def init_params(config: T5Config, key: jax.Array) -> Params:
    """Random float32 parameters, scaled as in Mesh TensorFlow's T5 (Raffel et al., 2020)."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    return T5(config).init(key, tokens, tokens == 0, tokens)["params"]


def encode(
    params: Params,
    config: T5Config,
    source_BxS: jax.Array,
    source_mask_BxS: jax.Array,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Encoder output BxSxD; `source_mask` is True at real tokens. No key, no dropout."""
    return _apply(params, config, dropout_key, "encode", source_BxS, source_mask_BxS)


def decode(
    params: Params,
    config: T5Config,
    encoded_BxSxD: jax.Array,
    source_mask_BxS: jax.Array,
    inputs_NxT: jax.Array,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Decoder output NxTxD of a whole target at once; `inputs` from `shift_right`.

    Its product with `head` is the logits. N may be a multiple of B: rows n * N/B ... (n + 1) * N/B
    - 1 then share source n.
    """
    args = (encoded_BxSxD, source_mask_BxS, inputs_NxT)
    return _apply(params, config, dropout_key, "decode", *args)


def forward(
    params: Params,
    config: T5Config,
    source_BxS: jax.Array,
    source_mask_BxS: jax.Array,
    inputs_NxT: jax.Array,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Float32 logits NxTxV: `encode`, then `decode`, then the head."""
    args = (source_BxS, source_mask_BxS, inputs_NxT)
    return _apply(params, config, dropout_key, "__call__", *args)


def head(params: Params, config: T5Config) -> jax.Array:
    """The output embedding DxV."""
    return params["shared"].T if config.tie_lm_head else params["lm_head"]


def shift_right(config: T5Config, targets_NxT: jax.Array) -> jax.Array:
    """Decoder inputs NxT for teacher forcing: the start token, then the targets but the last."""
    return jnp.pad(
        targets_NxT[:, :-1], ((0, 0), (1, 0)), constant_values=config.decoder_start_token_id
    )


def init_cache(
    config: T5Config, rows: int, length: int, sources: int, lanes: int, source_length: int
) -> Cache:
    """An empty cache: `length` columns a row, and room for sources of some lanes each."""

    def empty(*shape: int) -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros(shape, config.dtype) for _ in range(config.num_decoder_layers))

    kept = (rows, config.num_heads, length, config.d_kv)
    transposed = lanes > 1
    widths = (config.d_kv, source_length) if transposed else (source_length, config.d_kv)
    cross = (sources, config.num_heads, *widths)
    mask = jnp.zeros((sources, source_length), bool)
    return Cache(empty(*kept), empty(*kept), empty(*cross), empty(*cross), mask, transposed)


def lengthen_sources(cache: Cache, source_length: int) -> Cache:
    """The cache with room for longer sources; those in it stay as they are."""
    missing = source_length - cache.source_mask_BxS.shape[1]

    def pad(kept: jax.Array) -> jax.Array:
        return cache.turn(jnp.pad(cache.turn(kept), ((0, 0), (0, 0), (0, missing), (0, 0))))

    return cache.replace(
        cross_keys=tuple(map(pad, cache.cross_keys)),
        cross_values=tuple(map(pad, cache.cross_values)),
        source_mask_BxS=jnp.pad(cache.source_mask_BxS, ((0, 0), (0, missing))),
    )


def put_sources(
    params: Params,
    config: T5Config,
    cache: Cache,
    encoded_GxSxD: jax.Array,
    source_mask_GxS: jax.Array,
    place_G: jax.Array,
) -> Cache:
    """The cache with cross-attention keys and values of G sources, computed here and never again.

    `place_G` says which of the cache's sources they replace; one out of range is left out.
    """
    cross = _apply(params, config, None, "project_cross", encoded_GxSxD)

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[place_G].set(new.astype(old.dtype), mode="drop")

    keys, values = zip(*cross, strict=True)
    return cache.replace(
        cross_keys=tuple(map(put, cache.cross_keys, map(cache.turn, keys))),
        cross_values=tuple(map(put, cache.cross_values, map(cache.turn, values))),
        source_mask_BxS=put(cache.source_mask_BxS, source_mask_GxS),
    )


def decode_step(
    params: Params,
    config: T5Config,
    cache: Cache,
    token_N: jax.Array,
    clock: jax.Array,
    age_N: jax.Array,
    lanes: Lanes | None = None,
) -> tuple[jax.Array, Cache]:
    """One step for all rows: float32 logits NxV of the next token, and the cache with this one.

    Args:
        params: parameters.
        config: the model's shape.
        cache: from `init_cache` and `put_sources`, or the step before.
        token_N: the tokens read now (the start token in a row's first step).
        clock: scalar, steps since the cache was made.
        age_N: tokens each row has read before this one, less than the cache's length.
        lanes: the source of each row; None: row n reads source n // (N/B).
    """
    return _apply(params, config, None, "decode_step", cache, token_N, clock, age_N, lanes)


def _apply(
    params: Params, config: T5Config, dropout_key: jax.Array | None, method: str, *args: Any
) -> Any:
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    return T5(config).apply({"params": params}, *args, rngs=rngs, method=method)


def cast_weights(params: Params, dtype: str) -> Params:
    """The matrices in the precision that they are computed in; what is float32 always, stays.

    Gives the same results as the float32 parameters do, at `T5Config.dtype`.
    """

    def cast(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.float32 if path[-1].key in ("scale", "relative_bias") else dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


# Modules -------------------------------------------------------------------------------------


class Dense(nn.Module):
    """A matrix product without bias, kernel drawn from N(0, stddev²)."""

    features: int
    stddev: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x @ kernel in `dtype`."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(self.stddev), shape)
        # As one matrix: for a sum over two axes of a batch, which the kernel's gradient would be,
        # XLA transposes activations first on a CPU.
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        return (rows @ kernel.astype(self.dtype)).reshape(*x.shape[:-1], self.features)


class RMSNorm(nn.Module):
    """Root-mean-square norm: no mean, no bias; computed in float32."""

    config: T5Config

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x / rms(x) * scale."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        y = x * jax.lax.rsqrt(mean_square + self.config.layer_norm_epsilon) * scale
        return y.astype(self.config.dtype)


class Dropout(nn.Module):
    """Dropout wherever a dropout key was given, nothing elsewhere."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Zeroes a share `rate` of x and scales the rest up."""
        return nn.Dropout(self.rate, deterministic=not self.has_rng("dropout"))(x)


class FeedForward(nn.Module):
    """v1.0: act(x wi) wo. v1.1: (act(x wi_0) * (x wi_1)) wo."""

    config: T5Config

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """BxLxD -> BxLxD."""
        c = self.config
        activation = ACTIVATIONS[c.activation]
        wi = {"features": c.d_ff, "stddev": c.d_model**-0.5, "dtype": c.dtype}
        if c.gated:
            hidden = activation(Dense(**wi, name="wi_0")(x)) * Dense(**wi, name="wi_1")(x)
        else:
            hidden = activation(Dense(**wi, name="wi")(x))
        hidden = Dropout(c.dropout_rate)(hidden)
        return Dense(c.d_model, c.d_ff**-0.5, c.dtype, name="wo")(hidden)


class Attention(nn.Module):
    """Multi-head attention without scaling of the scores (T5 folds it into the initial query)."""

    config: T5Config

    def setup(self) -> None:
        """Four kernels."""
        c = self.config
        width = c.num_heads * c.d_kv
        self.query = Dense(width, (c.d_model * c.d_kv) ** -0.5, c.dtype)
        self.key = Dense(width, c.d_model**-0.5, c.dtype)
        self.value = Dense(width, c.d_model**-0.5, c.dtype)
        self.out = Dense(c.d_model, width**-0.5, c.dtype)
        self.dropout = Dropout(c.dropout_rate)

    def __call__(self, x_BxTxD: jax.Array, bias: jax.Array) -> jax.Array:
        """Self-attention; `bias` broadcasts to BxHxTxT."""
        return self.attend(x_BxTxD, *self.project(x_BxTxD), bias)

    def project(self, x_BxTxD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values, BxHxTxK each."""

        def heads(y: jax.Array) -> jax.Array:
            return y.reshape(*y.shape[:2], self.config.num_heads, -1).transpose(0, 2, 1, 3)

        return heads(self.key(x_BxTxD)), heads(self.value(x_BxTxD))

    def attend(
        self,
        x_NxTxD: jax.Array,
        key_BxHxSxK: jax.Array,
        value_BxHxSxK: jax.Array,
        bias: jax.Array,
        lanes: Lanes | None = None,
    ) -> jax.Array:
        """Attends from x to given keys and values; NxTxD. `bias` broadcasts to BxHxQxS.

        The rows that share keys become further queries of one source, so that keys and values are
        neither copied nor read twice: N/B * T queries where rows stand in the order of the sources,
        else one for each lane (T is 1 then).
        """
        batch, heads, _, width = key_BxHxSxK.shape
        query = self.query(x_NxTxD)
        if lanes is not None:
            query = query[lanes.row_L]
        query = query.reshape(batch, -1, heads, width)
        scores_BxHxQxS = jnp.einsum(
            "bqhk,bhsk->bhqs", query, key_BxHxSxK, preferred_element_type=jnp.float32
        )
        weights = self.dropout(jax.nn.softmax(scores_BxHxQxS + bias))
        context = jnp.einsum("bhqs,bhsk->bqhk", weights.astype(self.config.dtype), value_BxHxSxK)
        context = context.reshape(-1, x_NxTxD.shape[1], heads * width)
        if lanes is not None:
            context = context.at[lanes.of_row_N].get(mode="clip")
        return self.out(context)


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and feed-forward, each with a residual."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxSxD: jax.Array, bias: jax.Array) -> jax.Array:
        """BxSxD -> BxSxD."""
        c = self.config
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
        cross_bias: jax.Array,
        lanes: Lanes | None = None,
    ) -> jax.Array:
        y = self.cross_attention.attend(self.cross_attention_norm(x), *cross, cross_bias, lanes)
        x = x + self.dropout(y)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Encoder(nn.Module):
    """Blocks that share one relative-position bias, then a norm."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxSxD: jax.Array, mask_BxS: jax.Array) -> jax.Array:
        """BxSxD -> BxSxD."""
        c = self.config
        table = _bias_table(self)
        positions = np.arange(x_BxSxD.shape[1])
        buckets_SxS = relative_bucket(c, positions[None, :] - positions[:, None], True)
        bias = table[buckets_SxS].transpose(2, 0, 1)[None] + _mask_bias(mask_BxS)
        x = Dropout(c.dropout_rate)(x_BxSxD)
        block = nn.remat(EncoderBlock) if c.remat else EncoderBlock
        for i in range(c.num_layers):
            x = checkpoint_name(block(c, name=f"block_{i}")(x, bias), BLOCK)
        return Dropout(c.dropout_rate)(RMSNorm(c, name="final_norm")(x))


class Decoder(nn.Module):
    """Blocks that share one causal relative-position bias, then a norm."""

    config: T5Config

    def setup(self) -> None:
        """The blocks, `block_0` on."""
        c = self.config
        self.relative_bias = _bias_table(self)
        block = nn.remat(DecoderBlock) if c.remat else DecoderBlock
        self.block = [block(c) for _ in range(c.num_decoder_layers)]
        self.final_norm = RMSNorm(c)
        self.dropout = Dropout(c.dropout_rate)

    def project_cross(self, encoded_BxSxD: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        """Cross-attention keys and values of each layer, BxHxSxK."""
        return [block.cross_attention.project(encoded_BxSxD) for block in self.block]

    def __call__(
        self, x_NxTxD: jax.Array, encoded_BxSxD: jax.Array, source_mask_BxS: jax.Array
    ) -> jax.Array:
        """A whole target at once, NxTxD."""
        positions = np.arange(x_NxTxD.shape[1])
        distance_TxT = positions[None, :] - positions[:, None]
        bias = self.relative_bias[relative_bucket(self.config, distance_TxT, False)]
        bias = bias.transpose(2, 0, 1)[None] + np.where(distance_TxT <= 0, 0.0, MASKED)
        cross_bias = _mask_bias(source_mask_BxS)
        x = self.dropout(x_NxTxD)
        for block, cross in zip(self.block, self.project_cross(encoded_BxSxD), strict=True):
            x = checkpoint_name(block(x, bias, cross, cross_bias), BLOCK)
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
        length = cache.keys_NxHxTxK[0].shape[2]
        steps_ago_T = (clock - jnp.arange(length)) % length
        table_TxH = self.relative_bias[relative_bucket(self.config, -np.arange(length), False)]
        unseen_NxT = steps_ago_T > age_N[:, None]
        bias = table_TxH[steps_ago_T].T[None, :, None] + MASKED * unseen_NxT[:, None, None]
        cross_bias = _mask_bias(cache.source_mask_BxS)
        x, kept = x_Nx1xD, []
        for i, block in enumerate(self.block):
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
        self, encoded_BxSxD: jax.Array, source_mask_BxS: jax.Array, inputs_NxT: jax.Array
    ) -> jax.Array:
        """See the function `decode`."""
        decoded = self.decoder(self._embed(inputs_NxT), encoded_BxSxD, source_mask_BxS)
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


def relative_bucket(config: T5Config, distance: np.ndarray, bidirectional: bool) -> np.ndarray:
    """Buckets of relative positions (key - query): exact when near, logarithmic when far.

    With 32 buckets and max distance 128, looking back only: distances 0..15 have a bucket each,
    16..127 share the next 16 in growing steps, and all beyond take the last. Both ways, half of
    the buckets serve each direction. Computed in NumPy at trace time, so that no compiler rounds
    the logarithm differently from one backend to another.
    """
    buckets = config.relative_attention_num_buckets
    offset = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = np.where(distance > 0, buckets, 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    exact = buckets // 2
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    growth = growth / np.float32(np.log(config.relative_attention_max_distance / exact))
    far = np.minimum(exact + (growth * (buckets - exact)).astype(int), buckets - 1)
    return offset + np.where(distance < exact, distance, far)


def _bias_table(module: nn.Module) -> jax.Array:
    c = module.config
    shape = (c.relative_attention_num_buckets, c.num_heads)
    return module.param("relative_bias", nn.initializers.normal(c.d_model**-0.5), shape)


def _mask_bias(mask_BxS: jax.Array) -> jax.Array:
    return jnp.where(mask_BxS, 0.0, MASKED)[:, None, None, :]
