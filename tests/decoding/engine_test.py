"""The engine, with a policy of a few lines in the model's place; and its compiled loop."""

import dataclasses
import re
from math import log

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.decoding import draws, engine, records
from hir_jax.model import t5
from hir_jax.model.config import T5Config
from tests import tiny
from tests.decoding import simple_decode

EOS, PAD = 1, 0

# The probabilities of the next token after each one; rows are what was read, columns what is drawn.
# Greedy decoding goes start -> 2 -> 4 -> 1 (EOS), and 3 -> 5 -> 3 -> 5 ... without an end.
CHAIN = np.array(
    [
        #  0    1    2     3    4    5
        [1 / 8, 1 / 8, 1 / 2, 1 / 8, 1 / 8, 0],
        [1, 0, 0, 0, 0, 0],  # nothing may be read after EOS but by rows that are done
        [1 / 8, 1 / 8, 0, 1 / 4, 1 / 2, 0],
        [0, 1 / 4, 0, 0, 0, 3 / 4],
        [0, 3 / 4, 1 / 4, 0, 0, 0],
        [0, 1 / 4, 0, 3 / 4, 0, 0],
    ]
)
LOGITS = np.log(np.maximum(CHAIN, 1e-30)).astype(np.float32) + 2
POLICY = T5Config(
    vocab_size=6,
    d_model=1,
    d_kv=1,
    d_ff=1,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=1,
    pad_token_id=PAD,
    decoder_start_token_id=0,
)


