"""The layers of T5 (Raffel et al., 2020), v1.0 and v1.1/FLAN.

Letters in names: B sources in the batch, N rows, L lanes (a multiple of B), S source tokens,
T target tokens, D model width, H heads, K width of a head, G groups of heads, C width of a group,
F feed-forward width, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hir_jax.model import remat
from hir_jax.model.attention import attention
from hir_jax.model.cache import Lanes
from hir_jax.model.config import T5Config
from hir_jax.model.products import product

ADAPTERS = ("lora_a", "lora_b")  # what a Dense may have beside its kernel; see `lora`

SUBLANES = 8  # rows that a TPU works on at once

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": lambda x: nn.gelu(x, approximate=True),
    "silu": nn.silu,
}


class Dense(nn.Module):
    """A matrix product without bias, kernel drawn from N(0, stddev²); see `lora` for adapters."""

    width: int
    features: int
    stddev: float
    dtype: str

    def setup(self) -> None:
        """The kernel."""
        initializer = nn.initializers.normal(self.stddev)
        self.kernel_DxF = self.param("kernel", initializer, (self.width, self.features))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x @ kernel in `dtype`, with (x @ a) @ b where there are adapters."""
        x = x.astype(self.dtype)
        y = product(x, self.kernel())
        if adapters := self.adapters():
            y = y + product(product(x, adapters[0]), adapters[1])
        return y

    def kernel(self) -> jax.Array:
        """DxF, in `dtype`."""
        return self.kernel_DxF.astype(self.dtype)

    def adapters(self) -> list[jax.Array] | None:
        """a, Dxr, and b, rxF, in `dtype`, where there are any."""
        if not self.has_variable("params", ADAPTERS[0]):
            return None
        return [self.get_variable("params", name).astype(self.dtype) for name in ADAPTERS]


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
        wi = (c.d_model, c.d_ff, c.d_model**-0.5, c.dtype)
        if c.gated:
            gate, linear = (remat.product(Dense(*wi, name=name)(x)) for name in ("wi_0", "wi_1"))
            hidden = activation(gate) * linear
        else:
            hidden = activation(remat.product(Dense(*wi, name="wi")(x)))
        hidden = Dropout(c.dropout_rate)(hidden)
        return Dense(c.d_ff, c.d_model, c.d_ff**-0.5, c.dtype, name="wo")(hidden)


def into_heads(x_BxTxD: jax.Array, kernels: Sequence[jax.Array], heads: int) -> list[jax.Array]:
    """x @ kernel, split into heads, of each DxF kernel; BxHxTxK.

    Where a product can write any order, the heads are its own axis, and all kernels one. Those of
    one token a row have no order, and kernels would be put together anew in every step.
    """

    def by_rows(x: jax.Array, *kernels: jax.Array) -> list[jax.Array]:
        split = (*x.shape[:2], heads, -1)
        return [product(x, kernel).reshape(split).swapaxes(1, 2) for kernel in kernels]

    def by_heads(x: jax.Array, *kernels: jax.Array) -> list[jax.Array]:
        split = [kernel.reshape(x.shape[-1], heads, -1) for kernel in kernels]
        return list(jnp.einsum("btd,dnhk->nbhtk", x, jnp.stack(split, axis=1)))

    if x_BxTxD.shape[1] == 1:
        return by_rows(x_BxTxD, *kernels)
    return jax.lax.platform_dependent(x_BxTxD, *kernels, cpu=by_rows, default=by_heads)


