"""Outputs among given ones: the trie, the engine with it, and a whole pass over every token."""

import collections
import dataclasses
from math import exp, log

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hir_jax.decoding import draws
from hir_jax.decoding.prompt import Among, Guide
from hir_jax.decoding.trie import Trie
from hir_jax.devices import sharding
from hir_jax.model import batching, t5
from hir_jax.training import scoring
from tests import tiny
from tests.decoding import engine_test, sampler_test
from tests.decoding.engine_test import CHAIN, EOS, decode_pools, pool_of, shape_of
from tests.decoding.sampler_test import CONFIG, KEY, PROMPTS, SAMPLER

fake_model = engine_test.fake_model
params = sampler_test.params

DRAWN = Trie.make([[(5, 1), (5, 6, 1), (7, 1)], [(7, 1)]])  # in the docstring of `trie`


def test_the_drawn_example():
    assert DRAWN.token_E.tolist() == [5, 7, 7, 1, 6, 1, 1, 1]
    assert DRAWN.first_M.tolist() == [0, 2, 3, 5, 6, 7, 7, 8, 8, 8, 8]
    assert (DRAWN.roots, DRAWN.degree) == (2, 2)
    # The last entry is the number of edges, the end of the last node's.
    assert len(DRAWN.first_M) == DRAWN.roots + len(DRAWN.token_E) + 1


def test_edges_by_hand():
    edges = jax.tree.map(jnp.asarray, DRAWN).edges(jnp.array([0, 2, 4, 9]))
    assert edges.real_NxK.tolist() == [[True, True], [True, True], [True, False], [False, False]]
    assert edges.token_NxK[:2].tolist() == [[5, 7], [1, 6]]
    assert edges.child_NxK[:2].tolist() == [[2, 3], [5, 6]]
    scores = jnp.arange(32.0).reshape(4, 8)
    inf = np.inf
    expected = [[5, 7], [9, 14], [17, -inf], [-inf, -inf]]
    np.testing.assert_array_equal(edges.of(scores), expected)
    token, child = edges.at(jnp.array([1, 0, 0, 0]))
    assert token[:3].tolist() == [7, 1, 1] and child[:3].tolist() == [3, 5, 8]


def outputs_of(trie, root):
    """All that the trie lets follow from a root."""
    trie, found = jax.device_get(trie), []

    def walk(node, output):
        first, end = trie.first_M[node : node + 2]
        if first == end:
            found.append(output)
        for edge in range(first, end):
            walk(trie.roots + edge, (*output, int(trie.token_E[edge])))

    walk(root, ())
    return sorted(found)


def test_a_trie_holds_its_sets_and_nothing_else():
    rng = np.random.default_rng(0)
    sets = [
        {(*rng.integers(2, 9, rng.integers(0, 5)).tolist(), 1) for _ in range(count)}
        for count in (1, 3, 40, 40)
    ]
    trie = Trie.make([[*own, *own] for own in sets])  # each output twice
    assert [outputs_of(trie, root) for root in range(4)] == [sorted(own) for own in sets]
    prefixes = {(root, o[:i]) for root, own in enumerate(sets) for o in own for i in range(9)}
    assert len(trie.first_M) - 1 == len(prefixes)


@pytest.mark.parametrize("sets", [[], [[]], [[(5, 1)], []], [[(5, 1), ()]]])
def test_a_set_or_an_output_of_nothing_is_refused(sets):
    with pytest.raises(ValueError, match="expected outputs of a token or more"):
        Trie.make(sets)


# The engine, with a policy of a few lines -----------------------------------------------------

# Roots, the outputs of each, and the greedy one from prompt 0: among equals the lowest token.
SETS = [
    [(3, 5, 1), (4, 1)],
    [(2, 1)],
    [(2, 1), (2, 4, 1), (1,)],
    [(3, 5, 3, 5, 1), (3, 5, 1)],
]
GREEDY = [[3, 5, 1], [2, 1], [2, 4, 1], [3, 5, 3, 5, 1]]
# Of each token: under the policy, and among those that could follow.
OWN = [(1 / 8, 3 / 4, 1 / 4), (1 / 2, 1 / 8), (1 / 2, 1 / 2, 3 / 4), (1 / 8,) + (3 / 4,) * 3]
OWN[3] = (1 / 8, 3 / 4, 3 / 4, 3 / 4, 1 / 4)
AMONG = [(1 / 2, 1, 1), (1, 1), (4 / 5, 4 / 5, 1), (1, 1, 3 / 4, 1, 1)]