@pytest.fixture
def fake_model(monkeypatch):
    """A policy whose first token follows from the prompt's, and each later one from the last.

    Its cache is the first token of the prompt in each place, and the clock that it expects next.
    """

    def init_cache(config, rows, length, sources, lanes, source_length):
        return jnp.zeros(sources), jnp.int32(0)

    def put_sources(params, config, cache, encoded, mask, place):
        first_Q, expected = cache
        return first_Q.at[place].set(encoded[:, 0, 0], mode="drop"), expected

    def decode_step(params, config, cache, token_N, clock, age_N, lanes=None):
        first_Q, expected = cache
        rows = token_N.shape[0]
        taken = jnp.ones(rows, bool)
        if lanes is None:
            first_N = jnp.repeat(first_Q, rows // first_Q.shape[0])
        else:
            samples = lanes.row_L.shape[0] // first_Q.shape[0]
            first_N = first_Q[lanes.of_row_N // samples]
            # Each row that reads a source is found on its lane.
            taken = lanes.of_row_N < lanes.row_L.shape[0]
            there = lanes.row_L[lanes.of_row_N] == jnp.arange(rows)
            expected = jnp.where(jnp.all(there | ~taken), expected, -1)
        fresh = age_N == 0
        read_N = jnp.where(fresh, first_N.astype(int), token_N)
        logits = jnp.asarray(LOGITS)[read_N]
        in_step = (clock == expected) & jnp.all(~taken | ~fresh | (token_N == 0))
        return jnp.where(in_step, logits, jnp.nan), (first_Q, expected + 1)

    def encode(params, config, source, mask):
        return source[..., None].astype(jnp.float32)

    for function in (encode, put_sources, decode_step):
        monkeypatch.setattr(t5, function.__name__, function)
    for module in (records, simple_decode):
        monkeypatch.setattr(module, "init_cache", init_cache)


def pool_of(first_tokens, shape, uids=None, number=0, roots=None):
    """Prompts of one token as a pool; `roots` of their tries."""
    missing = shape.pool - len(first_tokens)
    assert missing >= 0
    uids = range(len(first_tokens)) if uids is None else uids
    pool = records.Pool(
        source_PxS=np.array([[token, 9] for token in first_tokens] + [[0, 0]] * missing),
        source_mask_PxS=np.array([[True] * 2] * len(first_tokens) + [[False] * 2] * missing),
        uid_P=np.array([*uids, *[0] * missing], np.uint32),
        questions=np.int32(len(first_tokens)),
        first=np.int32(number),
        root_P=roots and np.array([*roots, *[0] * missing]),
    )
    return jax.tree.map(jnp.asarray, pool)


def shape_of(rows=8, places=8, samples=1, limit=5, **options):
    return records.Shape(rows, places, samples, limit, **options)


def decode_pools(pools, shape, temperature=0.0, eos_id=EOS, trie=None):
    """Outputs by request of all pools, one after the other, and the last state."""
    shape = dataclasses.replace(shape, greedy=temperature == 0)
    state = records.new_state(POLICY, shape, 2)
    ended = {}
    logs = []
    for i, pool in enumerate(pools):
        state, log = jax.device_get(
            engine.decode_pool(
                {},
                state,
                pool,
                jax.random.key(0),
                jnp.float32(temperature),
                jnp.int32(eos_id),
                jnp.bool(i == len(pools) - 1),
                jax.tree.map(jnp.asarray, trie),
                config=POLICY,
                shape=shape,
            )
        )
        logs.append(log)
        for request, tokens, length, logprob in zip(
            log.request_C[: log.count],
            log.tokens_CxT,
            log.length_C,
            log.logprob_C,
            strict=False,
        ):
            assert request not in ended and not tokens[length:].any()
            ended[int(request)] = (tokens[:length].tolist(), float(logprob))
    assert np.all(state.ended_N) and np.all(state.request_N == records.NONE)
    return ended, state, logs


OUTPUTS = {0: [2, 4, 1], 2: [4, 1], 4: [1], 3: [5, 3, 5, 3, 5], 5: [3, 5, 3, 5, 3]}
LOGPROBS = {
    0: log(1 / 2) + log(1 / 2) + log(3 / 4),
    2: log(1 / 2) + log(3 / 4),
    4: log(3 / 4),
    3: 5 * log(3 / 4),
    5: 5 * log(3 / 4),
}


@pytest.mark.parametrize("rows, places", [(8, 8), (3, 3), (1, 1), (3, 1), (2, 5)])
def test_outputs_do_not_depend_on_rows_or_places(fake_model, rows, places):
    shape = shape_of(rows, places)
    first = [0, 2, 4, 3, 3, 0, 5, 4, 2, 0, 4][: shape.pool]
    ended, state, _ = decode_pools([pool_of(first, shape)], shape)
    assert [ended[i][0] for i in range(len(first))] == [OUTPUTS[token] for token in first]
    logprobs = [ended[i][1] for i in range(len(first))]
    np.testing.assert_allclose(logprobs, [LOGPROBS[token] for token in first], rtol=1e-6)
    busy = sum(len(OUTPUTS[token]) for token in first)
    assert state.clock >= busy / min(rows, places)


@pytest.mark.parametrize("samples, places", [(2, 2), (3, 2), (3, 1), (4, 3)])
def test_samples_of_a_question_share_a_place(fake_model, samples, places):
    shape = shape_of(4, places, samples)
    first = [0, 3, 2, 4, 5][: shape.pool]
    ended, _, _ = decode_pools([pool_of(first, shape)], shape)
    expected = [OUTPUTS[token] for token in first for _ in range(samples)]
    assert [ended[i][0] for i in range(len(expected))] == expected


def test_rows_at_work_go_on_in_the_next_pool(fake_model):
    shape = shape_of(rows=2, places=2)
    pools = [
        pool_of([3, 4], shape, number=0),
        pool_of([4, 4, 2], shape, number=10),
        pool_of([0, 5], shape, number=20),
    ]
    ended, state, logs = decode_pools(pools, shape)
    assert {request: tokens for request, (tokens, _) in ended.items()} == {
        **{0: OUTPUTS[3], 1: OUTPUTS[4], 10: OUTPUTS[4], 11: OUTPUTS[4], 12: OUTPUTS[2]},
        **{20: OUTPUTS[0], 21: OUTPUTS[5]},
    }
    # All of the first pool is handed out at once, so the call comes back before a step is done.
    assert logs[0].count == 0
    # 20 tokens on 2 rows; only at the very end does one row stand idle.
    assert state.clock <= 11
    assert state.busy == 2 * state.steps


def test_an_empty_pool_brings_the_rest_home(fake_model):
    shape = shape_of()
    ended, _, logs = decode_pools([pool_of([3, 0], shape), pool_of([], shape, number=9)], shape)
    assert [ended[i][0] for i in (0, 1)] == [OUTPUTS[3], OUTPUTS[0]] and len(ended) == 2
    assert [int(log.count) for log in logs] == [0, 2]


@pytest.mark.parametrize("limit, tokens", [(1, [2]), (2, [2, 4]), (3, [2, 4, 1])])
def test_the_limit_cuts_and_eos_may_take_the_last_place(fake_model, limit, tokens):
    shape = shape_of(limit=limit)
    ended, _, _ = decode_pools([pool_of([0], shape)], shape)
    assert ended[0][0] == tokens
    expected = [log(1 / 2), log(1 / 4), log(3 / 16)][limit - 1]
    assert ended[0][1] == pytest.approx(expected, rel=1e-6)


def test_the_loop_stops_when_every_row_has_ended(fake_model):
    shape = shape_of(limit=50)
    assert decode_pools([pool_of([2, 4], shape)], shape)[1].clock == 2
    assert decode_pools([pool_of([], shape)], shape)[1].clock == 0


def test_another_eos_or_none(fake_model):
    shape = shape_of(limit=3)
    ended, _, _ = decode_pools([pool_of([3], shape)], shape, eos_id=5)
    assert ended[0][0] == [5]
    ended, _, _ = decode_pools([pool_of([4], shape)], shape, eos_id=-1)
    assert ended[0][0] == [1, 0, 2]  # 1 is read as any other token
    assert ended[0][1] == pytest.approx(log(3 / 4) + log(1) + log(1 / 2), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.9}], ids=str)
