"""Beam search: as Transformers' from recorded golden files always, and live where torch is."""

import dataclasses
import functools
import pathlib
from math import log

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.decoding import beam
from hir_jax.decoding.beam import Beams, Rule
from hir_jax.decoding.prompt import Among, Output, Prompt
from hir_jax.decoding.sampler import Sampler
from hir_jax.decoding.trie import Trie
from hir_jax.devices import sharding
from hir_jax.model import hf
from tests import tiny
from tests.decoding import engine_test, sampler_test
from tests.decoding.engine_test import EOS, POLICY
from tests.decoding.sampler_test import CONFIG, KEY, PROMPTS, SAMPLER

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# Of tests/golden/record.py, which needs torch.
SEARCHES = (
    (Beams(4, 1.0, "false"), False),
    (Beams(4, 0.0, "never"), False),
    (Beams(4, 2.0, "true"), False),
    (Beams(4, -1.0, "false"), False),
    (Beams(4, 0.6, "never"), False),
    (Beams(2, 1.0, "true"), False),
    (Beams(4, 1.0, "false"), True),
    (Beams(4, 0.5, "never"), True),
)
params = sampler_test.params

# Against Transformers -------------------------------------------------------------------------


def expected_of(folder, source):
    if source == "recorded":
        return dict(np.load(folder / "beams.npz"))
    pytest.importorskip("torch", reason="torch is not installed; golden files stand in for it")
    import transformers

    from tests.golden import record

    made = [(Beams(w, p, str(early).lower()), among) for w, p, early, among in record.SEARCHES]
    assert made == list(SEARCHES)
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder, dtype="float32")
    return record.beams(model.eval(), seed=3)  # with other inputs than those recorded


@pytest.mark.parametrize("source", ["recorded", "live"])
@pytest.mark.parametrize("name", ["v1_0", "v1_1"])
def test_tokens_and_scores_are_transformers(name, source):
    folder = GOLDEN / name
    expected = expected_of(folder, source)
    eos = int(expected["eos_id"])
    config = hf.read_config(folder)
    length = 10
    sampler = Sampler(config, tiny.one_device(), (24,), length, eos, rows=16)
    weights = sampler_test.place(hf.load_params(folder, config), sampler.mesh)
    pairs = zip(expected["source"], expected["source_mask"], strict=True)
    prompts = [Prompt(tuple(row[mask].tolist()), 0) for row, mask in pairs]
    given = [[tuple(o[o > 0].tolist()) for o in own] for own in expected["allowed"]]
    ends = set()
    for i, (beams, is_among) in enumerate(SEARCHES):
        among = Among(Trie.make(given), range(len(given))) if is_among else None
        found = beam.search(sampler, weights, prompts, beams, among=among)
        assert all(len(own) == beams.width for own in found)
        wanted = [row.tolist() for row in expected[f"tokens_{i}"]]
        wanted = [row[: row.index(eos) + 1] if eos in row else row for row in wanted]
        assert [list(o.tokens) for own in found for o in own] == wanted
        scores = [beams.score(o) for own in found for o in own]
        np.testing.assert_allclose(scores, expected[f"scores_{i}"], rtol=1e-4, atol=1e-4)
        ends |= {len(own[0].tokens) for own in found}
        if is_among:
            assert all(o.tokens in given[row] for row, own in enumerate(found) for o in own)
    assert len(ends) > 4


# With a policy of a few lines -----------------------------------------------------------------

LENGTH, VOCABULARY = 3, 4
# The scores of what follows each prompt of one token (2 or 3) and each beginning of an output.
TABLE = np.random.default_rng(1).normal(0, 1, (5**LENGTH, 2, VOCABULARY)).astype(np.float32)


@dataclasses.dataclass
class Read:
    """Stands for a cache: what each row has read, and its prompt."""

    keys_NxGxTxC: tuple
    values_NxGxTxC: tuple
    first_N: jax.Array

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)


jax.tree_util.register_dataclass(Read, [f.name for f in dataclasses.fields(Read)], [])


@pytest.fixture
def whole_history(monkeypatch):
    """A policy whose every token follows from all before it, as the rows' caches have them."""

    def init_cache(config, rows, length, sources, lanes, source_length):
        return Read((jnp.zeros((rows, length), jnp.int32),), (), jnp.zeros(rows, jnp.int32))

    def put_sources(params, config, cache, encoded, mask, place):
        lanes = cache.first_N.shape[0] // len(encoded)
        return cache.replace(first_N=jnp.repeat(encoded[:, 0], lanes))

    def decode_step(params, config, cache, token_N, clock, age_N):
        (read_NxT,) = cache.keys_NxGxTxC
        read_NxT = jnp.where(jnp.arange(LENGTH) == clock, token_N[:, None] + 1, read_NxT)
        place_N = read_NxT @ 5 ** jnp.arange(LENGTH)
        cache = cache.replace(keys_NxGxTxC=(read_NxT,))
        return jnp.asarray(TABLE)[place_N, cache.first_N - 2], cache

    monkeypatch.setattr(beam.t5, "encode", lambda params, config, source, mask: source)
    for function in (put_sources, decode_step):
        monkeypatch.setattr(beam.t5, function.__name__, function)
    monkeypatch.setattr(beam, "init_cache", init_cache)


