"""Feeds prompts to the decode engine: length buckets, pools, and outputs back in order.

Pools go from the shortest bucket to the longest, and rows at work go on from one to the next, so
that there is one end of a run in which rows stand idle, not one for each bucket.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hir_jax import batching, generate, processes, sharding, t5

MOST_ROWS = 1024  # that `default_rows` chooses
SHARE = 2 / 3  # of free memory, see there


class Prompt(NamedTuple):
    """What to continue, and the identity that keys its random draws."""

    tokens: tuple[int, ...]
    uid: int  # uint32; the same prompt must always have the same


class Output(NamedTuple):
    """One sampled continuation."""

    tokens: tuple[int, ...]  # EOS included where one was drawn
    logprob: float  # of all tokens, under the model's own (untempered, untruncated) distribution


class Statistics(NamedTuple):
    """What a run of the sampler cost."""

    outputs: int
    tokens: int
    source_tokens: int  # of the prompts
    padded_tokens: int  # encoded besides them
    steps: int  # decode steps of all shards
    occupancy: float  # share of rows at work until the last request was handed out


class Programs(NamedTuple):
    """`generate`'s functions, jitted; their states, pools and logs have an axis of shards in front.

    Each shard of the mesh's data and fsdp axes decodes on its own.
    """

    new_state: Callable[[int], generate.State]
    lengthen: Callable[[generate.State, int], generate.State]
    decode_pool: Callable[..., tuple[generate.State, generate.Log]]


@functools.cache
def programs(mesh: Mesh, config: t5.T5Config, shape: generate.Shape) -> Programs:
    """The functions for a mesh, a model and an engine; whatever they give lies in one place."""
    split = P(("data", "fsdp"))
    in_step = ("data", "fsdp") if mesh.shape["tensor"] > 1 else ()

    def lengthen(state: generate.State, source_length: int) -> generate.State:
        return jax.vmap(lambda one: generate.lengthen(one, source_length))(state)

    def decode_pool(
        params: t5.Params, state: generate.State, *args: Any
    ) -> tuple[generate.State, generate.Log]:
        def on_shard(params: t5.Params, state: Any, pool: Any, *rest: jax.Array) -> Any:
            state, pool = jax.tree.map(lambda x: x[0], (state, pool))
            made = generate.decode_pool(
                params, state, pool, *rest, config=config, shape=shape, in_step=in_step
            )
            return jax.tree.map(lambda x: x[None], made)

        # Only in tracing, that is once a compilation.
        logging.info("sampling: compiling %s for sources of %d", shape, args[0].length)
        mapped = jax.shard_map(
            on_shard,
            mesh=mesh,
            in_specs=(P(), split, split, *[P()] * (len(args) - 1)),
            out_specs=split,
            axis_names={"data", "fsdp"},
            check_vma=False,  # everything that is made here varies from shard to shard
        )
        return mapped(params, state, *args)

    new_state = functools.partial(new_states, mesh, config, shape)
    places = jax.tree.map(lambda x: x.sharding, abstract_states(mesh, config, shape, 1))
    log_place = sharding.batch_sharding(mesh)
    return Programs(
        jax.jit(new_state, static_argnums=0, out_shardings=places),
        jax.jit(lengthen, static_argnums=1, out_shardings=places),
        jax.jit(decode_pool, donate_argnames="state", out_shardings=(places, log_place)),
    )


def new_states(
    mesh: Mesh, config: t5.T5Config, shape: generate.Shape, source_length: int
) -> generate.State:
    """A state without work for each shard, along an axis in front."""
    one = generate.new_state(config, shape, source_length)
    shards = sharding.batch_multiple(mesh)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (shards, *x.shape)), one)


def abstract_states(
    mesh: Mesh, config: t5.T5Config, shape: generate.Shape, source_length: int
) -> generate.State:
    """Shape, type and place of `new_states`: each on its shard, heads of its caches on `tensor`.

    As with parameters, heads that `tensor` does not divide are whole on each of its devices.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        axes = [("data", "fsdp")]
        if re.search(r"cache/(cross_)?(keys|values)", sharding.path_name(path)):
            axes += [None, sharding.dividing(mesh, "tensor", leaf.shape[2])]
        where = NamedSharding(mesh, P(*axes))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    states = jax.eval_shape(functools.partial(new_states, mesh, config, shape, source_length))
    return jax.tree_util.tree_map_with_path(place, states)


def decoding_copy(params: t5.Params, config: t5.T5Config, mesh: Mesh) -> t5.Params:
    """The parameters in decoding's precision and layout; themselves where they are so already."""
    shardings = sharding.tree_shardings(mesh, params, axes=sharding.DECODING_AXES)
    if decodes_as_is(params, config, shardings):
        return params
    return jax.device_put(_cast_weights(params, config.dtype), shardings)


