"""Attention over whole sequences that never holds the scores of all of them.

The scores of a few sources, or of some queries of one source, are computed at a time, and again for
the gradient: so that they stay where a processor is fast, and a long source's fit at all. What is
kept besides the result is the logarithm of each softmax's sum (Dao et al., 2022, 2205.14135).

Letters in names: B sources, H heads, K width of a head, N buckets of distances, Q queries, S keys;
P parts of the sources, J blocks of the queries.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from hir_jax.model import remat
from hir_jax.model.config import T5Config
from hir_jax.model.positions import bias_block, mask_bias

ONES = 8  # columns beside the values; as many as keep products aligned


class Most(NamedTuple):
    """Scores, in float32, that a device holds at a time.

    Attributes:
        kept: of all sources; as many are computed at once and kept for the gradient.
        part: of several sources, or of some queries of a source.
        source: of a source whose queries are not parted.
        grouped: of a source that is computed together with others.
        multiple: what keys are padded to in its memory.
    """

    kept: int
    part: int
    source: int
    grouped: int
    multiple: int = 1


# 16 MB, what its caches take.
CPU = Most(kept=2**23, part=2**22, source=2**22, grouped=2**22)
# 256 MB, since it starts each kernel anew.
GPU = Most(kept=2**27, part=2**26, source=2**26, grouped=2**26)
# 28 MB beside other things in a fast memory of 128. Parting the queries of a source takes twice the
# time, and so does taking a second large one with it.
TPU = Most(kept=7 * 2**20, part=7 * 2**20, source=2**24, grouped=2 * 10**6, multiple=128)


@dataclasses.dataclass(frozen=True)
class _Cut:
    """What attention is computed for at a time.

    Attributes:
        config: the model's shape.
        causal: whether keys behind a query are unseen.
        shards: devices that split the sources.
        sources: of each shard.
        queries: of each source.
    """

    config: T5Config
    causal: bool
    shards: int
    sources: int
    queries: int

    def within(self, most: Most, heads: int, keys: int) -> Self:
        """The largest parts of this one whose scores a device holds."""
        row = heads * -(-keys // most.multiple) * most.multiple
        source, sources, queries = self.queries * row, 1, self.queries
        if source <= most.grouped:
            sources = _divisor(self.sources, most.part // source)
        if source > most.source:
            queries = _divisor(queries, most.part // row)
        return dataclasses.replace(self, sources=sources, queries=queries)

    def parts(self, x: jax.Array) -> jax.Array:
        """Bx... -> PxB/P...; each takes a share of every shard's sources, so that none moves."""
        x = x.reshape(self.shards, -1, self.sources, *x.shape[1:]).swapaxes(0, 1)
        return x.reshape(x.shape[0], -1, *x.shape[3:])

    def whole(self, x: jax.Array) -> jax.Array:
        """The inverse of `parts`."""
        shape = x.shape[2:]
        x = x.reshape(x.shape[0], self.shards, self.sources, *shape).swapaxes(0, 1)
        return x.reshape(-1, *shape)

    def blocks(self, x: jax.Array) -> jax.Array:
        """PxB/PxHxQ... -> JxPxB/PxHxQ/J..."""
        x = x.reshape(*x.shape[:3], -1, self.queries, *x.shape[4:])
        return jnp.moveaxis(x, 3, 0)

    def joined(self, x: jax.Array) -> jax.Array:
        """The inverse of `blocks`."""
        x = jnp.moveaxis(x, 0, 3)
        return x.reshape(*x.shape[:3], -1, *x.shape[5:])

    def bias(self, table_NxH: jax.Array | None, start: jax.Array, keys: int) -> jax.Array:
        """Of a block's queries, which begin at `start`."""
        if table_NxH is None:
            return jnp.zeros((1, 1, 1, 1))
        return bias_block(table_NxH, self.config, self.causal, start, self.queries, keys)