@pytest.mark.parametrize("rows, places, samples", [(8, 8, 1), (2, 2, 1), (3, 2, 2)])
def test_greedy_outputs_of_each_root(fake_model, rows, places, samples):
    shape = shape_of(rows, places, samples, among=True)
    roots = [2, 0, 3, 1, 2, 1, 3, 0][: shape.pool]
    pools = [
        pool_of([0] * len(roots), shape, roots=roots),
        pool_of([0] * len(roots), shape, number=100, roots=roots[::-1]),
    ]
    ended, _, logs = decode_pools(pools, shape, trie=Trie.make(SETS))
    for number, own in ((0, roots), (100, roots[::-1])):
        for i, root in enumerate(np.repeat(own, samples)):
            tokens, logprob = ended[number + i]
            assert tokens == GREEDY[root]
            assert logprob == pytest.approx(sum(map(log, OWN[root])), abs=1e-5)
    for log_ in logs:
        for tokens, among in zip(log_.tokens_CxT[: log_.count], log_.among_C, strict=False):
            root = GREEDY.index([token for token in tokens.tolist() if token])
            assert among == pytest.approx(sum(map(log, AMONG[root])), abs=1e-5)


def probabilities(outputs, temperature, top_k):
    """Of each output, drawn token by token among those that may follow; in plain steps."""
    found = {}
    for output in outputs:
        found[output], last = 1.0, 0
        for t, token in enumerate(output):
            may = sorted({o[t] for o in outputs if o[:t] == output[:t]})
            weight = {each: CHAIN[last, each] ** (1 / temperature) for each in may}
            kept = sorted(may, key=lambda each: -weight[each])[: top_k or None]
            share = weight[token] / sum(weight[each] for each in kept)
            found[output] *= share if token in kept else 0.0
            last = token
    return found


@pytest.mark.parametrize("temperature, top_k", [(0.7, 0), (1.5, 2)])
def test_draws_are_exact_in_distribution(fake_model, temperature, top_k):
    outputs = [(2, 1), (2, 4, 1), (1,), (3, 5, 1), (3, 1), (3, 5, 3, 5, 1), (4, 2, 3, 1)]
    count = 512
    shape = shape_of(64, 1, samples=count, logprobs="drawn", top_k=top_k, among=True)
    pool = pool_of([0], shape, roots=[1])
    trie = Trie.make([[(4, 1)], outputs])
    ended, _, (log_,) = decode_pools([pool], shape, temperature=temperature, trie=trie)
    expected = probabilities(outputs, temperature, top_k)
    assert sum(expected.values()) == pytest.approx(1)
    drawn = collections.Counter(tuple(tokens) for tokens, _ in ended.values())
    assert sum(drawn.values()) == count and set(drawn) <= set(outputs)
    pairs = [(drawn[output], share * count) for output, share in expected.items() if share]
    assert scipy.stats.chisquare(*zip(*pairs, strict=True)).pvalue > 0.01
    # And `logprobs` say which distribution that is.
    for tokens, length, each in zip(
        log_.tokens_CxT, log_.length_C[: log_.count], log_.logprobs_CxT, strict=False
    ):
        drawn_from = exp(each[:length].sum())
        assert drawn_from == pytest.approx(expected[tuple(tokens[:length])], rel=1e-4)


# The sampler, with a tiny T5 ------------------------------------------------------------------

rng = np.random.default_rng(5)
CHOICES = [
    [(*rng.integers(2, 40, length).tolist(), EOS) for length in rng.integers(1, 6, count)]
    for count in (1, 2, 30, 5)
]
AMONG_FOUR = Among(Trie.make(CHOICES), [i % 4 for i in range(len(PROMPTS))])


