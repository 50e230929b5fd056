"""Beam search: of each prompt the outputs that a search of some width finds likeliest.

The search is that of Transformers' `generate`, which translation is measured with. In each step the
2W likeliest continuations of a prompt's W beams are looked at, or more where several ids end an
output. Those among the W first that end are kept as finished, by their score, log π(o) /
length^penalty, the W best; and the W likeliest that do not end go on. All prompts of a batch begin
together, and none has to do with another: one is done when its search can come to nothing better. A
token that every output begins with is not searched for; its log-probability is the model's own, as
in `score` (Transformers takes 0).

Letters in names: B prompts, W beams of each, N = B * W rows, C what may follow a beam (the
vocabulary, or a trie's edges), M continuations, K any candidates, S source tokens, T new
tokens, V vocabulary.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hir_jax.decoding import draws, programs
from hir_jax.decoding.prompt import Among, Output, Prompt
from hir_jax.decoding.sampler import Sampler
from hir_jax.decoding.trie import Trie
from hir_jax.devices import compiling, hardware, processes, sharding
from hir_jax.model import batching, t5
from hir_jax.model.cache import Cache, init_cache
from hir_jax.model.config import Params, T5Config

# When a prompt's search ends: with W finished outputs (true); when the likeliest beam, as long as
# it is, scores less than all of them (false); or when it would even at the length that favours it
# most (never).
EARLY_STOPPING = ("false", "true", "never")


class Beams(NamedTuple):
    """How to search."""

    width: int  # W
    length_penalty: float = 1.0  # above 0 longer outputs are favoured, below it shorter ones
    early_stopping: str = "false"  # one of EARLY_STOPPING

    def score(self, output: Output) -> float:
        """What outputs are ranked by."""
        return output.logprob / len(output.tokens) ** self.length_penalty


@flax.struct.dataclass
class Rule:
    """`Beams` as arrays, so that one program serves all."""

    divisor_T: jax.Array  # of the log-probability of t + 1 tokens, for their score
    bound_T: jax.Array  # the same, for the best score that such a beam may yet come to
    stop_when_full: jax.Array  # scalar bool

    @classmethod
    def make(cls, beams: Beams, length: int) -> Self:
        """For outputs of at most `length` tokens."""
        divisor_T = np.arange(1, length + 1) ** np.float64(beams.length_penalty)
        longest = beams.early_stopping == "never" and beams.length_penalty > 0
        bound_T = np.full(length, divisor_T[-1]) if longest else divisor_T
        full = np.bool(beams.early_stopping == "true")
        return cls(divisor_T.astype(np.float32), bound_T.astype(np.float32), full)


@flax.struct.dataclass
class Found:
    """Outputs, whole or begun, the best first; of those that are none the log-probability is -inf.

    What is about a trie is None without one.
    """

    logprob_BxW: jax.Array
    tokens_BxWxT: jax.Array
    length_BxW: jax.Array
    node_BxW: jax.Array | None = None
    among_BxW: jax.Array | None = None  # see `Output.logprob_among`


@flax.struct.dataclass
class State:
    """What the search carries from step to step."""

    step: jax.Array  # scalar
    open_B: jax.Array  # prompts whose search goes on
    token_BxW: jax.Array  # read in the next step
    begun: Found
    finished: Found
    score_BxW: jax.Array  # of those finished
    cache: Cache


def search(
    sampler: Sampler,
    params: Params,
    prompts: Sequence[Prompt],
    beams: Beams,
    receive: Callable[[Mapping[int, list[Output]]], object] = lambda outputs: None,
    among: Among | None = None,
) -> list[list[Output]]:
    """The outputs found for each prompt, in the prompts' order, the best first.

    They are W, or as many as there are among given ones. Of the sampler's fields those that speak
    of draws are not read. `receive` is called with the outputs of the prompts that are done since
    it was called last, by the prompts' numbers, while the device works on the next ones; an
    exception that it raises stops the work.
    """
    if not prompts:
        return []
    params = sampler.prepare(params)
    mesh, width = sampler.mesh, beams.width
    # By the longest bucket, as where outputs are drawn.
    shape = sampler.shape(len(prompts), width, max(sampler.buckets))
    size = max(1, shape.rows // width) * sharding.batch_multiple(mesh)
    run = program(mesh, sampler.config, width, sampler.max_new_tokens)
    rule = processes.place(Rule.make(beams, sampler.max_new_tokens), sharding.replicated(mesh))
    trie = among and processes.place(among.trie, sharding.replicated(mesh))
    lengths = [len(prompt.tokens) for prompt in prompts]

    def dispatched() -> Iterator[tuple[Sequence[int], Found]]:
        for bucket, indices in batching.by_bucket(lengths, sampler.buckets, size):
            missing = size - len(indices)
            rows = [*(prompts[i].tokens for i in indices), *[()] * missing]
            roots = among and np.array([*(among.roots[i] for i in indices), *[0] * missing])
            real = np.arange(size) < len(indices)
            batch = (*batching.pad(rows, bucket), real, roots)
            batch = processes.place(batch, sharding.batch_sharding(mesh))
            found = run(params, batch, jnp.atleast_1d(jnp.int32(sampler.eos_id)), rule, trie)
            yield indices, processes.replicate(found, mesh)

    ended: dict[int, list[Output]] = {}
    # The device works on the next batch while outputs of this one are received.
    for (indices, found), _ in itertools.pairwise(itertools.chain(dispatched(), [None])):
        found = jax.device_get(found)
        outputs = {i: _outputs(found, row) for row, i in enumerate(indices)}
        ended |= outputs
        receive(outputs)
    return [ended[i] for i in range(len(prompts))]


def _outputs(found: Found, row: int) -> list[Output]:
    return [
        Output(
            tuple(found.tokens_BxWxT[row, w, : found.length_BxW[row, w]].tolist()),
            float(found.logprob_BxW[row, w]),
            logprob_among=None if found.among_BxW is None else float(found.among_BxW[row, w]),
        )
        for w in np.flatnonzero(found.logprob_BxW[row] > -np.inf)
    ]


@functools.cache
def program(mesh: Mesh, config: T5Config, width: int, length: int) -> Callable[..., Found]:
    """`find` on a mesh, jitted; each shard of its data and fsdp axes searches on its own."""

    def search_batch(params: Params, batch: Any, *args: Any) -> Found:
        # Only in tracing, that is once a compilation.
        rows, source_length = batch[0].shape
        what = f"beam search, {width} beams for {rows} sources of {source_length}"
        compiling.begin(what, "search_batch", config)
        on_shard = functools.partial(
            find, config=config, width=width, length=length, in_step=programs.in_step(mesh)
        )
        mapped = programs.on_shards(mesh, on_shard, P(), programs.SPLIT, P(), P(), P())
        return mapped(params, batch, *args)

    return jax.jit(
        search_batch,
        out_shardings=sharding.batch_sharding(mesh),
        compiler_options=hardware.decoding_options(mesh),
    )


def find(
    params: Params,
    batch: tuple[jax.Array, jax.Array, jax.Array, jax.Array | None],
    eos_id_E: jax.Array,
    rule: Rule,
    trie: Trie | None,
    *,
    config: T5Config,
    width: int,
    length: int,
    in_step: tuple[str, ...] = (),
) -> Found:
    """The W best outputs of each prompt.

    Args:
        params: the policy's parameters.
        batch: sources BxS, their mask BxS, which are no padding B, and the roots B of a trie.
        eos_id_E: each ends an output; -1 never does.
        rule: how to search, for outputs of at most `length` tokens.
        trie: of the outputs that may be found; None: of any.
        config: the model's shape.
        width: W.
        length: T, after which an output is cut.
        in_step: see `engine.decode_pool`.
    """
    source_BxS, source_mask_BxS, real_B, root_B = batch

    def go_on(state: State) -> jax.Array:
        work = (state.step < length) & jnp.any(state.open_B)
        return jax.lax.pmax(work, in_step) if in_step else work

    step = functools.partial(_step, params, eos_id_E, rule, trie, config=config, width=width)
    state = _begin(params, source_BxS, source_mask_BxS, real_B, root_B, config, width, length)
    return jax.lax.while_loop(go_on, step, state).finished


def _begin(
    params: Params,
    source_BxS: jax.Array,
    source_mask_BxS: jax.Array,
    real_B: jax.Array,
    root_B: jax.Array | None,
    config: T5Config,
    width: int,
    length: int,
) -> State:
    """One beam of each prompt, without a token; its source is encoded once for all."""
    count, source_length = source_BxS.shape
    size = (count, width)
    cache = init_cache(config, count * width, length, count, width, source_length)
    encoded = t5.encode(params, config, source_BxS, source_mask_BxS)
    cache = t5.put_sources(params, config, cache, encoded, source_mask_BxS, jnp.arange(count))
    nothing = Found(
        logprob_BxW=jnp.full(size, -jnp.inf),
        tokens_BxWxT=jnp.full((*size, length), config.pad_token_id, jnp.int32),
        length_BxW=jnp.zeros(size, jnp.int32),
    )
    if root_B is not None:
        node_BxW = jnp.broadcast_to(root_B[:, None], size)
        nothing = nothing.replace(node_BxW=node_BxW, among_BxW=jnp.zeros(size))
    return State(
        step=jnp.int32(0),
        open_B=real_B,
        token_BxW=jnp.full(size, config.decoder_start_token_id, jnp.int32),
        begun=nothing.replace(logprob_BxW=nothing.logprob_BxW.at[:, 0].set(0.0)),
        finished=nothing,
        score_BxW=nothing.logprob_BxW,
        cache=cache,
    )


def _step(
    params: Params,
    eos_id_E: jax.Array,
    rule: Rule,
    trie: Trie | None,
    state: State,
    *,
    config: T5Config,
    width: int,
) -> State:
    """One token more; nothing comes of it where a prompt's search is done."""
    length = state.begun.tokens_BxWxT.shape[-1]
    token_N = state.token_BxW.ravel()
    age_N = jnp.broadcast_to(state.step, token_N.shape)
    logits_NxV, cache = t5.decode_step(params, config, state.cache, token_N, state.step, age_N)
    # So many that W of them go on, though each beam should end in every way.
    many = width * max(2, 1 + len(eos_id_E))
    forced = config.forced_bos_token_id if trie is None else None  # given outputs begin with it
    candidates, parent_BxM, token_BxM = _candidates(
        logits_NxV, state.begun, trie, state.step, forced, many
    )

    ends_BxM = jnp.any(token_BxM[..., None] == eos_id_E, axis=-1) | (state.step + 1 == length)
    counts_BxM = ends_BxM & (jnp.arange(many) < width) & state.open_B[:, None]
    score_BxM = candidates.logprob_BxW / rule.divisor_T[state.step]
    score_BxM = jnp.where(counts_BxM, score_BxM, -jnp.inf)
    score_BxK = jnp.concatenate([state.score_BxW, score_BxM], axis=1)
    score_BxW, best_BxW = jax.lax.top_k(score_BxK, width)
    both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), state.finished, candidates)
    finished = _take(both, best_BxW)
    finished = finished.replace(
        logprob_BxW=jnp.where(score_BxW > -jnp.inf, finished.logprob_BxW, -jnp.inf)
    )

    going_BxM = jnp.where(ends_BxM, -jnp.inf, candidates.logprob_BxW)
    logprob_BxW, next_BxW = jax.lax.top_k(going_BxM, width)
    begun = _take(candidates, next_BxW).replace(logprob_BxW=logprob_BxW)
    parent_BxW, token_BxW = _take((parent_BxM, token_BxM), next_BxW)
    row_N = (jnp.arange(len(parent_BxW))[:, None] * width + parent_BxW).ravel()

    worst_B = score_BxW[:, -1]
    may_improve_B = logprob_BxW[:, 0] / rule.bound_T[state.step] > worst_B
    full_B = worst_B > -jnp.inf
    return State(
        step=state.step + 1,
        open_B=state.open_B & may_improve_B & ~(rule.stop_when_full & full_B),
        token_BxW=token_BxW,
        begun=begun,
        finished=finished,
        score_BxW=score_BxW,
        cache=cache.replace(
            keys_NxGxTxC=tuple(each[row_N] for each in cache.keys_NxGxTxC),
            values_NxGxTxC=tuple(each[row_N] for each in cache.values_NxGxTxC),
        ),
    )