@pytest.mark.parametrize("rows", [3, 16])
def test_draws_are_the_simple_loops(fake_model, options, rows):
    """Keyed by prompt, sample and position: the same wherever a row stands."""
    shape = shape_of(rows, places=rows, samples=3, limit=4, **options)
    first, uids = [0, 2, 5, 4, 3][: shape.pool], [7, 2**32 - 1, 7, 1, 2][: shape.pool]
    pool = pool_of(first, shape, uids)
    ended, _, _ = decode_pools([pool], shape, temperature=0.7)
    tokens, lengths, logprobs = jax.device_get(
        # Not the jitted function: its compiled programs know the real model.
        simple_decode.decode_batch.__wrapped__(
            {},
            pool.source_PxS[: len(first)],
            pool.source_mask_PxS[: len(first)],
            pool.uid_P[: len(first)],
            jax.random.key(0),
            jnp.float32(0.7),
            jnp.int32(EOS),
            config=POLICY,
            samples=3,
            max_new_tokens=4,
            **options,
        )
    )
    assert len(ended) == len(tokens)
    for row in range(len(tokens)):
        assert ended[row][0] == tokens[row, : lengths[row]].tolist()
        assert ended[row][1] == pytest.approx(float(logprobs[row]), abs=1e-5)
    assert len({tuple(ended[i][0]) for i in range(3)}) > 1  # samples differ


row_keys = jax.jit(draws.row_keys)
uniforms = jax.jit(draws.uniforms)
draw = jax.jit(draws.draw)


def test_draws_by_hand(fake_model):
    """Each row, drawn with the keys of its prompt, sample and position."""
    shape = shape_of(4, 4, samples=2, limit=4)
    first, uids = [0, 5], [7, 2**32 - 1]
    ended, _, _ = decode_pools([pool_of(first, shape, uids)], shape, temperature=0.7)
    for b, (token, uid) in enumerate(zip(first, uids, strict=True)):
        for r in range(2):
            key = row_keys(jax.random.key(0), np.array([uid], np.uint32), np.array([r]))
            drawn, total, last = [], 0.0, token
            while len(drawn) < 4 and last != EOS:
                next_token = int(
                    draw(LOGITS[[last]], uniforms(key, np.array([len(drawn)])), 0.7)[0]
                )
                total += log(CHAIN[last, next_token])
                drawn.append(next_token)
                last = next_token
            assert ended[2 * b + r][0] == drawn
            assert ended[2 * b + r][1] == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize(
    ("rows", "samples", "places"),
    [(64, 1, 64), (64, 2, 48), (48, 4, 25), (64, 8, 22), (8, 16, 2), (1, 4, 1)],
)
def test_places_are_for_the_longest_of_a_questions_samples(rows, samples, places):
    assert records.places_for(rows, samples) == places


def test_rows_stay_busy_while_there_is_work(fake_model):
    """Lengths 1 to 5, 4 samples a question, of which the longest keeps the place."""
    shape = records.Shape.make(rows=16, samples=4, max_new_tokens=5)
    assert shape.places == 9
    rng = np.random.default_rng(0)
    pools = [
        pool_of(rng.choice([0, 2, 3, 4, 5], shape.pool), shape, number=i * 1000) for i in range(6)
    ]
    _, state, _ = decode_pools(pools, shape, temperature=1.0)
    assert state.busy / (state.steps * shape.rows) > 0.95


# The compiled loop ---------------------------------------------------------------------------

SMALL = dataclasses.replace(tiny.EVEN, num_decoder_layers=2)


@pytest.mark.parametrize(
    "options, ring, cross",
    [
        ({"top_k": 5}, "f32[16,2,24,4]", "f32[10,2,4,56]"),
        ({"greedy": True}, "f32[16,2,24,4]", "f32[10,2,4,56]"),
        ({"guided": True, "logprobs": "drawn"}, "f32[32,2,24,4]", "f32[20,2,4,56]"),
    ],
)
def test_no_cache_is_copied_in_the_compiled_loop(options, ring, cross):
    shape = shape_of(rows=16, places=10, samples=4, limit=24, **options)
    params = t5.abstract_params(SMALL)
    state = jax.eval_shape(lambda: records.new_state(SMALL, shape, 56))
    pool = jax.eval_shape(lambda: pool_arrays(shape, 56))
    function = jax.jit(
        engine.decode_pool, static_argnames=("config", "shape"), donate_argnames="state"
    )
    scalars = (jnp.float32(1), jnp.int32(1), jnp.bool(True))
    compiled = function.lower(
        params, state, pool, jax.random.key(0), *scalars, config=SMALL, shape=shape
    ).compile()
    text = compiled.as_text()
    assert ring in text and cross in text  # the shapes that are looked for do occur
    copies = re.findall(r"= (\S+?)(?:\{\S*\})? copy(?:-start)?\(", text)
    assert copies and ring not in copies and cross not in copies
    # Drawing and taking the likeliest are two programs, not two branches of one.
    assert "conditional(" not in text
    assert ("top_k" in text) == bool(shape.top_k)


def pool_arrays(shape, length):
    size = (shape.pool, length)
    sources = jnp.zeros(size, jnp.int32), jnp.zeros(size, bool)
    return records.Pool(
        *sources,
        uid_P=jnp.zeros(shape.pool, jnp.uint32),
        questions=jnp.int32(0),
        first=jnp.int32(0),
        opposite=records.Opposite(*sources, jnp.ones(()), jnp.ones(())) if shape.guided else None,
    )