def decodes_as_is(params: t5.Params, config: t5.T5Config, shardings: Any) -> bool:
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


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Samples continuations of any number of prompts.

    Attributes:
        config: the model's shape.
        mesh: where it runs.
        buckets: source lengths to pad to.
        rows: outputs decoded at once on each shard of the mesh; 0 chooses by the memory at hand.
        max_new_tokens: T, after which an output is cut.
        eos_id: what ends an output.
        top_k: see `sampling.draw`.
        top_p: see `sampling.draw`.
    """

    config: t5.T5Config
    mesh: Mesh
    buckets: tuple[int, ...]
    max_new_tokens: int
    eos_id: int
    rows: int = 0
    top_k: int = 0
    top_p: float = 1.0

    def prepare(self, params: t5.Params) -> t5.Params:
        """See `decoding_copy`; to be made once where several calls follow, each of which would."""
        return decoding_copy(params, self.config, self.mesh)

    def __call__(
        self,
        params: t5.Params,
        prompts: Sequence[Prompt],
        key: jax.Array,
        temperature: float,
        samples: int = 1,
        progress: Callable[[int], object] = lambda n: None,
    ) -> list[list[Output]]:
        """`samples` outputs for each prompt, in the prompts' order.

        `progress` is told of the number of outputs that have ended since it was told last; an
        exception that it raises stops the work.
        """
        outputs, _ = self.run(params, prompts, key, temperature, samples, progress)
        return outputs

    def run(
        self,
        params: t5.Params,
        prompts: Sequence[Prompt],
        key: jax.Array,
        temperature: float,
        samples: int = 1,
        progress: Callable[[int], object] = lambda n: None,
    ) -> tuple[list[list[Output]], Statistics]:
        """The same, and what it cost."""
        if not prompts:
            return [], Statistics(0, 0, 0, 0, 0, 1.0)
        params = self.prepare(params)  # first, since rows are chosen by the memory that it leaves
        shape = self.shape(len(prompts), samples, max(len(prompt.tokens) for prompt in prompts))
        pools = self._pools(prompts, shape)
        ended: dict[tuple[int, int], Output] = {}
        logs: list[generate.Log] = []
        new_state, lengthen, decode_pool = programs(self.mesh, self.config, shape)
        state = new_state(pools[0].length)
        for number, pool in enumerate(pools):
            if pool.length > state.cache.source_mask_BxS.shape[-1]:
                state = lengthen(state, pool.length)
            state, log = decode_pool(
                params,
                state,
                pool.arrays(prompts, number, shape, self.mesh),
                key,
                jnp.float32(temperature),
                jnp.int32(self.eos_id),
                jnp.bool(number == len(pools) - 1),
            )
            logs.append(processes.replicate(log, self.mesh))
            if number:  # the device works on this pool while the log of the last one is read
                progress(_collect(logs.pop(0), pools, shape, ended))
        progress(_collect(logs.pop(0), pools, shape, ended))
        outputs = [[ended[i, sample] for sample in range(samples)] for i in range(len(prompts))]
        counts = processes.fetch((state.steps, state.busy, state.clock), self.mesh)
        return outputs, _statistics(prompts, outputs, pools, counts, shape)

    def shape(
        self, prompts: int, samples: int, source_length: int, free: float | None = None
    ) -> generate.Shape:
        """What the engine is compiled for: no more rows than there is work or memory for.

        `free` is a device's free memory in bytes; None: what it was when first asked.
        """
        make = functools.partial(
            generate.Shape.make,
            samples=samples,
            max_new_tokens=self.max_new_tokens,
            top_k=self.top_k,
            top_p=self.top_p,
        )
        rows = self.rows or default_rows(
            self.config, self.mesh, make, source_length, self._free if free is None else free
        )
        work = -(-prompts * samples // sharding.batch_multiple(self.mesh))
        return make(min(rows, max(8, 1 << (work - 1).bit_length())))

    @functools.cached_property
    def _free(self) -> int | None:
        # Asked once: were it another number of rows in each iteration, each would compile anew.
        return free_memory(self.mesh)

    def _pools(self, prompts: Sequence[Prompt], shape: generate.Shape) -> "list[_Pool]":
        by_bucket: dict[int, list[int]] = {bucket: [] for bucket in sorted(self.buckets)}
        for i, prompt in enumerate(prompts):
            by_bucket[batching.bucket_of(len(prompt.tokens), self.buckets)].append(i)
        size = shape.pool * sharding.batch_multiple(self.mesh)
        return [
            _Pool(bucket, indices)
            for bucket, members in by_bucket.items()
            for indices in batching.chunks(members, size)
        ]


@dataclasses.dataclass(frozen=True)
class _Pool:
    """Prompts of one bucket; shard d of D takes those at d, d + D, d + 2D ..."""

    length: int
    indices: Sequence[int]

    def dealt(self, shards: int) -> list[Sequence[int]]:
        """The prompts of each shard."""
        return [self.indices[shard::shards] for shard in range(shards)]

    def rows_encoded(self, shards: int, shape: generate.Shape) -> int:
        """Prompts and padding, of all shards."""
        return sum(batching.round_up(len(i), shape.encoded) for i in self.dealt(shards))

    def arrays(
        self, prompts: Sequence[Prompt], number: int, shape: generate.Shape, mesh: Mesh
    ) -> generate.Pool:
        """What each shard gets; requests are numbered by the pool's number and their place."""
        shards = sharding.batch_multiple(mesh)
        dealt = self.dealt(shards)
        sources, masks, uids = [], [], []
        for indices in dealt:
            chosen = [prompts[i] for i in indices]
            missing = shape.pool - len(chosen)
            source, mask = batching.pad(
                [*(prompt.tokens for prompt in chosen), *[()] * missing], self.length
            )
            sources.append(source)
            masks.append(mask)
            uids.append(np.array([*(prompt.uid for prompt in chosen), *[0] * missing], np.uint32))
        pool = generate.Pool(
            source_PxS=np.stack(sources),
            source_mask_PxS=np.stack(masks),
            uid_P=np.stack(uids),
            questions=np.array([len(indices) for indices in dealt], np.int32),
            first=np.full(shards, number * shape.pool * shape.samples, np.int32),
        )
        return processes.place(pool, sharding.batch_sharding(mesh))


