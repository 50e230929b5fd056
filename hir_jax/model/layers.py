"""The layers of T5 (Raffel et al., 2020), v1.0 and v1.1/FLAN, and its biases of attention.

Letters in names: B sources in the batch, N rows, L lanes (a multiple of B), S source tokens,
T target tokens, D model width, H heads, K width of a head, F feed-forward width, V vocabulary.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hir_jax.model.cache import Lanes
from hir_jax.model.config import T5Config

# Added to the score of a key that must not be seen; far below any real score in float32.
MASKED = -1e9

ADAPTERS = ("lora_a", "lora_b")  # what a Dense may have beside its kernel; see `lora`

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": lambda x: nn.gelu(x, approximate=True),
    "silu": nn.silu,
}


class Dense(nn.Module):
    """A matrix product without bias, kernel drawn from N(0, stddev²); see `lora` for adapters."""

    features: int
    stddev: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x @ kernel in `dtype`, with (x @ a) @ b where there are adapters."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(self.stddev), shape)
        # As one matrix: for a sum over two axes of a batch, which the kernel's gradient would be,
        # XLA transposes activations first on a CPU.
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        y = rows @ kernel.astype(self.dtype)
        if self.has_variable("params", ADAPTERS[0]):
            a, b = (self.get_variable("params", name).astype(self.dtype) for name in ADAPTERS)
            y = y + (rows @ a) @ b
        return y.reshape(*x.shape[:-1], self.features)


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
        bias: jax.Array | Callable[[jax.Array], jax.Array],
        lanes: Lanes | None = None,
        pieces: int = 1,
    ) -> jax.Array:
        """Attends from x to given keys and values; NxTxD. `bias` broadcasts to BxHxQxS.

        The rows that share keys become further queries of one source, so that keys and values are
        neither copied nor read twice: N/B * T queries where rows stand in the order of the sources,
        else one for each lane (T is 1 then). In several pieces the scores of T / pieces queries are
        held at a time, there is no dropout, and `bias` gives a piece's from its first query on.
        """
        batch, heads, _, width = key_BxHxSxK.shape
        query = self.query(x_NxTxD)
        if lanes is not None:
            query = query[lanes.row_L]
        query = query.reshape(batch, -1, heads, width)

        def attended(
            query_BxQxHxK: jax.Array, bias: jax.Array, drop: Callable = lambda x: x
        ) -> jax.Array:
            scores_BxHxQxS = jnp.einsum(
                "bqhk,bhsk->bhqs", query_BxQxHxK, key_BxHxSxK, preferred_element_type=jnp.float32
            )
            weights = drop(jax.nn.softmax(scores_BxHxQxS + bias)).astype(self.config.dtype)
            return jnp.einsum("bhqs,bhsk->bqhk", weights, value_BxHxSxK)

        if pieces == 1:
            context = attended(query, bias, self.dropout)
        else:
            parts = query.reshape(batch, pieces, -1, heads, width).swapaxes(0, 1)
            starts = jnp.arange(pieces) * parts.shape[2]
            context = jax.lax.map(lambda part: attended(part[1], bias(part[0])), (starts, parts))
            context = context.swapaxes(0, 1)
        context = context.reshape(-1, x_NxTxD.shape[1], heads * width)
        if lanes is not None:
            context = context.at[lanes.of_row_N].get(mode="clip")
        return self.out(context)


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


def bias_table(module: nn.Module) -> jax.Array:
    """A stack's, or a block's, parameter: the bias of each bucket and head."""
    c = module.config
    shape = (c.relative_attention_num_buckets, c.num_heads)
    return module.param("relative_bias", nn.initializers.normal(c.d_model**-0.5), shape)


def mask_bias(mask_BxS: jax.Array) -> jax.Array:
    """What is added to scores so that padding is not seen; Bx1x1xS."""
    return jnp.where(mask_BxS, 0.0, MASKED)[:, None, None, :]