def _candidates(
    logits_NxV: jax.Array,
    begun: Found,
    trie: Trie | None,
    step: jax.Array,
    forced: int | None,
    many: int,
) -> tuple[Found, jax.Array, jax.Array]:
    """The likeliest continuations, the beam that each is of, and its last token; BxM each."""
    count, width = begun.logprob_BxW.shape
    logprob_NxC = jax.nn.log_softmax(logits_NxV)
    edges = None
    if forced is not None:
        other_V = jnp.arange(logits_NxV.shape[-1]) != forced
        logprob_NxC = jnp.where((step == 0) & other_V, -jnp.inf, logprob_NxC)
    if trie is not None:
        edges = trie.edges(begun.node_BxW.ravel())
        logprob_NxC = edges.of(logprob_NxC)
    total_BxWxC = begun.logprob_BxW[..., None] + logprob_NxC.reshape(count, width, -1)
    choices = total_BxWxC.shape[-1]
    total_BxK = total_BxWxC.reshape(count, -1)
    best_BxM, place_BxM = draws.likeliest(total_BxK, many)
    parent_BxM, token_BxM = jnp.divmod(place_BxM, choices)
    found = _take(begun, parent_BxM).replace(
        logprob_BxW=best_BxM, length_BxW=jnp.full(best_BxM.shape, step + 1)
    )
    if edges is not None:
        of_edges = edges.token_NxK, edges.child_NxK, jax.nn.log_softmax(logprob_NxC)
        of_edges = jax.tree.map(lambda x: x.reshape(count, -1), of_edges)
        token_BxM, child_BxM, among_BxM = _take(of_edges, place_BxM)
        found = found.replace(node_BxW=child_BxM, among_BxW=found.among_BxW + among_BxM)
    tokens = found.tokens_BxWxT.at[:, :, step].set(token_BxM)
    return found.replace(tokens_BxWxT=tokens), parent_BxM, token_BxM


def _take(tree: Any, index_BxM: jax.Array) -> Any:
    """Of each prompt the rows with these numbers, of every array BxWx..."""
    return jax.tree.map(lambda x: jax.vmap(lambda own, index: own[index])(x, index_BxM), tree)
