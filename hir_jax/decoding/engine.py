"""The decode engine: continuous batching on the device, inside one jitted loop.

N rows decode at once. A row that has ended writes its output to a log and takes the next request of
the pool, without the host; when the pool is handed out, the loop returns the log, and the rows
still at work go on in the next call, with the next pool. So no row waits for the longest output of
its batch, and only the last call of a run has an end in which rows stand idle.

What makes this cheap: self-attention keys and values are a ring on a clock that all rows share (see
`Cache`), so a row may begin at any time and no write position differs from another's; and
cross-attention keys and values belong to a place that serves all samples of a question.

Letters in names: N rows, Q places for questions, R samples a question, L = Q * R lanes, P questions
in the pool, C capacity of the log, S source tokens, D model width, T new tokens.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from hir_jax.decoding import draws
from hir_jax.decoding.records import (
    NONE,
    Desk,
    Log,
    Opposite,
    Place,
    Pool,
    Shape,
    State,
    new_log,
)
from hir_jax.decoding.trie import Trie
from hir_jax.model import t5
from hir_jax.model.cache import Cache, Lanes
from hir_jax.model.config import Params, T5Config


def decode_pool(
    params: Params,
    state: State,
    pool: Pool,
    key: jax.Array,
    temperature: jax.Array,
    eos_id: jax.Array,
    drain: jax.Array,
    trie: Trie | None = None,
    *,
    config: T5Config,
    shape: Shape,
    in_step: tuple[str, ...] = (),
) -> tuple[State, Log]:
    """Hands out all requests of a pool and decodes until no more is left to hand out.

    Args:
        params: the policy's parameters.
        state: from `new_state` or the call before.
        pool: the questions.
        key: of this iteration.
        temperature: scalar above 0; not read where `shape.greedy`.
        eos_id: scalar, or several; -1 never ends a row early.
        drain: scalar bool; decode until every row has ended.
        trie: of the outputs that may be drawn; None: of any.
        config: the model's shape.
        shape: the engine's.
        in_step: mesh axes whose shards must take the same turns, since a model split over another
            axis communicates inside the loops.

    Returns:
        The state, and what has ended in this call.
    """

    def largest(x: jax.Array) -> jax.Array:
        return jax.lax.pmax(x, in_step) if in_step else x

    sources = [pool] if pool.opposite is None else [pool, pool.opposite]
    encoded = [
        (_encode(params, pool.questions, each, largest, config, shape), each.source_mask_PxS)
        for each in sources
    ]
    requests = pool.questions * shape.samples
    step = functools.partial(
        _step,
        params,
        temperature,
        eos_id,
        requests,
        pool.opposite,
        trie,
        config=config,
        shape=shape,
    )

    def more_to_do(carry: tuple[State, Desk, Log]) -> jax.Array:
        state, desk, _ = carry
        return largest((desk.next < requests) | (drain & ~jnp.all(state.ended_N)))

    def serve(carry: tuple[State, Desk, Log]) -> tuple[State, Desk, Log]:
        state, desk, log = carry
        state, log = _write_away(state, log)
        state, desk = _hand_out(params, state, desk, pool, encoded, key, largest, config, shape)

        def go_on(state: State) -> jax.Array:
            work = largest(~jnp.all(state.ended_N) & ((desk.next < requests) | drain))
            return work & ~largest(_worth_a_stop(state, desk, requests, shape))

        state = jax.lax.while_loop(go_on, lambda state: step(state, desk), state)
        return state, desk, log

    desk = Desk(jnp.int32(0), jnp.full(shape.places, NONE, jnp.int32))
    log = new_log(pool.uid_P.shape[0] * shape.samples + shape.rows, shape)
    state, _, log = jax.lax.while_loop(more_to_do, serve, (state, desk, log))
    return _write_away(state, log)


def _encode(
    params: Params,
    questions: jax.Array,
    sources: Pool | Opposite,
    largest: Callable[[jax.Array], jax.Array],
    config: T5Config,
    shape: Shape,
) -> jax.Array:
    """Encoder outputs PxSxD, some questions at a time."""
    count, length = sources.source_PxS.shape

    def encode(i: jax.Array, encoded_PxSxD: jax.Array) -> jax.Array:
        start = i * shape.encoded
        part = lambda x: jax.lax.dynamic_slice(x, (start, 0), (shape.encoded, length))  # noqa: E731
        both = part(sources.source_PxS), part(sources.source_mask_PxS)
        encoded = t5.encode(params, config, *both)
        return jax.lax.dynamic_update_slice(encoded_PxSxD, encoded, (start, 0, 0))

    empty = jnp.zeros((count, length, config.d_model), config.dtype)
    return jax.lax.fori_loop(0, largest(-(-questions // shape.encoded)), encode, empty)


def _step(
    params: Params,
    temperature: jax.Array,
    eos_id: jax.Array,
    requests: jax.Array,
    opposite: Opposite | None,
    trie: Trie | None,
    state: State,
    desk: Desk,
    *,
    config: T5Config,
    shape: Shape,
) -> State:
    """One token for every row; those that have ended draw too, and nothing comes of it."""
    age_N = jnp.minimum(state.age_N, shape.max_new_tokens - 1)
    logits, cache = t5.decode_step(
        params,
        config,
        state.cache,
        _doubled(state.token_N, shape),
        state.clock,
        _doubled(age_N, shape),
        _lanes(state.lane_N, shape),
    )
    sides = [logits] if opposite is None else jnp.split(logits, 2)
    plain_NxV = sides[0]
    edges = None if trie is None else trie.edges(state.place.node_N)
    if edges is not None:  # what is drawn is one of these, then, and no token
        sides = [edges.of(side) for side in sides]
    scores = sides[0]
    if opposite is not None:
        scores = draws.guided(*sides, opposite.guidance, opposite.cutoff)
        scores = scores if edges is None else edges.masked(scores)
    chosen_N, certainty_N = _choose(scores, state.key_N, age_N, temperature, shape)
    drawn_N, child_N = (chosen_N, None) if edges is None else edges.at(chosen_N)
    logprob_N = draws.token_logprob(plain_NxV, drawn_N)
    kept_N = certainty_N if shape.logprobs == "drawn" else logprob_N
    if config.forced_bos_token_id is not None and edges is None:  # given outputs begin with it
        # Not drawn, so that there is no other log-probability of it than the model's own.
        begins_N = age_N == 0
        drawn_N = jnp.where(begins_N, config.forced_bos_token_id, drawn_N)
        logprob_N = jnp.where(begins_N, draws.token_logprob(plain_NxV, drawn_N), logprob_N)
        kept_N = jnp.where(begins_N, logprob_N, kept_N)
    here_NxT = (jnp.arange(shape.max_new_tokens) == age_N[:, None]) & ~state.ended_N[:, None]
    working_N = ~state.ended_N
    age_N = state.age_N + working_N
    handing_out = desk.next < requests
    place = state.place
    state = state.replace(
        clock=state.clock + 1,
        steps=state.steps + handing_out,
        busy=state.busy + handing_out * jnp.sum(working_N),
        ended_N=state.ended_N
        | jnp.any(drawn_N[:, None] == eos_id, axis=1)
        | (age_N == shape.max_new_tokens),
        token_N=drawn_N,
        age_N=age_N,
        tokens_NxT=jnp.where(here_NxT, drawn_N[:, None], state.tokens_NxT),
        logprob_N=state.logprob_N + jnp.where(working_N, logprob_N, 0.0),
        logprobs_NxT=jax.tree.map(
            lambda old_NxT: jnp.where(here_NxT, kept_N[:, None], old_NxT), state.logprobs_NxT
        ),
        cache=cache,
    )
    if edges is None:
        return state
    among_N = jnp.where(working_N, draws.token_logprob(sides[0], chosen_N), 0.0)
    node_N = jnp.where(state.ended_N, 0, child_N)
    return state.replace(place=Place(node_N, place.among_N + among_N))


def _choose(
    scores: jax.Array, key_N: jax.Array, age_N: jax.Array, temperature: jax.Array, shape: Shape
) -> tuple[jax.Array, jax.Array | None]:
    """What each row takes, and its log-probability under what it is drawn from, if that is kept."""
    if shape.greedy:
        chosen_N = draws.greedy(scores)
        return chosen_N, jnp.zeros(chosen_N.shape)  # certain
    how = (draws.uniforms(key_N, age_N), temperature, shape.top_k, shape.top_p)
    if shape.logprobs == "drawn":
        return draws.scored_draw(scores, *how)
    return draws.draw(scores, *how), None


def _doubled(x_N: jax.Array, shape: Shape) -> jax.Array:
    return jnp.concatenate([x_N, x_N]) if shape.guided else x_N


def _lanes(lane_N: jax.Array, shape: Shape) -> Lanes:
    """The lane of each row of the cache."""
    if not shape.guided:
        return Lanes.make(lane_N, shape.lanes)
    idle_N = lane_N == shape.lanes
    both = [jnp.where(idle_N, 2 * shape.lanes, lane_N + i * shape.lanes) for i in range(2)]
    return Lanes.make(jnp.concatenate(both), 2 * shape.lanes)


def _can_hand_out(
    state: State, desk: Desk, requests: jax.Array, shape: Shape
) -> tuple[jax.Array, jax.Array]:
    """How many requests could be handed out now, and which places are taken.

    A place is taken while a sample of its question is at work or still to be handed out.
    """
    place_N = jnp.where(state.ended_N, shape.places, state.lane_N // shape.samples)
    started = desk.next % shape.samples
    taken_Q = jnp.zeros(shape.places, bool).at[place_N].set(True, mode="drop")
    taken_Q |= (started > 0) & (desk.question_Q == desk.next // shape.samples)
    room = shape.samples * jnp.sum(~taken_Q) + jnp.where(started > 0, shape.samples - started, 0)
    free = jnp.sum(state.ended_N)
    return jnp.minimum(jnp.minimum(free, room), requests - desk.next), taken_Q


def _worth_a_stop(state: State, desk: Desk, requests: jax.Array, shape: Shape) -> jax.Array:
    possible, _ = _can_hand_out(state, desk, requests, shape)
    enough = jnp.minimum(shape.batch, requests - desk.next)
    return (possible > 0) & (possible >= enough)


def _write_away(state: State, log: Log) -> tuple[State, Log]:
    """Moves outputs that are whole to the log; their rows are idle then."""
    whole_N = state.ended_N & (state.request_N != NONE)
    capacity = log.request_C.shape[0]
    at_N = jnp.where(whole_N, log.count + jnp.cumsum(whole_N) - 1, capacity)
    log = Log(
        count=log.count + jnp.sum(whole_N),
        request_C=log.request_C.at[at_N].set(state.request_N, mode="drop"),
        tokens_CxT=log.tokens_CxT.at[at_N].set(state.tokens_NxT, mode="drop"),
        length_C=log.length_C.at[at_N].set(state.age_N, mode="drop"),
        logprob_C=log.logprob_C.at[at_N].set(state.logprob_N, mode="drop"),
        logprobs_CxT=jax.tree.map(
            lambda old, new: old.at[at_N].set(new, mode="drop"),
            log.logprobs_CxT,
            state.logprobs_NxT,
        ),
        among_C=log.among_C
        if state.place is None
        else log.among_C.at[at_N].set(state.place.among_N, mode="drop"),
    )
    request_N = jnp.where(whole_N, NONE, state.request_N)
    return state.replace(request_N=request_N), log


def _hand_out(
    params: Params,
    state: State,
    desk: Desk,
    pool: Pool,
    encoded: list[tuple[jax.Array, jax.Array]],
    key: jax.Array,
    largest: Callable[[jax.Array], jax.Array],
    config: T5Config,
    shape: Shape,
) -> tuple[State, Desk]:
    """Gives the next requests to idle rows, and a place to each question that begins."""
    samples = shape.samples
    given, taken_Q = _can_hand_out(state, desk, pool.questions * samples, shape)
    end = desk.next + given

    first_new = -(-desk.next // samples)
    new_questions = -(-end // samples) - first_new
    rank_Q = jnp.cumsum(~taken_Q) - 1
    opens_Q = ~taken_Q & (rank_Q < new_questions)
    question_Q = jnp.where(opens_Q, first_new + rank_Q, desk.question_Q)
    cache = _fill_places(params, state.cache, encoded, question_Q, opens_Q, largest, config, shape)

    rank_N = jnp.cumsum(state.ended_N) - 1
    takes_N = state.ended_N & (rank_N < given)
    question_N, sample_N = jnp.divmod(desk.next + rank_N, samples)
    place_N = jnp.argmax(question_Q == question_N[:, None], axis=1)
    key_N = draws.row_keys(key, pool.uid_P[question_N], sample_N)
    lane_N = jnp.where(state.ended_N, shape.lanes, state.lane_N)
    place = state.place
    if place is not None:
        place = Place(
            node_N=jnp.where(takes_N, pool.root_P[question_N], place.node_N),
            among_N=jnp.where(takes_N, 0.0, place.among_N),
        )
    state = state.replace(
        request_N=jnp.where(takes_N, pool.first + desk.next + rank_N, state.request_N),
        ended_N=state.ended_N & ~takes_N,
        token_N=jnp.where(takes_N, config.decoder_start_token_id, state.token_N),
        age_N=jnp.where(takes_N, 0, state.age_N),
        tokens_NxT=jnp.where(takes_N[:, None], config.pad_token_id, state.tokens_NxT),
        logprob_N=jnp.where(takes_N, 0.0, state.logprob_N),
        key_N=jnp.where(takes_N, key_N, state.key_N),
        lane_N=jnp.where(takes_N, place_N * samples + sample_N, lane_N),
        cache=cache,
        place=place,
    )
    return state, Desk(end, question_Q)


def _fill_places(
    params: Params,
    cache: Cache,
    encoded: list[tuple[jax.Array, jax.Array]],
    question_Q: jax.Array,
    opens_Q: jax.Array,
    largest: Callable[[jax.Array], jax.Array],
    config: T5Config,
    shape: Shape,
) -> Cache:
    """Puts the questions of the places that open into the cache, a few at a time."""
    group = -(-shape.batch // shape.samples)
    places = shape.places
    (opening,) = jnp.nonzero(opens_Q, size=-(-places // group) * group, fill_value=places)

    def fill(i: jax.Array, cache: Cache) -> Cache:
        place_G = jax.lax.dynamic_slice(opening, (i * group,), (group,))
        question_G = question_Q.at[place_G].get(mode="fill", fill_value=0)
        for first, sources in zip((0, places), encoded, strict=False):
            # A place past all is left out.
            at_G = place_G
            if shape.guided:
                at_G = jnp.where(place_G < places, first + place_G, 2 * places)
            chosen = (x[question_G] for x in sources)
            cache = t5.put_sources(params, config, cache, *chosen, at_G)
        return cache

    groups = largest(-(-jnp.sum(opens_Q) // group))
    return jax.lax.fori_loop(0, groups, fill, cache)
