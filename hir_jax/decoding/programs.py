"""The engine's functions on a mesh: jitted, their arrays placed, each shard on its own."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hir_jax.decoding import engine, records
from hir_jax.devices import compiling, hardware, sharding
from hir_jax.model import t5
from hir_jax.model.cache import lengthen_sources, padded
from hir_jax.model.config import Params, T5Config

SPLIT = P(sharding.BATCH_AXES)  # each shard decodes on its own
LANES = 128  # numbers of a row that a TPU works on at once


class Programs(NamedTuple):
    """The engine's functions, jitted; their states, pools and logs have an axis of shards in front.

    Each shard of the mesh's data and fsdp axes decodes on its own.
    """

    new_state: Callable[[int], records.State]
    decode_pool: Callable[..., tuple[records.State, records.Log]]


@functools.cache
def programs(mesh: Mesh, config: T5Config, shape: records.Shape) -> Programs:
    """The functions for a mesh, a model and an engine; whatever they give lies in one place."""

    def decode_pool(
        params: Params, state: records.State, *args: Any
    ) -> tuple[records.State, records.Log]:
        def on_shard(params: Params, state: Any, pool: Any, *rest: jax.Array) -> Any:
            state, pool = jax.tree.map(lambda x: x[0], (state, pool))
            made = engine.decode_pool(
                params, state, pool, *rest, config=config, shape=shape, in_step=in_step(mesh)
            )
            return jax.tree.map(lambda x: x[None], made)

        # Only in tracing, that is once a compilation.
        what = f"sampling, {shape} for sources of {args[0].length}"
        compiling.begin(what, "decode_pool", config)
        mapped = on_shards(mesh, on_shard, P(), SPLIT, SPLIT, *[P()] * (len(args) - 1))
        return mapped(params, state, *args)

    new_state = functools.partial(new_states, mesh, config, shape)
    places = jax.tree.map(lambda x: x.sharding, abstract_states(mesh, config, shape, 1))
    log_place = sharding.batch_sharding(mesh)
    return Programs(
        jax.jit(new_state, static_argnums=0, out_shardings=places),
        jax.jit(
            decode_pool,
            donate_argnames="state",
            out_shardings=(places, log_place),
            compiler_options=hardware.decoding_options(mesh),
        ),
    )


def on_shards(mesh: Mesh, work: Callable[..., Any], *in_specs: P) -> Callable[..., Any]:
    """`work` on each shard of a mesh, whose results are put one behind the other."""
    return jax.shard_map(
        work,
        mesh=mesh,
        in_specs=in_specs,
        out_specs=SPLIT,
        axis_names=set(sharding.BATCH_AXES),
        check_vma=False,  # everything that is made here varies from shard to shard
    )


def in_step(mesh: Mesh) -> tuple[str, ...]:
    """The axes whose shards must take the same turns, see `engine.decode_pool`."""
    return sharding.BATCH_AXES if mesh.shape["tensor"] > 1 else ()


def laid_out(config: T5Config, mesh: Mesh) -> T5Config:
    """The model's shape with how decoding on these devices keeps keys and values.

    A TPU multiplies 128 numbers of a row at once. Heads of fewer are kept together until they fill
    them, as far as their groups can still be split over `tensor` as heads are. A CPU is slow where
    a few numbers at a time are of less than float32.
    """
    platform = mesh.devices.flat[0].platform
    if platform == "cpu":
        return dataclasses.replace(config, cache_dtype="float32")
    if platform != "tpu":
        return config
    shards = mesh.shape["tensor"] if config.num_heads % mesh.shape["tensor"] == 0 else 1
    fitting = range(min(LANES // config.d_kv, config.num_heads), 1, -1)
    together = next((n for n in fitting if config.num_heads // shards % n == 0), 1)
    return dataclasses.replace(config, heads_together=together)


def lengthen(state: records.State, source_length: int) -> records.State:
    """The states with room for longer sources, which those at work do not notice.

    Keys and values are lengthened array by array, and each old one is freed before the next is
    made: of what memory is chosen by, no more than one is there twice.
    """

    def longer(old: jax.Array, axis: int, missing: int) -> jax.Array:
        new = jax.block_until_ready(_pad(old, axis, missing, old.sharding))
        old.delete()
        return new

    missing = source_length - state.cache.source_mask_BxS.shape[-1]
    return state.replace(cache=lengthen_sources(state.cache, missing, longer))


@functools.partial(jax.jit, static_argnames=("axis", "missing", "place"))
def _pad(x: jax.Array, axis: int, missing: int, place: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(padded(x, axis, missing), place)


def new_states(
    mesh: Mesh, config: T5Config, shape: records.Shape, source_length: int
) -> records.State:
    """A state without work for each shard, along an axis in front."""
    one = records.new_state(config, shape, source_length)
    shards = sharding.batch_multiple(mesh)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (shards, *x.shape)), one)


def abstract_states(
    mesh: Mesh, config: T5Config, shape: records.Shape, source_length: int
) -> records.State:
    """Shape, type and place of `new_states`: each on its shard, heads of its caches on `tensor`.

    As with parameters, heads that `tensor` does not divide are whole on each of its devices.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        axes = [sharding.BATCH_AXES]
        if re.search(r"cache/(cross_)?(keys|values)", sharding.path_name(path)):
            axes += [None, sharding.dividing(mesh, "tensor", leaf.shape[2])]
        where = NamedSharding(mesh, P(*axes))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    states = jax.eval_shape(functools.partial(new_states, mesh, config, shape, source_length))
    return jax.tree_util.tree_map_with_path(place, states)


def decoding_copy(params: Params, config: T5Config, mesh: Mesh) -> Params:
    """The parameters in decoding's precision and layout; themselves where they are so already."""
    shardings = sharding.tree_shardings(mesh, params, axes=sharding.DECODING_AXES)
    if decodes_as_is(params, config, shardings):
        return params
    return jax.device_put(_cast_weights(params, config.dtype), shardings)


def decodes_as_is(params: Params, config: T5Config, shardings: Any) -> bool:
    """Whether parameters, real or abstract, have decoding's precision and layout already."""
    same = jax.tree.map(
        lambda leaf, made, place: (
            leaf.dtype == made.dtype and leaf.sharding.is_equivalent_to(place, leaf.ndim)
        ),
        params,
        jax.eval_shape(lambda p: t5.cast_weights(p, config.dtype), params),
        shardings,
    )
    return all(jax.tree.leaves(same))


# One jitted function for all calls, so that each precision is compiled once.
_cast_weights = jax.jit(t5.cast_weights, static_argnames="dtype")
