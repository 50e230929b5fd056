"""The sampler, with a tiny T5."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from hir_jax.decoding import programs, records, sampler
from hir_jax.decoding.prompt import Guide, Prompt
from hir_jax.decoding.rows import default_rows, engine_memory, free_memory
from hir_jax.decoding.sampler import Sampler
from hir_jax.devices import compiling, sharding
from hir_jax.model import batching, t5
from hir_jax.model.cache import init_cache
from hir_jax.training import scoring
from tests import tiny
from tests.decoding import simple_decode

EOS = 1
CONFIG = tiny.EVEN
KEY = jax.random.key(11)


def random_prompts(count):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 16, count)
    return [
        Prompt((*rng.integers(2, 40, length - 1).tolist(), EOS), int(uid))
        for length, uid in zip(lengths, rng.integers(0, 2**32, count), strict=True)
    ]


PROMPTS = random_prompts(13)


SAMPLER = Sampler(
    config=CONFIG,
    mesh=tiny.one_device(),
    buckets=(8, 16),
    rows=8,
    max_new_tokens=6,
    eos_id=EOS,
)


@pytest.fixture(scope="module")
def params():
    """A tiny T5 that ends an output now and then."""
    params = jax.jit(lambda: t5.init_params(CONFIG, jax.random.key(0)))()
    params["lm_head"] *= 2
    return place(params, tiny.one_device())


@pytest.fixture(scope="module")
def sampled(params):
    """Two samples of each prompt at temperature 1, and the greedy output."""
    return both(SAMPLER, params, PROMPTS)


def place(params, mesh):
    return jax.device_put(params, sharding.tree_shardings(mesh, params))


def both(engine, params, prompts):
    placed = place(params, engine.mesh)
    return (
        engine(placed, prompts, KEY, 1.0, samples=2),
        engine(placed, prompts, KEY, 0.0, samples=2),
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


@pytest.mark.parametrize("rows, buckets", [(1, (16,)), (3, (8, 16, 24)), (32, (8, 16))])
def test_rows_buckets_and_order_change_nothing(params, sampled, rows, buckets):
    engine = dataclasses.replace(SAMPLER, rows=rows, buckets=buckets)
    order = np.random.default_rng(rows).permutation(len(PROMPTS))
    shuffled = [PROMPTS[i] for i in order]
    for got, expected in zip(both(engine, params, shuffled), sampled, strict=True):
        assert_same(got, [expected[i] for i in order])


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_every_mesh_samples_as_one_device_does(params, sampled, shape):
    mesh = sharding.make_mesh(dict(zip(sharding.AXES, shape, strict=True)))
    engine = dataclasses.replace(SAMPLER, mesh=mesh, rows=3, buckets=(16,))
    for got, expected in zip(both(engine, params, PROMPTS), sampled, strict=True):
        assert_same(got, expected)


@pytest.mark.parametrize("samples", [1, 2])
def test_heads_that_are_kept_together_sample_as_heads_apart(params, sampled, samples):
    config = dataclasses.replace(CONFIG, heads_together=2)
    engine = dataclasses.replace(SAMPLER, config=config)
    got = engine(params, PROMPTS, KEY, 1.0, samples=samples)
    assert_same(got, [outputs[:samples] for outputs in sampled[0]])


@pytest.mark.parametrize(
    "platform, heads, width, tensor, together",
    [
        ("tpu", 6, 64, 1, 2),
        ("tpu", 6, 64, 2, 1),  # three on a device
        ("tpu", 12, 64, 2, 2),
        ("tpu", 12, 32, 1, 4),
        ("tpu", 6, 32, 1, 3),  # four do not divide six
        ("tpu", 6, 64, 4, 2),  # heads are whole on each device
        ("tpu", 16, 128, 1, 1),
        ("tpu", 16, 256, 1, 1),
        ("tpu", 1, 64, 1, 1),
        ("gpu", 6, 64, 1, 1),
        ("cpu", 6, 64, 1, 1),
    ],
)
def test_heads_fill_the_lanes_of_a_tpu(platform, heads, width, tensor, together):
    config = dataclasses.replace(CONFIG, num_heads=heads, d_kv=width)
    assert programs.laid_out(config, mesh_of(platform, tensor)).heads_together == together


def mesh_of(platform, tensor=1):
    device = types.SimpleNamespace(platform=platform)
    return types.SimpleNamespace(devices=np.array([device]), shape={"tensor": tensor})


@pytest.mark.parametrize("platform, dtype", [("cpu", "float32"), ("gpu", ""), ("tpu", "")])
def test_a_cpu_keeps_keys_and_values_in_float32(platform, dtype):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    assert programs.laid_out(config, mesh_of(platform)).cache_dtype == dtype
    kept = dataclasses.replace(SAMPLER, config=config).config
    cache = init_cache(kept, rows=2, length=4, sources=1, lanes=2, source_length=8)
    assert {x.dtype for x in (*cache.keys_NxGxTxC, *cache.cross_values)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("heads, on_a_device", [(2, 1), (3, 3)])
def test_heads_of_the_caches_are_split_over_tensor(heads, on_a_device):
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    config = dataclasses.replace(CONFIG, num_heads=heads)
    shape = records.Shape(rows=4, places=3, samples=2, max_new_tokens=5)
    new_state, _ = programs.programs(mesh, config, shape)
    for state, length in ((new_state(8), 8), (programs.lengthen(new_state(8), 16), 16)):
        local = jax.tree.map(lambda x: x.addressable_shards[0].data.shape, state)
        kept = local.cache
        layers = range(config.num_decoder_layers)
        assert [kept.keys_NxGxTxC[i] for i in layers] == [(1, 4, on_a_device, 5, 4) for _ in layers]
        assert kept.values_NxGxTxC == kept.keys_NxGxTxC
        assert kept.cross_keys == tuple((1, 3, on_a_device, 4, length) for _ in layers)
        assert kept.cross_values == tuple((1, 3, on_a_device, length, 4) for _ in layers)
        assert kept.source_mask_BxS == (1, 3, length)
        assert local.token_N == (1, 4)


@pytest.mark.parametrize("samples", [1, 2])  # caches of either layout
def test_of_a_cache_that_is_lengthened_one_array_is_there_twice(monkeypatch, samples):
    shape = records.Shape(rows=4, places=3, samples=samples, max_new_tokens=5)
    state = programs.programs(tiny.one_device(), CONFIG, shape).new_state(8)
    state = state.replace(cache=jax.tree.map(lambda x: x + 1, state.cache))
    old = [*state.cache.cross_keys, *state.cache.cross_values]
    values, pad, freed = [np.asarray(x) for x in old], programs._pad, []

    def spy(x, *args):
        freed.append([each.is_deleted() for each in old])
        return pad(x, *args)

    monkeypatch.setattr(programs, "_pad", spy)
    new = programs.lengthen(state, 12).cache
    count = len(old)
    assert freed[:count] == [[True] * i + [False] * (count - i) for i in range(count)]
    assert all(each.is_deleted() for each in old)
    longer = [*new.cross_keys, *new.cross_values]
    for i, (before, after) in enumerate(zip(values, longer, strict=True)):
        if samples > 1 and i < count // 2:  # keys
            before, after = before.swapaxes(-1, -2), after.swapaxes(-1, -2)
        np.testing.assert_array_equal(after[..., :8, :], before)
        assert after.shape[-2] == 12 and not after[..., 8:, :].any()


def test_more_samples_begin_with_the_same(params, sampled):
    engine = dataclasses.replace(SAMPLER, buckets=(16,))
    four = engine(params, PROMPTS, KEY, 1.0, samples=4)
    assert_same([outputs[:2] for outputs in four], sampled[0])
    assert sum(len(set(outputs)) for outputs in four) > 3 * len(PROMPTS)


def test_draws_change_with_the_iterations_key_and_the_prompts_uid(params, sampled):
    other = SAMPLER(params, PROMPTS, jax.random.key(12), 1.0, samples=2)
    renamed = [Prompt(prompt.tokens, prompt.uid ^ 1) for prompt in PROMPTS]
    for changed in (other, SAMPLER(params, renamed, KEY, 1.0, samples=2)):
        equal = sum(a == b for a, b in zip(changed, sampled[0], strict=True))
        assert equal < len(PROMPTS) / 2
    assert SAMPLER(params, PROMPTS, KEY, 1.0, samples=2) == sampled[0]


def test_one_compilation_a_length_bucket(params, monkeypatch):
    engine = dataclasses.replace(SAMPLER, max_new_tokens=3)  # a shape of this test's own
    logged = []
    monkeypatch.setattr(compiling.logging, "info", lambda *args: logged.append(args[-1]))
    engine(params, PROMPTS, KEY, 1.0, samples=2)
    assert {len(p.tokens) <= 8 for p in PROMPTS} == {True, False}
    assert [int(text.rsplit(" ", 1)[1]) for text in logged] == [8, 16]
    # Temperature, key, EOS and the number of prompts are arguments: nothing new is compiled.
    engine(params, PROMPTS[:5], jax.random.key(1), 0.7, samples=2)
    dataclasses.replace(engine, eos_id=7)(params, random_prompts(30), KEY, 0.3, samples=2)
    shape = engine.shape(len(PROMPTS), 2, 16)
    made = programs.programs(engine.mesh, engine.config, shape)
    assert made.decode_pool._cache_size() == 2
    assert [int(text.rsplit(" ", 1)[1]) for text in logged] == [8, 16]


def test_a_temperature_of_zero_is_another_program_whatever_the_others_draw_by():
    drawing = dataclasses.replace(SAMPLER, top_k=5, top_p=0.9)
    shape = drawing.shape(13, 2, 16)
    assert (shape.greedy, shape.top_k, shape.top_p) == (False, 5, 0.9)
    assert drawing.shape(13, 2, 16, greedy=True) == SAMPLER.shape(13, 2, 16, greedy=True) != shape


def test_greedy_programs_keep_certainties(params):
    engine = dataclasses.replace(SAMPLER, buckets=(16,), logprobs="drawn")
    outputs = [one for (one,) in engine(params, PROMPTS, KEY, 0.0)]
    assert all(output.logprobs == (0.0,) * len(output.tokens) for output in outputs)
    assert all(output.logprob < 0 for output in outputs)


def test_logprobs_are_the_scores_of_the_outputs(params, sampled):
    pairs = [
        (prompt.tokens, output.tokens)
        for outputs_of in sampled
        for prompt, outputs in zip(PROMPTS, outputs_of, strict=True)
        for output in outputs
    ]
    scores = scoring.score(
        params, CONFIG, tiny.one_device(), pairs, 8, batching.Buckets((16,), (8,))
    )
    logprobs = [output.logprob for outputs_of in sampled for o in outputs_of for output in o]
    np.testing.assert_allclose(logprobs, scores, atol=1e-4)


def test_each_tokens_logprob_is_what_the_training_pass_finds(params, sampled):
    engine = dataclasses.replace(SAMPLER, logprobs="whole")
    outputs = engine(params, PROMPTS, KEY, 1.0, samples=2)
    assert [[o.tokens for o in own] for own in outputs] == [
        [o.tokens for o in own] for own in sampled[0]
    ]
    every = [(p.tokens, o) for p, own in zip(PROMPTS, outputs, strict=True) for o in own]
    scores = scoring.score_tokens(
        params,
        CONFIG,
        tiny.one_device(),
        [(source, output.tokens) for source, output in every],
        8,
        batching.Buckets((16,), (8,)),
    )
    for (_, output), score in zip(every, scores, strict=True):
        np.testing.assert_allclose(output.logprobs, score.logprobs, atol=1e-4)
        assert sum(output.logprobs) == pytest.approx(output.logprob, abs=1e-5)
        assert score.values == ()


def test_truncated_draws_are_scored_by_the_whole_distribution_and_by_what_was_drawn_from(params):
    options = {"buckets": (16,), "top_k": 3, "max_new_tokens": 4, "logprobs": "drawn"}
    engine = dataclasses.replace(SAMPLER, **options)
    outputs = [one for (one,) in engine(params, PROMPTS, KEY, 2.0)]
    pairs = [(p.tokens, output.tokens) for p, output in zip(PROMPTS, outputs, strict=True)]
    scores = scoring.score(
        params, CONFIG, tiny.one_device(), pairs, 8, batching.Buckets((16,), (8,))
    )
    np.testing.assert_allclose([output.logprob for output in outputs], scores, atol=1e-4)
    source, mask = batching.pad([prompt.tokens for prompt in PROMPTS], 16)
    target, _ = batching.pad([output.tokens for output in outputs], 4)
    logits = t5.forward(params, CONFIG, source, mask, t5.shift_right(CONFIG, jnp.asarray(target)))
    for output, logits_TxV in zip(outputs, np.asarray(logits) / 2, strict=True):
        three_Tx3 = np.sort(logits_TxV)[:, -3:]
        expected = [
            row_V[token] - scipy.special.logsumexp(three)
            for row_V, three, token in zip(logits_TxV, three_Tx3, output.tokens, strict=False)
        ]
        np.testing.assert_allclose(output.logprobs, expected, atol=1e-4)


def test_outputs_are_the_simple_loops(params, sampled):
    source, mask = batching.pad([prompt.tokens for prompt in PROMPTS], 16)
    uid = np.array([prompt.uid for prompt in PROMPTS], np.uint32)
    for temperature, outputs_of in zip((1.0, 0.0), sampled, strict=True):
        tokens, lengths, logprobs = jax.device_get(
            simple_decode.decode_batch(
                params,
                source,
                mask,
                uid,
                KEY,
                jnp.float32(temperature),
                jnp.int32(EOS),
                config=CONFIG,
                samples=2,
                max_new_tokens=6,
                greedy=temperature == 0,
            )
        )
        outputs = [output for outputs in outputs_of for output in outputs]
        for output, row, length, logprob in zip(outputs, tokens, lengths, logprobs, strict=True):
            assert output.tokens == tuple(row[:length].tolist())
            assert output.logprob == pytest.approx(float(logprob), abs=1e-4)


def test_bfloat16_is_a_copy_of_half_the_size_and_samples_alike(params, sampled):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    copy = programs.decoding_copy(params, config, tiny.one_device())
    assert copy["lm_head"].dtype == copy["shared"].dtype == jnp.bfloat16
    assert copy["decoder"]["final_norm"]["scale"].dtype == jnp.float32
    assert programs.decoding_copy(params, CONFIG, tiny.one_device()) is params
    engine = dataclasses.replace(SAMPLER, config=config, buckets=(16,))
    greedy = engine(params, PROMPTS, KEY, 0.0, samples=2)
    same = sum(a == b for a, b in zip(tokens_of(greedy), tokens_of(sampled[1]), strict=True))
    assert same > len(PROMPTS) / 2


def tokens_of(outputs_of):
    return [[output.tokens for output in outputs] for outputs in outputs_of]


def test_a_decoding_copy_is_split_over_tensor_alone(params):
    mesh = sharding.make_mesh({"data": 1, "fsdp": 4, "tensor": 2})
    copy = programs.decoding_copy(place(params, mesh), CONFIG, mesh)
    axes = {axis for leaf in jax.tree.leaves(copy) for axis in leaf.sharding.spec}
    assert axes == {None, "tensor"}
    jax.tree.map(np.testing.assert_array_equal, copy, params)


def test_statistics_add_up(params):
    engine = dataclasses.replace(SAMPLER, rows=32)
    outputs_of, cost = engine.run(params, PROMPTS, KEY, 1.0, samples=8)
    assert cost.outputs == 8 * len(PROMPTS)
    assert cost.tokens == sum(len(o.tokens) for outputs in outputs_of for o in outputs)
    assert cost.source_tokens == sum(len(prompt.tokens) for prompt in PROMPTS)
    short = sum(len(prompt.tokens) <= 8 for prompt in PROMPTS)
    whole = 8 * (short + short % 2) + 16 * (len(PROMPTS) - short + (len(PROMPTS) - short) % 2)
    assert cost.padded_tokens == whole - cost.source_tokens  # two prompts are encoded at once
    assert cost.tokens / 32 <= cost.steps <= cost.tokens / 32 + 6
    assert 0.9 < cost.occupancy <= 1
    guide = Guide([prompt.tokens for prompt in reversed(PROMPTS)], 1.0)
    _, guided = engine.run(params, PROMPTS, KEY, 1.0, samples=8, guide=guide)
    assert guided.source_tokens == 2 * cost.source_tokens
    lengths = [len(prompt.tokens) for prompt in PROMPTS]
    short = sum(max(pair) <= 8 for pair in zip(lengths, reversed(lengths), strict=True))
    whole = 8 * (short + short % 2) + 16 * (len(PROMPTS) - short + (len(PROMPTS) - short) % 2)
    assert guided.padded_tokens == 2 * whole - guided.source_tokens


def test_no_more_rows_than_work_or_memory(params):
    auto = dataclasses.replace(SAMPLER, rows=0)
    assert auto.shape(1, 1, 16).rows == 8
    assert auto.shape(5, 4, 16).rows == 32
    assert auto.shape(10**6, 4, 16).rows == 64  # on a CPU
    assert dataclasses.replace(SAMPLER, rows=128).shape(10**6, 4, 16).rows == 128


def test_a_small_evaluation_shares_the_programs_of_a_large_one():
    run = dataclasses.replace(SAMPLER, rows=64, evaluated=50)
    greedy = functools.partial(run.shape, source_length=16, greedy=True)
    assert [greedy(n, 1).rows for n in (50, 30, 9, 8, 5)] == [64, 64, 64, 8, 8]
    assert greedy(100, 1).rows == 64  # no more than there may be
    assert run.shape(30, 1, 16).rows == 32  # draws are other programs, of their own rows
    assert dataclasses.replace(run, evaluated=0).shape(30, 1, 16, greedy=True).rows == 32


def test_rows_do_not_follow_the_longest_prompt(params, monkeypatch):
    asked = []
    monkeypatch.setattr(sampler, "default_rows", lambda *args: asked.append(args[3]) or 8)
    engine = dataclasses.replace(SAMPLER, rows=0)
    engine(params, [prompt for prompt in PROMPTS if len(prompt.tokens) <= 8], KEY, 0.0)
    assert asked == [16]


class Accelerator:
    platform = "gpu"

    def memory_stats(self):
        return {"bytes_limit": 10**6 + 100, "bytes_in_use": 100}


def test_free_memory():
    class OneOf:
        local_devices = (Accelerator(),)

    assert free_memory(OneOf()) == 10**6
    assert free_memory(tiny.one_device()) is None  # a CPU


def test_devices_are_not_asked_where_rows_are_given(monkeypatch):
    def ask(mesh):
        raise AssertionError("processes would wait for one another")

    monkeypatch.setattr(sampler, "free_memory", ask)
    assert dataclasses.replace(SAMPLER, rows=16).shape(10**6, 4, 16).rows == 16
    with pytest.raises(AssertionError, match="wait"):
        dataclasses.replace(SAMPLER, rows=0).shape(10**6, 4, 16)


def test_memory_is_asked_for_once_and_known_where_a_run_goes_on(monkeypatch):
    make = functools.partial(records.Shape.make, samples=1, max_new_tokens=SAMPLER.max_new_tokens)
    free = 1.5 * engine_memory(CONFIG, SAMPLER.mesh, make(16), 16) + 2  # of 16 rows
    asked = iter([free, 1e15, free])
    monkeypatch.setattr(sampler, "free_memory", lambda mesh: next(asked))
    first = dataclasses.replace(SAMPLER, rows=0, memory={})
    assert [first.shape(10**6, 1, 16).rows for _ in range(2)] == [16, 16]
    resumed = dataclasses.replace(SAMPLER, rows=0, memory=dict(first.memory))
    assert resumed.shape(10**6, 1, 16).rows == 16
    elsewhere = dataclasses.replace(SAMPLER, rows=0, memory={"another mesh": free})
    assert elsewhere.shape(10**6, 1, 16).rows == 1024


@pytest.mark.parametrize("guided", [False, True])
def test_rows_use_two_thirds_of_the_free_memory(guided):
    make = functools.partial(records.Shape.make, samples=4, max_new_tokens=6, guided=guided)
    mesh = sharding.make_mesh({"data": 4, "fsdp": 1, "tensor": 2})
    needed = {}
    for rows in (8, 16, 1024):
        shape = make(rows)
        cache = 2 * (rows * 6 + shape.places * 16) * 4 * 4  # one head of two on each device
        encoded, logits = shape.pool * 16 * 16 * 4, 4 * rows * 40 * 4
        needed[rows] = engine_memory(CONFIG, mesh, shape, 16)
        prompts = 2 if guided else 1
        small = needed[rows] - prompts * (cache + encoded + logits)  # tokens, keys, masks
        assert 0 < small < 100 * rows
    for free, rows in (
        (0, 8),
        (1.5 * needed[16] - 2, 8),
        (1.5 * needed[16] + 2, 16),
        (1.5 * needed[1024] + 2, 1024),
        (1e15, 1024),
    ):
        assert default_rows(CONFIG, mesh, make, 16, free) == rows


def dispatches(monkeypatch, module, name, events):
    """Has what `module.name` makes, a program or several, say "dispatched" as it is called last."""
    make = getattr(module, name)

    def watched(*args):
        *others, program = made if isinstance(made := make(*args), tuple) else (made,)

        def dispatched(*args):
            events.append("dispatched")
            return program(*args)

        return (*others, dispatched) if others else dispatched

    monkeypatch.setattr(module, name, watched)


def test_outputs_are_received_while_the_next_pool_is_on_the_device(params, monkeypatch):
    events, received = [], {}

    def receive(outputs):
        events.append("received")
        assert not received.keys() & outputs.keys()
        received.update(outputs)

    dispatches(monkeypatch, sampler, "programs", events)
    outputs = SAMPLER(params, PROMPTS, KEY, 1.0, samples=2, receive=receive)
    assert events[:2] == ["dispatched"] * 2 and events[-2:] == ["received"] * 2
    assert events[1:-1] == ["dispatched", "received"] * (len(events) // 2 - 1)
    places = [(i, sample) for i in range(len(PROMPTS)) for sample in range(2)]
    assert [[received[i, 0], received[i, 1]] for i in range(len(PROMPTS))] == outputs
    assert sorted(received) == places


def test_whoever_receives_may_stop_the_work(params):
    def stop(outputs):
        raise KeyboardInterrupt(f"after {len(outputs)}")

    with pytest.raises(KeyboardInterrupt, match="after"):
        SAMPLER(params, PROMPTS, KEY, 1.0, samples=2, receive=stop)


def test_no_prompts_no_outputs(params):
    assert SAMPLER(params, [], KEY, 1.0) == []


def test_a_prompt_beyond_the_longest_bucket_is_refused(params):
    with pytest.raises(ValueError, match="length 17 is beyond the longest bucket, 16"):
        SAMPLER(params, [Prompt((5,) * 17, 0)], KEY, 1.0)
