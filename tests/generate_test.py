import dataclasses
from math import log

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from hir_jax import batching, generate, sampling, scoring, sharding, t5
from hir_jax.generate import Prompt, Sampler

EOS, PAD = 1, 0

# The loop, with a policy of a few lines in the model's place ---------------------------------

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
POLICY = t5.T5Config(
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

    Its cache is the prompt's first token of each row, and the clock that it expects next.
    """

    def init_cache(params, config, encoded, mask, rows, length):
        return jnp.repeat(encoded[:, 0], rows // encoded.shape[0]), jnp.int32(0)

    def decode_step(params, config, cache, token_N, clock, age_N):
        first_N, expected = cache
        read_N = jnp.where(clock == 0, jnp.where(token_N == 0, first_N, 99), token_N)
        in_step = (clock == expected) & jnp.all(age_N == clock)
        logits = jnp.asarray(LOGITS)[read_N]
        return jnp.where(in_step, logits, jnp.nan), (first_N, expected + 1)

    monkeypatch.setattr(t5, "encode", lambda params, config, source, mask: source)
    monkeypatch.setattr(t5, "init_cache", init_cache)
    monkeypatch.setattr(t5, "decode_step", decode_step)


def decode(first_tokens, temperature=0.0, eos_id=EOS, samples=1, limit=5, uids=None, **options):
    """Runs the loop over prompts of one token; None is a row of padding."""
    source = np.array([[0 if token is None else token, 9] for token in first_tokens])
    mask = np.array([[token is not None] * 2 for token in first_tokens])
    uid = np.arange(len(first_tokens)) if uids is None else np.array(uids)
    # Not the jitted function: its compiled programs know the real model.
    return jax.device_get(
        generate.decode_batch.__wrapped__(
            {},
            source,
            mask,
            uid.astype(np.uint32),
            jax.random.key(0),
            jnp.float32(temperature),
            jnp.int32(eos_id),
            config=POLICY,
            samples=samples,
            max_new_tokens=limit,
            **options,
        )
    )


def test_rows_end_at_their_own_steps(fake_model):
    tokens, length, logprob = decode([0, 2, 4, None, 3])
    assert tokens.tolist() == [
        [2, 4, 1, 0, 0],  # from 0
        [4, 1, 0, 0, 0],  # from 2
        [1, 0, 0, 0, 0],  # from 4
        [0, 0, 0, 0, 0],  # padding
        [5, 3, 5, 3, 5],  # from 3, cut at the limit
    ]
    assert length.tolist() == [3, 2, 1, 0, 5]
    expected = [
        log(1 / 2) + log(1 / 2) + log(3 / 4),
        log(1 / 2) + log(3 / 4),
        log(3 / 4),
        0,
        5 * log(3 / 4),
    ]
    np.testing.assert_allclose(logprob, expected, rtol=1e-6)


@pytest.mark.parametrize("limit, tokens, length", [(1, [2], 1), (2, [2, 4], 2), (3, [2, 4, 1], 3)])
def test_the_limit_cuts_and_eos_may_take_the_last_place(fake_model, limit, tokens, length):
    got, lengths, logprob = decode([0], limit=limit)
    assert got.tolist() == [tokens] and lengths.tolist() == [length]
    np.testing.assert_allclose(logprob, [[log(1 / 2), log(1 / 4), log(3 / 16)][limit - 1]])


def test_the_loop_stops_when_every_row_has_ended(fake_model, monkeypatch):
    clocks = []
    real = sampling.draw

    def draw(logits, *args):
        jax.debug.callback(lambda _: clocks.append(1), logits[0, 0], ordered=True)
        return real(logits, *args)

    monkeypatch.setattr(sampling, "draw", draw)
    decode([2, None, 4], limit=50)
    assert len(clocks) == 2
    clocks.clear()
    tokens, length, _ = decode([None, None], limit=50)
    assert not clocks and not tokens.any() and not length.any()


def test_another_eos_or_none(fake_model):
    tokens, length, _ = decode([3], eos_id=5)
    assert tokens.tolist() == [[5, 0, 0, 0, 0]] and length.tolist() == [1]
    tokens, length, logprob = decode([4], eos_id=-1, limit=3)
    assert tokens.tolist() == [[1, 0, 2]]  # 1 is read as any other token
    assert length.tolist() == [3]
    np.testing.assert_allclose(logprob, [log(3 / 4) + log(1) + log(1 / 2)], rtol=1e-6)


row_keys = jax.jit(sampling.row_keys)
uniforms = jax.jit(sampling.uniforms)
draw = jax.jit(sampling.draw, static_argnames=("top_k", "top_p"))


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.9}], ids=str)
def test_draws_are_keyed_by_prompt_sample_and_position(fake_model, options):
    """Each row, drawn by hand with the same keys; its log-probability is of the whole policy."""
    first, uids, samples, limit = [0, 2, None, 5], [7, 2**32 - 1, 0, 7], 3, 4
    tokens, length, logprob = decode(first, 0.7, EOS, samples, limit, uids, **options)
    for b, (token, uid) in enumerate(zip(first, uids, strict=True)):
        for r in range(samples):
            key = row_keys(jax.random.key(0), np.array([uid], np.uint32), np.array([r]))
            drawn, total, last = [], 0.0, token
            while token is not None and len(drawn) < limit and last != EOS:
                uniform = uniforms(key, np.array([len(drawn)]))
                next_token = int(draw(LOGITS[[last]], uniform, 0.7, **options)[0])
                total += log(CHAIN[last, next_token])
                drawn.append(next_token)
                last = next_token
            row = b * samples + r
            assert tokens[row].tolist() == drawn + [PAD] * (limit - len(drawn))
            assert length[row] == len(drawn)
            assert logprob[row] == pytest.approx(total, abs=1e-5)
    assert len({tuple(row) for row in tokens[:3].tolist()}) > 1  # samples differ


# The sampler, with a tiny T5 -----------------------------------------------------------------

CONFIG = t5.T5Config(
    vocab_size=40,
    d_model=16,
    d_kv=4,
    d_ff=32,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=16,
)
KEY = jax.random.key(11)


def random_prompts(count):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 16, count)
    return [
        Prompt((*rng.integers(2, 40, length - 1).tolist(), EOS), int(uid))
        for length, uid in zip(lengths, rng.integers(0, 2**32, count), strict=True)
    ]


PROMPTS = random_prompts(13)


def one_device():
    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), sharding.AXES)


SAMPLER = Sampler(
    config=CONFIG,
    mesh=one_device(),
    buckets=(8, 16),
    batch_size=8,
    max_new_tokens=6,
    eos_id=EOS,
)


@pytest.fixture(scope="module")
def params():
    """A tiny T5 that ends an output now and then."""
    params = jax.jit(lambda: t5.init_params(CONFIG, jax.random.key(0)))()
    params["lm_head"] *= 2
    return place(params, one_device())


@pytest.fixture(scope="module")
def sampled(params):
    """Two samples of each prompt at temperature 1, and the greedy output."""
    return both(SAMPLER, params, PROMPTS)


def place(params, mesh):
    return jax.device_put(params, sharding.tree_shardings(mesh, params))


def both(sampler, params, prompts):
    placed = place(params, sampler.mesh)
    return (
        sampler(placed, prompts, KEY, 1.0, samples=2),
        sampler(placed, prompts, KEY, 0.0, samples=2),
    )


def assert_same(got, expected):
    for outputs, wanted in zip(got, expected, strict=True):
        assert [output.tokens for output in outputs] == [output.tokens for output in wanted]
        np.testing.assert_allclose(
            [output.logprob for output in outputs],
            [output.logprob for output in wanted],
            rtol=1e-4,
            atol=1e-5,
        )


def test_outputs_are_of_every_kind(sampled):
    outputs = [output for outputs in sampled[0] for output in outputs]
    assert len(sampled[0]) == len(PROMPTS) and len(outputs) == 2 * len(PROMPTS)
    assert {len(output.tokens) for output in outputs} >= {6}
    ended = [output for output in outputs if output.tokens[-1] == EOS]
    assert ended and len(ended) < len(outputs)
    assert all(EOS not in output.tokens[:-1] for output in outputs)
    assert all(isinstance(t, int) for output in outputs for t in output.tokens)
    assert all(isinstance(output.logprob, float) for output in outputs)
    assert len({output.tokens for output in outputs}) > len(PROMPTS)


def test_greedy_draws_no_lots(sampled):
    assert all(first == second for first, second in sampled[1])
    assert sampled[0] != sampled[1]


@pytest.mark.parametrize("batch_size, buckets", [(1, (16,)), (3, (8, 16, 24)), (8, (8, 16))])
def test_batch_size_buckets_and_order_change_nothing(params, sampled, batch_size, buckets):
    sampler = dataclasses.replace(SAMPLER, batch_size=batch_size, buckets=buckets)
    order = np.random.default_rng(batch_size).permutation(len(PROMPTS))
    shuffled = [PROMPTS[i] for i in order]
    for got, expected in zip(both(sampler, params, shuffled), sampled, strict=True):
        assert_same(got, [expected[i] for i in order])


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_every_mesh_samples_as_one_device_does(params, sampled, shape):
    mesh = sharding.make_mesh(dict(zip(sharding.AXES, shape, strict=True)))
    sampler = dataclasses.replace(SAMPLER, mesh=mesh, batch_size=3, buckets=(16,))
    for got, expected in zip(both(sampler, params, PROMPTS), sampled, strict=True):
        assert_same(got, expected)


def test_more_samples_begin_with_the_same(params, sampled):
    sampler = dataclasses.replace(SAMPLER, buckets=(16,))
    four = sampler(params, PROMPTS, KEY, 1.0, samples=4)
    assert_same([outputs[:2] for outputs in four], sampled[0])
    assert sum(len(set(outputs)) for outputs in four) > 3 * len(PROMPTS)


def test_draws_change_with_the_iterations_key_and_the_prompts_uid(params, sampled):
    other = SAMPLER(params, PROMPTS, jax.random.key(12), 1.0, samples=2)
    renamed = [Prompt(prompt.tokens, prompt.uid ^ 1) for prompt in PROMPTS]
    for changed in (other, SAMPLER(params, renamed, KEY, 1.0, samples=2)):
        equal = sum(a == b for a, b in zip(changed, sampled[0], strict=True))
        assert equal < len(PROMPTS) / 2
    assert SAMPLER(params, PROMPTS, KEY, 1.0, samples=2) == sampled[0]


def test_one_compilation_a_length_bucket(params):
    sampler = dataclasses.replace(SAMPLER, max_new_tokens=3)  # a shape of this test's own
    before = generate.decode_batch._cache_size()
    sampler(params, PROMPTS, KEY, 1.0, samples=2)
    assert {len(p.tokens) <= 8 for p in PROMPTS} == {True, False}
    assert generate.decode_batch._cache_size() - before == 2
    # Temperature, key, EOS and the number of prompts are arguments: nothing new is compiled.
    sampler(params, PROMPTS[:5], jax.random.key(1), 0.0, samples=2)
    dataclasses.replace(sampler, eos_id=7)(params, random_prompts(30), KEY, 0.3, samples=2)
    assert generate.decode_batch._cache_size() - before == 2


def test_logprobs_are_the_scores_of_the_outputs(params, sampled):
    pairs = [
        (prompt.tokens, output.tokens)
        for outputs_of in sampled
        for prompt, outputs in zip(PROMPTS, outputs_of, strict=True)
        for output in outputs
    ]
    scores = scoring.score(params, CONFIG, one_device(), pairs, 8, batching.Buckets((16,), (8,)))
    logprobs = [output.logprob for outputs_of in sampled for o in outputs_of for output in o]
    np.testing.assert_allclose(logprobs, scores, atol=1e-4)


def test_truncated_draws_are_scored_by_the_whole_distribution(params):
    sampler = dataclasses.replace(SAMPLER, buckets=(16,), top_k=3, max_new_tokens=4)
    outputs = [one for (one,) in sampler(params, PROMPTS, KEY, 2.0)]
    pairs = [(p.tokens, output.tokens) for p, output in zip(PROMPTS, outputs, strict=True)]
    scores = scoring.score(params, CONFIG, one_device(), pairs, 8, batching.Buckets((16,), (8,)))
    np.testing.assert_allclose([output.logprob for output in outputs], scores, atol=1e-4)


def test_progress_counts_outputs_and_may_stop_the_work(params):
    told = []
    SAMPLER(params, PROMPTS, KEY, 1.0, samples=2, progress=told.append)
    assert sum(told) == 2 * len(PROMPTS) and len(told) == 2

    def stop(n):
        raise KeyboardInterrupt(f"after {n}")

    with pytest.raises(KeyboardInterrupt, match="after"):
        SAMPLER(params, PROMPTS, KEY, 1.0, samples=2, progress=stop)


def test_no_prompts_no_outputs(params):
    assert SAMPLER(params, [], KEY, 1.0) == []


def test_a_prompt_beyond_the_longest_bucket_is_refused(params):
    with pytest.raises(ValueError, match="length 17 is beyond the longest bucket, 16"):
        SAMPLER(params, [Prompt((5,) * 17, 0)], KEY, 1.0)
