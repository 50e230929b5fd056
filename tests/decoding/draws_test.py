import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from hir_jax.decoding import draws

V = 300  # no multiple of the block of 128
IMPOSSIBLE = [0, 7, 200, 299]
LARGEST_UNIFORM = np.float32(1 - 2**-23)

draw = jax.jit(draws.draw, static_argnames=("top_k", "top_p"))
scored_draw = jax.jit(draws.scored_draw, static_argnames=("top_k", "top_p"))
row_keys = jax.jit(draws.row_keys)
uniforms = jax.jit(draws.uniforms)


@pytest.fixture(scope="module")
def logits_V():
    """Two tokens in three are common, the last, short block is rare, four tokens cannot occur."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, V)
    logits[256:] -= 4
    logits[IMPOSSIBLE] = -np.inf
    return logits.astype(np.float32)


@functools.partial(jax.jit, static_argnames=("top_k", "top_p"))
def histogram(logits_V, temperature, top_k=0, top_p=1.0):
    """How often each token comes out in 2^17 draws, tokens beyond the vocabulary included."""

    def part(key):
        rows = jnp.broadcast_to(logits_V, (4096, V))
        uniform = jax.random.uniform(key, (4096, 2))
        tokens = draw(rows, uniform, temperature, top_k=top_k, top_p=top_p)
        return jnp.bincount(tokens, length=2 * V)

    return jax.lax.map(part, jax.random.split(jax.random.key(1), 32)).sum(axis=0)


def distribution(logits_V, temperature, top_k=0, top_p=1.0):
    """What `draw` must draw from, in float64 and in plain steps."""
    probs = scipy.special.softmax(logits_V.astype(np.float64) / temperature)
    order = np.argsort(-probs, kind="stable")
    if top_k:
        probs[order[top_k:]] = 0
        probs /= probs.sum()
    kept = int(np.searchsorted(np.cumsum(probs[order]), top_p)) + 1
    probs[order[kept:]] = 0
    return probs / probs.sum()


def p_value(counts, probs_V):
    """Of Pearson's chi-squared test; tokens expected less than 5 times count as one."""
    expected = probs_V * counts.sum()
    rare = expected < 5
    observed = np.append(counts[:V][~rare], counts[:V][rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    return scipy.stats.chisquare(observed[expected > 0], expected[expected > 0]).pvalue


@pytest.mark.parametrize(
    "temperature, top_k, top_p, kept",
    [
        (1.0, 0, 1.0, 296),
        (0.5, 0, 1.0, 296),
        (2.0, 0, 1.0, 296),
        (1.0, 10, 1.0, 10),
        (1.0, 0, 0.8, None),
        (2.0, 50, 0.9, None),
    ],
)
def test_draws_are_exact_in_distribution(logits_V, temperature, top_k, top_p, kept):
    probs_V = distribution(logits_V, temperature, top_k, top_p)
    assert kept is None or np.count_nonzero(probs_V) == kept
    counts = np.asarray(histogram(logits_V, temperature, top_k, top_p))
    assert counts.sum() == 1 << 17
    assert counts[V:].sum() == 0 and counts[:V][probs_V == 0].sum() == 0
    assert p_value(counts, probs_V) > 1e-3
    # So many draws tell a temperature 5% off from the right one.
    other_V = probs_V ** (1 / 1.05)
    assert p_value(counts, other_V / other_V.sum()) < 1e-4


def test_the_rare_block_is_drawn_as_often_as_it_should(logits_V):
    probs_V = distribution(logits_V, 1.0)
    assert 1e-4 < probs_V[256:].sum() < 1e-2
    drawn = int(histogram(logits_V, 1.0)[256:].sum())
    assert scipy.stats.binomtest(drawn, 1 << 17, probs_V[256:].sum()).pvalue > 0.01


def test_top_p_keeps_the_fewest_tokens_that_reach_p():
    # 0.5 + 0.25 reaches 0.75 with two tokens; a hair more needs a third.
    logits = jnp.log(jnp.array([[0.125, 0.5, 0.125, 0.25]]))
    grid = jnp.stack([jnp.linspace(0, LARGEST_UNIFORM, 64)] * 2, axis=1)

    def kept(top_p):
        rows = jnp.broadcast_to(logits, (64, 4))
        return set(np.asarray(draw(rows, grid, 1.0, top_p=top_p)).tolist())

    assert kept(0.0) == {1}
    assert kept(0.4) == {1}
    assert kept(0.74) == {1, 3}
    assert kept(0.76) == {0, 1, 3}  # of two equals, the lower id


@pytest.mark.parametrize("vocabulary, k", [(40, 3), (640, 10), (1001, 7), (1001, 15), (1001, 900)])
def test_likeliest_is_top_k_ties_and_impossible_tokens_included(vocabulary, k):
    rng = np.random.default_rng(vocabulary + k)
    scores = rng.integers(0, 40, (64, vocabulary)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    scores[:8] = -np.inf
    scores[4:8, -3:] = 1
    expected, found = jax.lax.top_k(scores, k), draws.likeliest(jnp.asarray(scores), k)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_top_k_beyond_the_vocabulary_keeps_all():
    rows = jnp.zeros((64, 4))
    grid = jnp.stack([jnp.linspace(0, LARGEST_UNIFORM, 64)] * 2, axis=1)
    drawn = np.asarray(draw(rows, grid, 1.0, top_k=50))
    assert np.bincount(drawn).tolist() == [16, 16, 16, 16]


def test_greedy_takes_the_lowest_id_among_the_likeliest():
    logits = jnp.array([[0.0, 3.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.0], [-1.0, -2.0, -3.0, 0.0]])
    drawn = jax.jit(draws.greedy)(logits)
    assert drawn.tolist() == [1, 0, 3]
    assert drawn.dtype == jnp.int32


def around(edges):
    """The float32 uniforms next to given numbers, and the two extremes."""
    steps = np.round(np.asarray(edges)[:, None] * 2**23) + np.arange(-2, 3)
    steps = np.clip(np.append(steps, [0, 2**23 - 1]), 0, 2**23 - 1)
    return (np.unique(steps) / 2**23).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"top_k": 40}, {"top_p": 0.9}], ids=str)