def attention(
    query_BxHxQxK: jax.Array,
    key_BxHxSxK: jax.Array,
    value_BxHxSxK: jax.Array,
    table_NxH: jax.Array | None,
    mask_BxS: jax.Array | None,
    causal: bool = False,
    *,
    config: T5Config,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """softmax(query key + bias) value, without scaling of the scores; BxQxHxK.

    Args:
        query_BxHxQxK: in the precision of the products; scores and softmax are float32.
        key_BxHxSxK: likewise.
        value_BxHxSxK: likewise.
        table_NxH: of the biases of distances, for self-attention; None: there are none.
        mask_BxS: False at keys that are not seen; None: all are.
        causal: whether keys behind a query are unseen.
        config: the model's shape.
        dropout_key: of dropout of the weights; None: there is none.
    """
    batch, heads, queries, _ = query_BxHxQxK.shape
    keys = key_BxHxSxK.shape[2]
    shards = config.shards if batch % config.shards == 0 else 1
    whole = _Cut(config, causal, shards, batch // shards, queries)
    scores = whole.sources * heads * queries * keys
    unseen = None if mask_BxS is None else mask_bias(mask_BxS)
    args = (query_BxHxQxK, key_BxHxSxK, value_BxHxSxK, table_NxH, unseen, dropout_key)

    if scores <= min(CPU.kept, GPU.kept, TPU.kept) and query_BxHxQxK.dtype == jnp.float32:
        return _at_once(whole, *args)

    def holding(most: Most, *args: jax.Array | None) -> jax.Array:
        if scores <= most.kept:
            return _at_once(whole, *args)
        return _in_parts(whole.within(most, heads, keys), *args)

    def on_cpu(*args: jax.Array | None) -> jax.Array:
        # Or each product would make float32 of them anew.
        wide = (x.astype(jnp.float32) for x in args[:3])
        return holding(CPU, *wide, *args[3:]).astype(query_BxHxQxK.dtype)

    on_gpu, on_tpu = (functools.partial(holding, most) for most in (GPU, TPU))
    return jax.lax.platform_dependent(*args, tpu=on_tpu, cuda=on_gpu, rocm=on_gpu, default=on_cpu)


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`, and at least 1."""
    return next(i for i in range(max(1, min(n, most)), 0, -1) if n % i == 0)


def _scores(
    query: jax.Array, key: jax.Array, bias: jax.Array, unseen: jax.Array | None
) -> jax.Array:
    # The biases of all sources and the masks of each are never added into one array.
    scores = jnp.einsum("bhqk,bhsk->bhqs", query, key, preferred_element_type=jnp.float32) + bias
    return scores if unseen is None else scores + unseen


def _kept(key: jax.Array, rate: float, like: jax.Array) -> jax.Array:
    """What dropout multiplies weights by."""
    return jax.random.bernoulli(key, 1 - rate, like.shape) / (1 - rate)


def _at_once(
    cut: _Cut,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    table: jax.Array | None,
    unseen: jax.Array | None,
    dropout_key: jax.Array | None,
) -> jax.Array:
    bias = cut.bias(table, jnp.int32(0), key.shape[2])
    weights = jax.nn.softmax(_scores(query, key, bias, unseen))
    if dropout_key is not None:
        weights *= _kept(dropout_key, cut.config.dropout_rate, weights)
    return remat.product(jnp.einsum("bhqs,bhsk->bhqk", weights.astype(query.dtype), value))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_parts(cut: _Cut, *args: jax.Array | None) -> jax.Array:
    return _forward(cut, *args)[0]


def _forward(
    cut: _Cut,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    table: jax.Array | None,
    unseen: jax.Array | None,
    dropout_key: jax.Array | None,
) -> tuple[jax.Array, tuple[Any, ...]]:
    """The result, and what the gradient needs."""
    width, rate = value.shape[-1], cut.config.dropout_rate
    sources = jax.tree.map(cut.parts, (key, value, unseen))
    queries = cut.blocks(cut.parts(query))
    places = _places(queries)

    def block(_: None, given: tuple[Any, ...]) -> tuple[None, Any]:
        query, place = given
        bias = cut.bias(table, place[0, 0] * cut.queries, key.shape[2])

        def part(_: None, given: tuple[Any, ...]) -> tuple[None, Any]:
            query, (key, value, unseen), place = given
            scores = _scores(query, key, bias, unseen)
            highest = jnp.max(scores, axis=-1, keepdims=True)
            weights = jnp.exp(scores - highest)
            if dropout_key is None:  # their sum comes out of the product with the values
                ones = jnp.ones_like(value[..., :ONES])
                product = _weighed(weights, jnp.concatenate([value, ones], axis=-1))
                total = product[..., width]
            else:
                total = jnp.sum(weights, axis=-1)
                kept = _kept(_key_at(dropout_key, place), rate, weights)
                product = _weighed(weights * kept, value)
            result = product[..., :width] / total[..., None]
            return None, (result.astype(query.dtype), highest[..., 0] + jnp.log(total))

        return None, _scan(part, None, (query, sources, place))[1]

    _, (result, log_total) = _scan(block, None, (queries, places))
    result, log_total = remat.product(cut.whole(cut.joined(result))), remat.product(log_total)
    return result, (query, key, value, table, unseen, dropout_key, result, log_total)


def _scan(body: Callable[..., Any], carry: Any, given: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` for loops that need no gradient, without the zeros that its results begin as.

    A TPU would write them all for nothing. One turn is no loop at all.
    """
    turns = jax.tree.leaves(given)[0].shape[0]
    if turns == 1:
        carry, made = body(carry, jax.tree.map(lambda x: x[0], given))
        return carry, jax.tree.map(lambda x: x[None], made)

    def turn(i: jax.Array, state: tuple[Any, Any]) -> tuple[Any, Any]:
        carry, made = state
        carry, one = body(carry, jax.tree.map(lambda x: x[i], given))
        put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        return carry, jax.tree.map(put, made, one)

    like = jax.eval_shape(body, carry, jax.tree.map(lambda x: x[0], given))[1]
    made = jax.tree.map(lambda y: jax.lax.empty((turns, *y.shape), y.dtype), like)
    return jax.lax.fori_loop(0, turns, turn, (carry, made))


def _weighed(weights: jax.Array, value: jax.Array) -> jax.Array:
    weights = weights.astype(value.dtype)
    return jnp.einsum("bhqs,bhsk->bhqk", weights, value, preferred_element_type=jnp.float32)


def _places(queries: jax.Array) -> jax.Array:
    """The numbers of each block and part, JxPx2."""
    blocks, parts = jnp.indices(queries.shape[:2])
    return jnp.stack([blocks, parts], axis=-1)


def _key_at(key: jax.Array, place: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, place[0]), place[1])


def _backward(cut: _Cut, kept: tuple[Any, ...], dresult: jax.Array) -> tuple[Any, ...]:
    """With weights p, their gradient dp and the result's do: ds = p (dp - sum(result do))."""
    query, key, value, table, unseen, dropout_key, result, log_total = kept
    rate = cut.config.dropout_rate
    inner = jnp.einsum("bhqk,bhqk->bhq", dresult, result, preferred_element_type=jnp.float32)
    sources = jax.tree.map(cut.parts, (key, value, unseen))
    cut_up = lambda x: cut.blocks(cut.parts(x))  # noqa: E731
    queries = (*map(cut_up, (query, dresult, inner)), log_total)

    def block(carry: tuple[Any, ...], given: tuple[Any, ...]) -> tuple[Any, Any]:
        dkey, dvalue, dtable = carry
        queries, place = given
        start = place[0, 0] * cut.queries
        bias, back = jax.vjp(lambda table: cut.bias(table, start, key.shape[2]), table)

        def part(dbias: jax.Array, given: tuple[Any, ...]) -> tuple[jax.Array, Any]:
            (query, dresult, inner, log_total), (key, value, unseen), place = given
            weights = jnp.exp(_scores(query, key, bias, unseen) - log_total[..., None])
            dweights = jnp.einsum(
                "bhqk,bhsk->bhqs", dresult, value, preferred_element_type=jnp.float32
            )
            dropped = weights
            if dropout_key is not None:
                kept = _kept(_key_at(dropout_key, place), rate, weights)
                dropped, dweights = weights * kept, dweights * kept
            dscores = weights * (dweights - inner[..., None])
            # Or a compiler would compute them again for each of the products.
            low = jax.lax.optimization_barrier(
                (dropped.astype(query.dtype), dscores.astype(query.dtype))
            )
            dvalue = jnp.einsum("bhqs,bhqk->bhsk", low[0], dresult)
            dquery = jnp.einsum("bhqs,bhsk->bhqk", low[1], key)
            dkey = jnp.einsum("bhqs,bhqk->bhsk", low[1], query)
            if table is not None:
                dbias += jnp.sum(dscores, axis=0, keepdims=True)
            return dbias, (dquery, dkey, dvalue)

        zero = jnp.zeros_like(bias)
        dbias, (dquery, *more) = _scan(part, zero, (queries, sources, place))
        dtable = jax.tree.map(jnp.add, dtable, back(dbias)[0])
        return (dkey + more[0], dvalue + more[1], dtable), dquery

    zeros = [jnp.zeros(x.shape, jnp.float32) for x in sources[:2]]
    carry = (*zeros, jax.tree.map(jnp.zeros_like, table))
    (dkey, dvalue, dtable), dquery = _scan(block, carry, (queries, _places(queries[0])))
    dquery = cut.whole(cut.joined(dquery))
    dkey, dvalue = (cut.whole(x).astype(key.dtype) for x in (dkey, dvalue))
    return dquery, dkey, dvalue, dtable, None, None


_in_parts.defvjp(_forward, _backward)