def logprob_of(first, output):
    total, read = 0.0, [0]
    for token in output:
        row = TABLE[sum((t + 1) * 5**i for i, t in enumerate(read)), first - 2].astype(float)
        total += row[token] - np.logaddexp.reduce(row)
        read.append(token)
    return total


def every_output(ends=(EOS,)):
    """Those that end, and those that are cut."""
    whole, begun = [], [()]
    for _ in range(LENGTH):
        begun = [(*own, token) for own in begun for token in range(VOCABULARY)]
        whole += [own for own in begun if own[-1] in ends]
        begun = [own for own in begun if own[-1] not in ends]
    return whole + begun


def searched(firsts, beams, sets=None, ends=(EOS,), **changes):
    """`find`, the batch padded by a prompt."""
    config = dataclasses.replace(POLICY, vocab_size=VOCABULARY, **changes)
    source = jnp.array([[first] for first in (*firsts, 2)])
    real = jnp.arange(len(source)) < len(firsts)
    trie = sets and jax.tree.map(jnp.asarray, Trie.make(sets))
    roots = None if sets is None else jnp.arange(len(source))[::-1] % len(sets)
    found = beam.find(
        {},
        (source, source > 0, real, roots),
        jnp.array(ends),
        jax.tree.map(jnp.asarray, Rule.make(beams, LENGTH)),
        trie,
        config=config,
        width=beams.width,
        length=LENGTH,
    )
    found = jax.device_get(found)
    assert not beam._outputs(found, len(firsts))  # the padding
    return [beam._outputs(found, row) for row in range(len(firsts))]


@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5])
def test_beams_for_all_outputs_find_them_in_the_order_of_their_scores(whole_history, penalty):
    outputs = every_output()
    assert len(outputs) == 40
    beams = Beams(40, penalty, "never")
    for first, own in zip((3, 2), searched((3, 2), beams), strict=True):
        scores = {o: logprob_of(first, o) / len(o) ** penalty for o in outputs}
        assert [o.tokens for o in own] == sorted(outputs, key=lambda o: -scores[o])
        np.testing.assert_allclose(
            [beams.score(o) for o in own], sorted(scores.values())[::-1], 1e-5
        )


def test_several_ids_may_end_an_output_and_one_may_be_forced_to_begin_it(whole_history):
    ends, forced = (EOS, 2), 3
    outputs = [output for output in every_output(ends) if output[0] == forced]
    beams = Beams(len(outputs), 0.0, "never")
    (own,) = searched((3,), beams, ends=ends, forced_bos_token_id=forced)
    wanted = sorted(outputs, key=lambda output: -logprob_of(3, output))
    assert [o.tokens for o in own] == wanted
    np.testing.assert_allclose([o.logprob for o in own], [logprob_of(3, o) for o in wanted], 1e-5)


def test_among_given_outputs_all_are_found_where_they_are_few(whole_history):
    sets = [[(2, 1), (2, 3, 1), (1,)], [(3, 3, 1)]]
    for early_stopping in beam.EARLY_STOPPING:
        found = searched((2, 3, 3), Beams(4, 0.0, early_stopping), sets)
        for first, root, own in zip((2, 3, 3), (1, 0, 1), found, strict=True):
            scores = {output: logprob_of(first, output) for output in sets[root]}
            assert [o.tokens for o in own] == sorted(sets[root], key=lambda o: -scores[o])
            np.testing.assert_allclose(
                [o.logprob for o in own], sorted(scores.values())[::-1], 1e-5
            )
        assert found[0][0].logprob_among == found[2][0].logprob_among == 0