def out_of_heads(x_BxHxTxK: jax.Array, kernel_FxD: jax.Array) -> jax.Array:
    """All heads of x, beside one another, @ kernel; BxTxD."""

    def by_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = x.swapaxes(1, 2)
        return product(x.reshape(*x.shape[:2], -1), kernel)

    def by_heads(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum("bhtk,hkd->btd", x, kernel.reshape(x.shape[1], x.shape[3], -1))

    return jax.lax.platform_dependent(x_BxHxTxK, kernel_FxD, cpu=by_rows, default=by_heads)


class Attention(nn.Module):
    """Multi-head attention without scaling of the scores (T5 folds it into the initial query)."""

    config: T5Config

    def setup(self) -> None:
        """Four kernels."""
        c = self.config
        width = c.num_heads * c.d_kv
        self.query = Dense(c.d_model, width, (c.d_model * c.d_kv) ** -0.5, c.dtype)
        self.key = Dense(c.d_model, width, c.d_model**-0.5, c.dtype)
        self.value = Dense(c.d_model, width, c.d_model**-0.5, c.dtype)
        self.out = Dense(width, c.d_model, width**-0.5, c.dtype)

    def __call__(
        self,
        x_BxTxD: jax.Array,
        table: jax.Array,
        mask_BxT: jax.Array | None = None,
        causal: bool = False,
    ) -> jax.Array:
        """Self-attention of whole sequences; `table` and the others as `attention` has them."""
        query, *kept = self._heads(x_BxTxD, self.query, self.key, self.value)
        return self._attend(query, *kept, table, mask_BxT, causal)

    def project(self, x_BxTxD: jax.Array, together: int = 1) -> tuple[jax.Array, jax.Array]:
        """Keys and values, BxHxTxK each; of so many heads together as one, BxGxTxC."""
        return tuple(self._heads(x_BxTxD, self.key, self.value, together=together))

    def attend(
        self,
        x_NxTxD: jax.Array,
        key_BxHxSxK: jax.Array,
        value_BxHxSxK: jax.Array,
        mask_BxS: jax.Array,
    ) -> jax.Array:
        """Attends from whole sequences to given keys and values; NxTxD.

        The N/B sequences that share a source become further queries of it, so that its keys and
        values are neither copied nor read twice.
        """
        shared = (key_BxHxSxK.shape[0], -1, x_NxTxD.shape[-1])
        query = self._heads(x_NxTxD.reshape(shared), self.query)[0]
        y = self._attend(query, key_BxHxSxK, value_BxHxSxK, None, mask_BxS)
        return y.reshape(x_NxTxD.shape)

    def _heads(self, x_BxTxD: jax.Array, *layers: Dense, together: int = 1) -> list[jax.Array]:
        heads = self.config.num_heads // together
        made = into_heads(x_BxTxD, [layer.kernel() for layer in layers], heads)
        for i, layer in enumerate(layers):
            if adapters := layer.adapters():
                made[i] += into_heads(product(x_BxTxD, adapters[0]), adapters[1:], heads)[0]
        return [remat.product(each) for each in made]

    def _attend(self, query_BxHxTxK: jax.Array, *args: Any) -> jax.Array:
        dropped = self.has_rng("dropout") and self.config.dropout_rate > 0
        key = self.make_rng("dropout") if dropped else None
        context = attention(query_BxHxTxK, *args, config=self.config, dropout_key=key)
        y = out_of_heads(context, self.out.kernel())
        if adapters := self.out.adapters():
            y += product(out_of_heads(context, adapters[0]), adapters[1])
        return y

    def step(
        self,
        x_Nx1xD: jax.Array,
        key_BxGxSxC: jax.Array,
        value_BxGxSxC: jax.Array,
        bias: jax.Array,
        lanes: Lanes | None = None,
    ) -> jax.Array:
        """Attends from one token a row; Nx1xD. `bias` is BxHx1xS, or Bx1x1xS of all heads.

        The rows that share keys become queries of one source: N/B where rows stand in the order of
        the sources, else one for each lane.
        """
        c = self.config
        batch, groups = key_BxGxSxC.shape[:2]
        query = self.query(x_Nx1xD)
        if lanes is not None:
            query = query[lanes.row_L]
        query_BxQxHxK = query.reshape(batch, -1, c.num_heads, c.d_kv)
        query_BxGxRxC = side_by_side(query_BxQxHxK, groups).astype(key_BxGxSxC.dtype)
        scores_BxGxRxS = jnp.einsum(
            "bgrc,bgsc->bgrs", query_BxGxRxC, key_BxGxSxC, preferred_element_type=jnp.float32
        )
        if bias.shape[1] > 1:
            bias = bias.reshape(bias.shape[0], groups, -1, bias.shape[-1])
        weights = jax.nn.softmax(scores_BxGxRxS + bias).astype(value_BxGxSxC.dtype)
        context_BxGxRxC = jnp.einsum("bgrs,bgsc->bgrc", weights, value_BxGxSxC)
        context = taken_apart(context_BxGxRxC, c.num_heads).reshape(-1, 1, c.num_heads * c.d_kv)
        if lanes is not None:
            context = context.at[lanes.of_row_N].get(mode="clip")
        return self.out(context)


def side_by_side(query_BxQxHxK: jax.Array, groups: int) -> jax.Array:
    """Queries to keys of groups of heads: a row for each head and query, BxGxRxC.

    A row has zeros where the other heads of its group are, so that a group is read like one head.
    """
    batch, queries, heads, width = query_BxQxHxK.shape
    if groups == heads:
        return query_BxQxHxK.swapaxes(1, 2)
    together = heads // groups
    if groups % SUBLANES:
        own = jnp.eye(together, dtype=query_BxQxHxK.dtype)
        split = query_BxQxHxK.reshape(batch, queries, groups, together, width)
        wide = jnp.einsum("bqgik,ij->bgiqjk", split, own)
    else:
        rows = query_BxQxHxK.reshape(batch, queries, groups, 1, -1).transpose(0, 2, 3, 1, 4)
        wide = jnp.where(_own(together, width), rows, 0)
    return wide.reshape(batch, groups, together * queries, together * width)


def taken_apart(context_BxGxRxC: jax.Array, heads: int) -> jax.Array:
    """What each row of `side_by_side` has at its own head; BxQxHxK."""
    batch, groups, rows, width = context_BxGxRxC.shape
    if groups == heads:
        return context_BxGxRxC.swapaxes(1, 2)
    together = heads // groups
    queries, width = rows // together, width // together
    if groups % SUBLANES:
        own = jnp.eye(together, dtype=context_BxGxRxC.dtype)
        wide = context_BxGxRxC.reshape(batch, groups, together, queries, together, width)
        split = jnp.einsum("bgiqjk,ij->bqgik", wide, own)
    else:
        wide = context_BxGxRxC.reshape(batch, groups, together, queries, -1)
        split = jnp.sum(jnp.where(_own(together, width), wide, 0), axis=2).swapaxes(1, 2)
    return split.reshape(batch, queries, heads, width)


def _own(together: int, width: int) -> jax.Array:
    """Which numbers of a row are of each head, where heads of this width lie side by side; Ix1xC.

    A choice moves no number from its lane. Products do, and yet a TPU's compiler expects less of
    them where groups do not fill its rows (small, base); with 8 or 16 groups (large, XL) a whole
    decode step takes a seventh less by the choice.
    """
    return (jnp.arange(together * width) // width) == jnp.arange(together)[:, None, None]


def bias_table(module: nn.Module) -> jax.Array:
    """A stack's, or a block's, parameter: the bias of each bucket and head."""
    c = module.config
    shape = (c.relative_attention_num_buckets, c.num_heads)
    return module.param("relative_bias", nn.initializers.normal(c.d_model**-0.5), shape)