def default_rows(
    config: t5.T5Config,
    mesh: Mesh,
    make: Callable[[int], generate.Shape],
    source_length: int,
    free: float | None,
) -> int:
    """Rows, at most 1,024, whose `engine_memory` fits into two thirds of a device's free memory.

    The rest is for temporaries: by the plans in docs/planning.md a quarter of the engine's own.

    A CPU decodes 64 at once, on all of its devices together: products with more are not more
    efficient there, and fewer rows have a shorter end.

    Args:
        config: the model's shape.
        mesh: where it runs.
        make: the engine's shape for a number of rows.
        source_length: of the longest prompt.
        free: in bytes; None on a CPU.
    """
    if free is None:
        return max(8, 64 // len(mesh.local_devices))
    rows = MOST_ROWS
    while rows > 8 and engine_memory(config, mesh, make(rows), source_length) > SHARE * free:
        rows //= 2
    return rows


def engine_memory(
    config: t5.T5Config, mesh: Mesh, shape: generate.Shape, source_length: int
) -> float:
    """Bytes on a device of the engine's state, of a pool's encodings, and of a step's logits."""
    states = abstract_states(mesh, config, shape, source_length)
    encoded = shape.pool * source_length * config.d_model * jnp.dtype(config.dtype).itemsize
    logits = 4 * shape.rows * config.vocab_size * 4  # and what is drawn from them
    return sharding.device_bytes(states) + encoded + logits


def free_memory(mesh: Mesh) -> int | None:
    """Bytes of a device; None on a CPU, and where the device does not tell."""
    device = mesh.local_devices[0]
    memory = device.memory_stats() if device.platform != "cpu" else None
    if not memory or "bytes_limit" not in memory:
        return None
    # All processes compile the same program, for the one with the least.
    return min(processes.gather(memory["bytes_limit"] - memory["bytes_in_use"]))


def _collect(
    log: generate.Log,
    pools: Sequence[_Pool],
    shape: generate.Shape,
    ended: dict[tuple[int, int], Output],
) -> int:
    """Adds a log's outputs by (prompt, sample); gives their number."""
    log = jax.device_get(log)
    shards = len(log.count)
    for shard in range(shards):
        count = log.count[shard]
        rows = zip(
            log.request_C[shard, :count].tolist(),
            log.tokens_CxT[shard],
            log.length_C[shard].tolist(),
            log.logprob_C[shard].tolist(),
            strict=False,
        )
        for request, tokens, length, logprob in rows:
            question, sample = divmod(request, shape.samples)
            number, place = divmod(question, shape.pool)
            prompt = pools[number].indices[place * shards + shard]
            ended[prompt, sample] = Output(tuple(tokens[:length].tolist()), logprob)
    return int(log.count.sum())


def _statistics(
    prompts: Sequence[Prompt],
    outputs: Sequence[Sequence[Output]],
    pools: Sequence[_Pool],
    counts: tuple[np.ndarray, np.ndarray, np.ndarray],
    shape: generate.Shape,
) -> Statistics:
    steps, busy, clock = counts
    source_tokens = sum(len(prompt.tokens) for prompt in prompts)
    encoded = sum(pool.length * pool.rows_encoded(len(steps), shape) for pool in pools)
    return Statistics(
        outputs=len(prompts) * shape.samples,
        tokens=sum(len(output.tokens) for each in outputs for output in each),
        source_tokens=source_tokens,
        padded_tokens=encoded - source_tokens,
        steps=int(clock.sum()),
        occupancy=float(busy.sum() / (steps.sum() * shape.rows)) if steps.any() else 1.0,
    )
