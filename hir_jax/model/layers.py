"""The layers of T5 (Raffel et al., 2020), v1.0 and v1.1/FLAN.

Letters in names: B sources in the batch, N rows, L lanes (a multiple of B), S source tokens,
T target tokens, D model width, H heads, K width of a head, F feed-forward width, V vocabulary.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from hir_jax.model.attention import attention
from hir_jax.model.cache import Lanes
from hir_jax.model.config import T5Config

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

    def __call__(
        self,
        x_BxTxD: jax.Array,
        table: jax.Array,
        mask_BxT: jax.Array | None = None,
        causal: bool = False,
    ) -> jax.Array:
        """Self-attention of whole sequences; `table` and the others as `attention` has them."""
        kept = self.project(x_BxTxD)
        return self.attend(x_BxTxD, *kept, table, mask_BxT, causal)

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
        table: jax.Array | None,
        mask_BxS: jax.Array | None,
        causal: bool = False,
    ) -> jax.Array:
        """Attends from whole sequences to given keys and values; NxTxD.

        The N/B sequences that share a source become further queries of it, so that its keys and
        values are neither copied nor read twice.
        """
        c = self.config
        batch, heads, _, width = key_BxHxSxK.shape
        query = self.query(x_NxTxD).reshape(batch, -1, heads, width)
        dropped = self.has_rng("dropout") and c.dropout_rate > 0
        key = self.make_rng("dropout") if dropped else None
        context = attention(query, key_BxHxSxK, value_BxHxSxK, table, mask_BxS, c, causal, key)
        return self.out(context.reshape(*x_NxTxD.shape[:2], heads * width))

    def step(
        self,
        x_Nx1xD: jax.Array,
        key_BxHxSxK: jax.Array,
        value_BxHxSxK: jax.Array,
        bias: jax.Array,
        lanes: Lanes | None = None,
    ) -> jax.Array:
        """Attends from one token a row; Nx1xD. `bias` broadcasts to BxHxQxS.

        The rows that share keys become queries of one source: N/B where rows stand in the order of
        the sources, else one for each lane.
        """
        batch, heads, _, width = key_BxHxSxK.shape
        query = self.query(x_Nx1xD)
        if lanes is not None:
            query = query[lanes.row_L]
        query_BxQxHxK = query.reshape(batch, -1, heads, width)
        scores_BxHxQxS = jnp.einsum(
            "bqhk,bhsk->bhqs", query_BxQxHxK, key_BxHxSxK, preferred_element_type=jnp.float32
        )
        weights = jax.nn.softmax(scores_BxHxQxS + bias).astype(self.config.dtype)
        context = jnp.einsum("bhqs,bhsk->bqhk", weights, value_BxHxSxK)
        context = context.reshape(-1, 1, heads * width)
        if lanes is not None:
            context = context.at[lanes.of_row_N].get(mode="clip")
        return self.out(context)


def bias_table(module: nn.Module) -> jax.Array:
    """A stack's, or a block's, parameter: the bias of each bucket and head."""
    c = module.config
    shape = (c.relative_attention_num_buckets, c.num_heads)
    return module.param("relative_bias", nn.initializers.normal(c.d_model**-0.5), shape)