ENGINE = dataclasses.replace(SAMPLER, buckets=(16,))


def greedy_by_a_loop(params, among, guide=None):
    """By whole passes over what there is so far, all tokens that may not follow struck out."""
    sides = [[prompt.tokens for prompt in PROMPTS], *([guide.opposite] if guide else [])]
    sides = [batching.pad(side, 16) for side in sides]
    forward = jax.jit(lambda *args: t5.forward(params, CONFIG, *args))
    tokens = np.zeros((len(PROMPTS), SAMPLER.max_new_tokens), np.int32)
    sets = [CHOICES[root] for root in among.roots]
    for t in range(SAMPLER.max_new_tokens):
        inputs = t5.shift_right(CONFIG, jnp.asarray(tokens))
        may = np.zeros((len(PROMPTS), CONFIG.vocab_size), bool)
        for row, outputs in enumerate(sets):
            begun = tuple(tokens[row, :t].tolist())
            may[row, [o[t] for o in outputs if o[:t] == begun and len(o) > t] or [0]] = True
        scores = [jnp.where(may, forward(*side, inputs)[:, t], -1e9) for side in sides]
        if guide:
            scores = [draws.guided(*scores, guide.guidance, guide.cutoff)]
        tokens[:, t] = jnp.argmax(jnp.where(may, scores[0], -jnp.inf), axis=1)
    rows = [row.tolist() for row in tokens]
    return [tuple(row[: row.index(EOS) + 1]) for row in rows]


@pytest.fixture(scope="module")
def drawn(params):
    """The greedy output to each prompt, and three samples."""
    return [ENGINE(params, PROMPTS, KEY, t, samples=3, among=AMONG_FOUR) for t in (0.0, 1.5)]


def test_greedy_outputs_are_those_of_a_plain_loop(params, drawn):
    greedy = [own[0].tokens for own in drawn[0]]
    assert greedy == greedy_by_a_loop(params, AMONG_FOUR)
    assert len(set(greedy)) > 3


def test_all_samples_are_members_and_scored_by_the_whole_policy(params, drawn):
    pairs, logprobs = [], []
    for prompt, root, own in zip(PROMPTS, AMONG_FOUR.roots, drawn[1], strict=True):
        assert {output.tokens for output in own} <= set(CHOICES[root])
        assert all(o.logprob <= o.logprob_among + 1e-5 <= 1e-4 for o in own)
        if len(CHOICES[root]) == 1:
            assert [o.logprob_among for o in own] == pytest.approx([0, 0, 0], abs=1e-5)
        pairs += [(prompt.tokens, output.tokens) for output in own]
        logprobs += [output.logprob for output in own]
    assert len({output.tokens for own in drawn[1] for output in own}) > 8
    found = scoring.score(
        params, CONFIG, tiny.one_device(), pairs, 8, batching.Buckets((16,), (8,))
    )
    np.testing.assert_allclose(logprobs, found, atol=1e-4)


def test_rows_buckets_and_meshes_change_nothing(params, drawn):
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    placed = sampler_test.place(jax.device_get(params), mesh)
    other = dataclasses.replace(ENGINE, mesh=mesh, rows=3)
    found = other(placed, PROMPTS, KEY, 1.5, samples=3, among=AMONG_FOUR)
    assert [[o.tokens for o in own] for own in found] == [
        [o.tokens for o in own] for own in drawn[1]
    ]


def test_guided_among_given_outputs(params):
    guide = Guide([prompt.tokens for prompt in reversed(PROMPTS)], 2.0, 0.0)
    found = ENGINE(params, PROMPTS, KEY, 0.0, guide=guide, among=AMONG_FOUR)
    assert [own[0].tokens for own in found] == greedy_by_a_loop(params, AMONG_FOUR, guide)
    plausible = ENGINE(
        params, PROMPTS, KEY, 1.5, guide=guide._replace(cutoff=0.9), among=AMONG_FOUR
    )
    for own, root in zip(plausible, AMONG_FOUR.roots, strict=True):
        assert own[0].tokens in CHOICES[root]