def test_an_impossible_token_is_never_drawn(options):
    rng = np.random.default_rng(2)
    logits_V = rng.normal(0, 2, V).astype(np.float32)
    logits_V[rng.random(V) < 0.5] = -np.inf
    logits_V[[0, 1, 127, 255, 299]] = -np.inf
    logits_V[256:] = -np.inf
    probs_V = distribution(logits_V, 1.0, **options)
    for weights in (np.sort(probs_V)[::-1], probs_V[:128], probs_V[128:256]):
        edge = around(np.cumsum(weights) / weights.sum())
        uniform_Nx2 = np.stack([edge, rng.permutation(edge)], axis=1)
        rows = jnp.broadcast_to(logits_V, (len(edge), V))
        drawn = np.asarray(draw(rows, uniform_Nx2, 1.0, **options))
        assert drawn.min() >= 0 and drawn.max() < V
        assert (probs_V[drawn] > 0).all()


def test_rounding_of_a_long_running_sum_draws_nothing_of_no_weight():
    # Running sums are computed in a tree, so an entry of weight 0 may seem to raise or lower them.
    rng = np.random.default_rng(3)
    invert = jax.jit(draws._invert)
    for _ in range(2):
        weights = np.where(rng.random(2000) < 0.5, 0, rng.random(2000)).astype(np.float32)
        weights[-50:] = 0
        uniform = around(np.cumsum(weights, dtype=np.float64) / weights.sum(dtype=np.float64))
        drawn = np.asarray(invert(np.tile(weights, (len(uniform), 1)), uniform))
        assert (weights[drawn] > 0).all()


def test_extreme_uniforms_take_the_first_and_the_last_possible_token(logits_V):
    possible = np.flatnonzero(np.isfinite(logits_V))
    rows = jnp.broadcast_to(logits_V, (2, V))
    uniform = jnp.array([[0.0, 0.0], [LARGEST_UNIFORM, LARGEST_UNIFORM]])
    assert draw(rows, uniform, 1.0).tolist() == [possible[0], possible[-1]]
    only = jnp.full((2, V), -jnp.inf).at[:, 140].set(-5.0)
    for options in ({}, {"top_k": 3}, {"top_p": 0.9}):
        assert draw(only, uniform, 1.0, **options).tolist() == [140, 140]