def test_a_search_by_hand(monkeypatch):
    """Two beams of the policy that follows the last token alone, which `engine_test` draws."""
    monkeypatch.setattr(beam.t5, "encode", lambda params, config, source, mask: source)
    monkeypatch.setattr(beam.t5, "put_sources", lambda params, config, cache, *rest: cache)
    monkeypatch.setattr(beam, "init_cache", lambda *args: Read((), (), jnp.zeros(())))

    def decode_step(params, config, cache, token_N, clock, age_N):
        return jnp.asarray(engine_test.LOGITS)[token_N], cache

    monkeypatch.setattr(beam.t5, "decode_step", decode_step)

    def found(beams, length=5):
        rule = jax.tree.map(jnp.asarray, Rule.make(beams, length))
        batch = (jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool), jnp.ones(1, bool), None)
        sizes = {"config": POLICY, "width": beams.width, "length": length}
        made = beam.find({}, batch, jnp.array([EOS]), rule, None, **sizes)
        return [(o.tokens, o.logprob) for o in beam._outputs(jax.device_get(made), 0)]

    # 2 | 2 4, 2 3 | 2 4 1 ends; 2 3 5, 2 4 2 | 2 3 5 3, 2 4 2 4 | 2 3 5 3 5 and 2 4 2 4 1 at last.
    best, second = ((2, 4, 1), log(3 / 16)), ((2, 3, 5, 3, 5), log(27 / 512))
    close = functools.partial(pytest.approx, abs=1e-5)
    for beams in (Beams(2, 1.0), Beams(2, 0.0, "never"), Beams(2, 1.0, "true")):
        assert found(beams) == [(tokens, close(logprob)) for tokens, logprob in (best, second)]
    assert found(Beams(2, 4.0))[0] == (second[0], close(second[1]))  # longer is better
    # One beam that stops at its first end is the likeliest token at each step.
    assert found(Beams(1, 0.0, "true")) == [(best[0], close(best[1]))]
    assert found(Beams(1, 0.0, "true"), 2) == [((2, 4), close(log(1 / 4)))]


# With a tiny T5 -------------------------------------------------------------------------------

ENGINE = dataclasses.replace(SAMPLER, buckets=(16,))


@pytest.fixture(scope="module")
def found(params):
    return beam.search(ENGINE, params, PROMPTS, Beams(3))


def assert_same(got, expected):
    assert [[o.tokens for o in own] for own in got] == [[o.tokens for o in own] for own in expected]
    pairs = [[o.logprob for own in outputs for o in own] for outputs in (got, expected)]
    np.testing.assert_allclose(*pairs, rtol=1e-4, atol=1e-5)


def test_batches_buckets_order_and_meshes_change_nothing(params, found):
    other = dataclasses.replace(ENGINE, rows=30, buckets=(8, 16))
    again = beam.search(other, params, PROMPTS[::-1], Beams(3))
    assert_same(again[::-1], found)
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    placed = sampler_test.place(jax.device_get(params), mesh)
    assert_same(
        beam.search(dataclasses.replace(ENGINE, mesh=mesh, rows=3), placed, PROMPTS, Beams(3)),
        found,
    )


def test_outputs_are_received_while_the_next_batch_is_on_the_device(params, found, monkeypatch):
    events, received = [], {}

    def receive(outputs):
        events.append("received")
        received.update(outputs)

    sampler_test.dispatches(monkeypatch, beam, "program", events)
    outputs = beam.search(ENGINE, params, PROMPTS, Beams(3), receive)
    assert events[:2] == ["dispatched"] * 2 and events[-2:] == ["received"] * 2
    assert events[1:-1] == ["dispatched", "received"] * (len(events) // 2 - 1)
    assert [received[i] for i in range(len(PROMPTS))] == outputs == found


def test_one_beam_is_greedy(params):
    greedy = ENGINE(params, PROMPTS, KEY, 0.0)
    assert_same(beam.search(ENGINE, params, PROMPTS, Beams(1, 0.0, "true")), greedy)


def test_no_prompts_no_outputs(params):
    assert beam.search(ENGINE, params, [], Beams(3)) == []


def test_a_prompts_source_is_encoded_once_for_all_its_beams():
    made = jax.eval_shape(
        lambda p: beam._begin(
            p,
            jnp.zeros((2, 16), jnp.int32),
            jnp.ones((2, 16), bool),
            jnp.ones(2, bool),
            None,
            CONFIG,
            4,
            6,
        ),
        beam.t5.abstract_params(CONFIG),
    )
    assert {x.shape[0] for x in made.cache.cross_keys} == {2}
    assert {x.shape[0] for x in made.cache.keys_NxGxTxC} == {8}


def test_scores_divide_by_the_length():
    assert Beams(2, 2.0).score(Output((4, 5, 1), -6.0)) == pytest.approx(-6 / 9)
    rule = Rule.make(Beams(2, 2.0, "never"), 3)
    assert rule.divisor_T.tolist() == [1, 4, 9] and rule.bound_T.tolist() == [9, 9, 9]
    for beams in (Beams(2, 2.0), Beams(2, -1.0, "never")):
        rule = Rule.make(beams, 3)
        assert rule.bound_T.tolist() == rule.divisor_T.tolist()
