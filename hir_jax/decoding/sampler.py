"""Feeds prompts to the decode engine: length buckets, pools, and outputs back in order.

Pools go from the shortest bucket to the longest, and rows at work go on from one to the next, so
that there is one end of a run in which rows stand idle, not one for each bucket.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hir_jax.decoding import records
from hir_jax.decoding.programs import decoding_copy, laid_out, lengthen, programs
from hir_jax.decoding.prompt import Among, Guide, Output, Prompt, Receive
from hir_jax.decoding.rows import default_rows, free_memory
from hir_jax.devices import processes, sharding
from hir_jax.model import batching
from hir_jax.model.codec import Tokens
from hir_jax.model.config import Params, T5Config

# A greedy call takes as many rows as the largest of its run, up to so many times its own: a program
# less to compile, for rows that stand idle.
SHARED = 4


class Statistics(NamedTuple):
    """What a run of the sampler cost."""

    outputs: int
    tokens: int
    source_tokens: int  # of the prompts, those guided away from included
    padded_tokens: int  # encoded besides them
    steps: int  # decode steps of all shards
    occupancy: float  # share of rows at work until the last request was handed out


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Samples continuations of any number of prompts.

    Attributes:
        config: the model's shape.
        mesh: where it runs.
        buckets: source lengths to pad to.
        rows: outputs decoded at once on each shard of the mesh; 0 chooses by the memory at hand.
        max_new_tokens: T, after which an output is cut.
        eos_id: what ends an output, an id or several.
        top_k: see `draws.draw`.
        top_p: see `draws.draw`.
        logprobs: one of `draws.LOGPROBS`.
        memory: free bytes of a device that rows are chosen by, by the mesh's name; added to when
            first asked for, so that each iteration, and a run that goes on, compiles and rounds
            alike.
        evaluated: prompts of a run's largest evaluation, whose programs smaller ones share.
    """

    config: T5Config
    mesh: Mesh
    buckets: tuple[int, ...]
    max_new_tokens: int
    eos_id: int | Tokens
    rows: int = 0
    top_k: int = 0
    top_p: float = 1.0
    logprobs: str = "none"
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    evaluated: int = 0

    def __post_init__(self) -> None:
        """Decides how the caches are laid out."""
        object.__setattr__(self, "config", laid_out(self.config, self.mesh))

    def prepare(self, params: Params) -> Params:
        """See `decoding_copy`; to be made once where several calls follow, each of which would."""
        return decoding_copy(params, self.config, self.mesh)

    def __call__(
        self,
        params: Params,
        prompts: Sequence[Prompt],
        key: jax.Array,
        temperature: float,
        samples: int = 1,
        receive: Receive = lambda outputs: None,
        guide: Guide | None = None,
        among: Among | None = None,
    ) -> list[list[Output]]:
        """`samples` outputs for each prompt, in the prompts' order.

        `receive` is called with the outputs that have ended since it was called last, while the
        device works on the next ones; an exception that it raises stops the work. With a `guide`
        each output is drawn away from its opposite prompt, at twice the work and memory. With
        `among` each is one of the prompt's own.
        """
        outputs, _ = self.run(params, prompts, key, temperature, samples, receive, guide, among)
        return outputs

    def run(
        self,
        params: Params,
        prompts: Sequence[Prompt],
        key: jax.Array,
        temperature: float,
        samples: int = 1,
        receive: Receive = lambda outputs: None,
        guide: Guide | None = None,
        among: Among | None = None,
    ) -> tuple[list[list[Output]], Statistics]:
        """The same, and what it cost."""
        if not prompts:
            return [], Statistics(0, 0, 0, 0, 0, 1.0)
        params = self.prepare(params)  # first, since rows are chosen by the memory that it leaves
        sides = [[prompt.tokens for prompt in prompts], *([guide.opposite] if guide else [])]
        lengths = [max(map(len, own)) for own in zip(*sides, strict=True)]
        kind = {
            "greedy": temperature == 0,
            "guided": guide is not None,
            "among": among is not None,
        }
        # By the longest bucket, not the longest prompt, so that rows do not follow the split.
        shape = self.shape(len(prompts), samples, max(self.buckets), **kind)
        trie = among and processes.place(among.trie, sharding.replicated(self.mesh))
        size = shape.pool * sharding.batch_multiple(self.mesh)
        pools = [_Pool(*each) for each in batching.by_bucket(lengths, self.buckets, size)]
        ended: dict[tuple[int, int], Output] = {}
        logs: list[records.Log] = []
        new_state, decode_pool = programs(self.mesh, self.config, shape)
        state = new_state(pools[0].length)
        for number, pool in enumerate(pools):
            if pool.length > state.cache.source_mask_BxS.shape[-1]:
                state = lengthen(state, pool.length)
            state, log = decode_pool(
                params,
                state,
                pool.arrays(prompts, guide, among, number, shape, self.mesh),
                key,
                jnp.float32(temperature),
                jnp.int32(self.eos_id),
                jnp.bool(number == len(pools) - 1),
                trie,
            )
            logs.append(processes.replicate(log, self.mesh))
            if number:  # the device works on this pool while outputs of the last one are received
                ended |= _collect(logs.pop(0), pools, shape, receive)
        ended |= _collect(logs.pop(0), pools, shape, receive)
        outputs = [[ended[i, sample] for sample in range(samples)] for i in range(len(prompts))]
        counts = processes.fetch((state.steps, state.busy, state.clock), self.mesh)
        return outputs, _statistics(sides, outputs, pools, counts, shape)

    def shape(
        self,
        prompts: int,
        samples: int,
        source_length: int,
        free: float | None = None,
        greedy: bool = False,
        guided: bool = False,
        among: bool = False,
    ) -> records.Shape:
        """What the engine is compiled for: no more rows than there is work or memory for.

        `free` is a device's free memory in bytes; None: what it was when first asked.
        """
        # Greedy programs are one, whatever would be drawn by.
        cut = {} if greedy else {"top_k": self.top_k, "top_p": self.top_p}
        make = functools.partial(
            records.Shape.make,
            samples=samples,
            max_new_tokens=self.max_new_tokens,
            greedy=greedy,
            **cut,
            logprobs=self.logprobs,
            guided=guided,
            among=among,
        )
        rows = self.rows or default_rows(
            self.config, self.mesh, make, source_length, self._free() if free is None else free
        )
        own, largest = self._rows_of(prompts * samples), self._rows_of(self.evaluated)
        shared = greedy and own <= largest <= SHARED * own
        return make(min(rows, largest if shared else own))

    def _rows_of(self, outputs: int) -> int:
        """Rows on each shard that so many outputs keep busy, a power of two."""
        work = -(-outputs // sharding.batch_multiple(self.mesh))
        return max(8, 1 << max(0, work - 1).bit_length())

    def _free(self) -> int | None:
        name = sharding.mesh_name(self.mesh)
        if name not in self.memory and (free := free_memory(self.mesh)) is not None:
            self.memory[name] = free
        return self.memory.get(name)


@dataclasses.dataclass(frozen=True)
class _Pool:
    """Prompts of one bucket; shard d of D takes those at d, d + D, d + 2D ..."""

    length: int
    indices: Sequence[int]

    def dealt(self, shards: int) -> list[Sequence[int]]:
        """The prompts of each shard."""
        return [self.indices[shard::shards] for shard in range(shards)]

    def rows_encoded(self, shards: int, shape: records.Shape) -> int:
        """Prompts and padding, of all shards."""
        return sum(batching.round_up(len(i), shape.encoded) for i in self.dealt(shards))

    def arrays(
        self,
        prompts: Sequence[Prompt],
        guide: Guide | None,
        among: Among | None,
        number: int,
        shape: records.Shape,
        mesh: Mesh,
    ) -> records.Pool:
        """What each shard gets; requests are numbered by the pool's number and their place."""
        shards = sharding.batch_multiple(mesh)
        dealt = self.dealt(shards)

        def padded(tokens_of: Callable[[int], Tokens]) -> tuple[np.ndarray, np.ndarray]:
            rows = [
                [*map(tokens_of, indices), *[()] * (shape.pool - len(indices))] for indices in dealt
            ]
            sources, masks = zip(*(batching.pad(own, self.length) for own in rows), strict=True)
            return np.stack(sources), np.stack(masks)

        def numbers(number_of: Callable[[int], int], dtype: type) -> np.ndarray:
            numbers = np.zeros((shards, shape.pool), dtype)
            for own, indices in zip(numbers, dealt, strict=True):
                own[: len(indices)] = [number_of(i) for i in indices]
            return numbers

        opposite = guide and records.Opposite(
            *padded(lambda i: guide.opposite[i]),
            guidance=np.full(shards, guide.guidance, np.float32),
            cutoff=np.full(shards, guide.cutoff, np.float32),
        )
        pool = records.Pool(
            *padded(lambda i: prompts[i].tokens),
            uid_P=numbers(lambda i: prompts[i].uid, np.uint32),
            questions=np.array([len(indices) for indices in dealt], np.int32),
            first=np.full(shards, number * shape.pool * shape.samples, np.int32),
            opposite=opposite,
            root_P=among and numbers(lambda i: among.roots[i], np.int32),
        )
        return processes.place(pool, sharding.batch_sharding(mesh))


def _collect(
    log: records.Log,
    pools: Sequence[_Pool],
    shape: records.Shape,
    receive: Receive,
) -> dict[tuple[int, int], Output]:
    """A log's outputs, which are received."""
    log, ended = jax.device_get(log), {}
    shards = len(log.count)
    for shard in range(shards):
        count = log.count[shard]
        kept = log.logprobs_CxT
        rows = zip(
            log.request_C[shard, :count].tolist(),
            log.tokens_CxT[shard],
            log.length_C[shard].tolist(),
            log.logprob_C[shard].tolist(),
            np.zeros((count, 0)) if kept is None else kept[shard],
            itertools.repeat(None) if log.among_C is None else log.among_C[shard].tolist(),
            strict=False,
        )
        for request, tokens, length, logprob, each, of_among in rows:
            question, sample = divmod(request, shape.samples)
            number, place = divmod(question, shape.pool)
            prompt = pools[number].indices[place * shards + shard]
            ended[prompt, sample] = Output(
                tuple(tokens[:length].tolist()), logprob, tuple(each[:length].tolist()), of_among
            )
    receive(ended)
    return ended


def _statistics(
    sides: Sequence[Sequence[Tokens]],
    outputs: Sequence[Sequence[Output]],
    pools: Sequence[_Pool],
    counts: tuple[np.ndarray, np.ndarray, np.ndarray],
    shape: records.Shape,
) -> Statistics:
    steps, busy, clock = counts
    source_tokens = sum(len(tokens) for side in sides for tokens in side)
    encoded = sum(pool.length * pool.rows_encoded(len(steps), shape) for pool in pools)
    encoded *= shape.prompts
    return Statistics(
        outputs=len(outputs) * shape.samples,
        tokens=sum(len(output.tokens) for each in outputs for output in each),
        source_tokens=source_tokens,
        padded_tokens=encoded - source_tokens,
        steps=int(clock.sum()),
        occupancy=float(busy.sum() / (steps.sum() * shape.rows)) if steps.any() else 1.0,
    )