def test_token_logprob_is_of_the_whole_softmax(logits_V):
    rows = np.stack([logits_V, np.roll(logits_V, 5) - 100])
    tokens = np.array([3, 17])
    expected = scipy.special.log_softmax(rows.astype(np.float64), axis=1)[[0, 1], tokens]
    got = draws.token_logprob(jnp.asarray(rows), jnp.asarray(tokens))
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert draws.token_logprob(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0])) == (
        pytest.approx(np.log(0.25), rel=1e-6)
    )


@pytest.mark.parametrize(
    "temperature, cut, expected",
    [
        (1.0, {}, {0: 1 / 8, 1: 1 / 2, 2: 1 / 8, 3: 1 / 4}),
        (0.5, {}, {0: 1 / 22, 1: 16 / 22, 2: 1 / 22, 3: 4 / 22}),
        (1.0, {"top_k": 2}, {1: 2 / 3, 3: 1 / 3}),
        (1.0, {"top_p": 0.0}, {1: 1.0}),
        (0.5, {"top_k": 2}, {1: 4 / 5, 3: 1 / 5}),
        (1.0, {"top_p": 0.8}, {0: 1 / 7, 1: 4 / 7, 3: 2 / 7}),
        # Of the three likeliest, two have 6/7 of the probability.
        (1.0, {"top_k": 3, "top_p": 0.8}, {1: 2 / 3, 3: 1 / 3}),
    ],
)
def test_a_draws_score_is_how_often_it_is_drawn(temperature, cut, expected):
    rows = jnp.broadcast_to(jnp.log(jnp.array([1 / 8, 1 / 2, 1 / 8, 1 / 4])), (1024, 4))
    # The first uniform picks among few tokens, the second within the only block of all.
    grid = jnp.stack([jnp.linspace(0, LARGEST_UNIFORM, 1024)] * 2, axis=1)
    drawn, logprob = (np.asarray(x) for x in scored_draw(rows, grid, temperature, **cut))
    assert (drawn == draw(rows, grid, temperature, **cut)).all()
    assert set(drawn.tolist()) == set(expected)
    for token, probability in expected.items():
        np.testing.assert_allclose(np.exp(logprob[drawn == token]), probability, rtol=1e-5)
        assert np.mean(drawn == token) == pytest.approx(probability, abs=2e-3)


@pytest.mark.parametrize("cut", [{}, {"top_k": 9}, {"top_p": 0.8}, {"top_k": 9, "top_p": 0.6}])
def test_scores_of_draws_from_a_large_vocabulary(logits_V, cut):
    rows = jnp.broadcast_to(logits_V, (512, V))
    uniform = jax.random.uniform(jax.random.key(6), (512, 2))
    for temperature in (0.5, 2.0):
        drawn, logprob = scored_draw(rows, uniform, temperature, **cut)
        expected = np.log(distribution(logits_V, temperature, **cut)[drawn])
        np.testing.assert_allclose(logprob, expected, rtol=1e-5, atol=1e-6)


def draws_of(key, triples):
    """The two uniforms at each (question, sample, position)."""
    question, sample, position = (np.array(column) for column in zip(*triples, strict=True))
    keys = row_keys(key, question.astype(np.uint32), sample)
    pairs = uniforms(keys, position).tolist()
    return {triple: tuple(pair) for triple, pair in zip(triples, pairs, strict=True)}


def test_uniforms_belong_to_question_sample_and_position_alone():
    triples = [(q, s, t) for q in (0, 1, 2**32 - 1) for s in (0, 1, 2) for t in (0, 1, 5)]
    drawn = draws_of(jax.random.key(3), triples)
    assert draws_of(jax.random.key(3), triples[::-1]) == drawn
    for triple in triples[::4]:
        assert draws_of(jax.random.key(3), [triple])[triple] == drawn[triple]
    numbers = [u for pair in drawn.values() for u in pair]
    assert len(set(numbers)) == 2 * len(triples)
    assert all(0 <= u < 1 for u in numbers)
    other = draws_of(jax.random.key(4), triples)
    assert not set(numbers) & {u for pair in other.values() for u in pair}


def test_uniforms_are_uniform():
    question, sample = np.divmod(np.arange(1 << 14), 4)
    keys = row_keys(jax.random.key(5), question.astype(np.uint32), sample)
    drawn = np.asarray(uniforms(keys, np.arange(1 << 14) % 7))
    for column in drawn.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.02
