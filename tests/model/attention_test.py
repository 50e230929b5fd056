"""Attention in parts against the plain formula: values, gradients, masks, dropout, memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.model import attention as module
from hir_jax.model.attention import attention
from hir_jax.model.config import T5Config
from hir_jax.model.positions import MASKED, bias_block, relative_bucket

CONFIG = T5Config(96, 16, 8, 32, 2, 2, num_heads=3, dropout_rate=0.25)


def plain(query, key, value, table, mask, causal=False):
    """softmax(q k + bias) v as it is written, with the biases of each pair looked up."""
    scores = jnp.einsum("bhqk,bhsk->bhqs", query, key)
    distance = np.arange(key.shape[2]) - np.arange(query.shape[2])[:, None]
    if table is not None:
        scores += table[relative_bucket(CONFIG, distance, not causal)].transpose(2, 0, 1)
    if causal:
        scores += np.where(distance > 0, MASKED, 0.0)
    if mask is not None:
        scores += jnp.where(mask, 0.0, MASKED)[:, None, None]
    return jnp.einsum("bhqs,bhsk->bhqk", jax.nn.softmax(scores), value)


def drawn(sources: int, queries: int, keys: int, with_table: bool = True) -> list[jax.Array | None]:
    """Query, key, value, table, and a mask of which one source sees a single key."""
    random = np.random.default_rng(0)
    heads, width = CONFIG.num_heads, CONFIG.d_kv
    of = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
    seen = random.integers(keys // 2, keys + 1, sources)
    seen[0] = 1
    return [
        of(sources, heads, queries, width),
        of(sources, heads, keys, width),
        of(sources, heads, keys, width),
        of(CONFIG.relative_attention_num_buckets, heads) if with_table else None,
        jnp.arange(keys) < seen[:, None],
    ]


def hold(monkeypatch, scores: int, **others: int) -> None:
    """So many scores in a part, and twice as many kept."""
    most = module.Most(kept=2 * scores, part=scores, source=scores, grouped=scores)
    monkeypatch.setattr(module, "CPU", most._replace(**others))


def with_gradients(function, args, mask):
    """Values and gradients by all that has one."""
    direction = jax.random.normal(jax.random.key(1), args[0].shape)
    loss = lambda args: jnp.sum(function(*args, mask) * direction)  # noqa: E731
    return jax.jit(lambda args: (function(*args, mask), jax.grad(loss)(args)))(args)


# 5 sources of 40 tokens are 24,000 scores: at once, in parts, in blocks of a source's queries.
@pytest.mark.parametrize("scores", [24_000, 23_999, 4_800, 4_799, 700, 1])
@pytest.mark.parametrize("kind", ["bidirectional", "causal", "cross"])
def test_any_cut_equals_the_plain_formula(monkeypatch, scores, kind):
    hold(monkeypatch, scores)
    causal = kind == "causal"
    queries = 16 if kind == "cross" else 40
    *args, mask = drawn(5, queries, 40, with_table=kind != "cross")
    mask = None if causal else mask
    made = with_gradients(lambda *a: attention(*a, causal, config=CONFIG), args, mask)
    expected = with_gradients(lambda *a: plain(*a, causal), args, mask)
    np.testing.assert_allclose(made[0], expected[0], atol=1e-5, rtol=0)
    for ours, theirs in zip(*map(jax.tree.leaves, (made[1], expected[1])), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("length", "scores"), [(17, 600), (128, 2**15), (512, 2**18), (2048, 2**19)]
)
def test_sources_of_all_lengths(monkeypatch, length, scores):
    hold(monkeypatch, scores)
    *args, mask = drawn(2, length, length)
    made = with_gradients(lambda *a: attention(*a, config=CONFIG), args, mask)
    expected = with_gradients(plain, args, mask)
    np.testing.assert_allclose(made[0], expected[0], atol=1e-5, rtol=0)
    for ours, theirs in zip(made[1], expected[1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=5e-5)


@pytest.mark.parametrize("scores", [700, 31_000])
def test_a_source_may_be_whole_that_is_larger_than_several_may_be(monkeypatch, scores):
    """4,800 scores, 15,360 with what pads their rows: one, or two of them, in a part."""
    hold(monkeypatch, scores, kept=1, source=10**5, grouped=10**5, multiple=128)
    *args, mask = drawn(4, 40, 40)
    made = with_gradients(lambda *a: attention(*a, config=CONFIG), args, mask)
    expected = with_gradients(plain, args, mask)
    for ours, theirs in zip(*map(jax.tree.leaves, (made, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("most", "sources", "heads", "length", "cut"),
    [
        (module.TPU, 32, 12, 512, (1, 512)),
        (module.TPU, 64, 6, 544, (1, 544)),
        (module.TPU, 32, 6, 512, (4, 512)),
        (module.TPU, 8, 32, 544, (1, 544)),
        (module.TPU, 128, 12, 128, (32, 128)),
        (module.TPU, 8, 12, 2048, (1, 256)),
        (module.TPU, 1, 32, 544, (1, 544)),
        (module.TPU, 128, 12, 256, (8, 256)),
        (module.CPU, 8, 12, 512, (1, 512)),
        (module.CPU, 8, 16, 544, (1, 272)),
        (module.GPU, 64, 12, 512, (16, 512)),
    ],
)
def test_how_much_is_computed_at_a_time(most, sources, heads, length, cut):
    whole = module._Cut(CONFIG, False, shards=1, sources=sources, queries=length)
    made = whole.within(most, heads, length)
    assert (made.sources, made.queries) == cut


def test_a_source_of_which_nothing_is_seen_gives_finite_numbers(monkeypatch):
    hold(monkeypatch, 700)
    *args, mask = drawn(3, 40, 40)
    made = with_gradients(
        lambda *a: attention(*a, config=CONFIG), args, mask & (jnp.arange(3) > 0)[:, None]
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(made))


@pytest.mark.parametrize("scores", [24_000, 9_600, 700])
def test_dropout_zeroes_a_share_and_its_gradient_is_that_of_what_was_kept(monkeypatch, scores):
    """By differences, since each cut draws other weights to drop."""
    hold(monkeypatch, scores)
    *args, mask = drawn(5, 40, 40)
    key = jax.random.key(2)

    @jax.jit
    def dropped(args):
        return attention(*args, mask, config=CONFIG, dropout_key=key)

    ones = [*args[:2], jnp.ones_like(args[2]), args[3]]
    sums = dropped(ones)[
        1:
    ]  # of weights that are kept, which sum to 1 on average; one key is rough
    assert abs(float(sums.mean()) - 1) < 0.02 and float(sums.std()) > 0.05
    np.testing.assert_array_equal(dropped(args), dropped(args))
    direction = jax.random.normal(jax.random.key(3), args[0].shape)
    loss = jax.jit(lambda args: jnp.sum(dropped(args) * direction))
    gradients = jax.grad(loss)(args)
    for i, gradient in enumerate(gradients):
        step = 1e-2 * jax.random.normal(jax.random.key(4 + i), gradient.shape)
        moved = [[*args[:i], args[i] + sign * step, *args[i + 1 :]] for sign in (1, -1)]
        difference = (float(loss(moved[0])) - float(loss(moved[1]))) / 2
        assert difference == pytest.approx(float(jnp.sum(gradient * step)), rel=0.02, abs=0.01)


def test_parts_are_shares_of_every_shard(monkeypatch):
    """Sources 0-3 lie on one shard, 4-7 on another: a part has two of each."""
    cut = module._Cut(CONFIG, False, shards=2, sources=2, queries=1)
    parts = cut.parts(jnp.arange(8))
    np.testing.assert_array_equal(parts, [[0, 1, 4, 5], [2, 3, 6, 7]])
    np.testing.assert_array_equal(cut.whole(parts), np.arange(8))
    hold(monkeypatch, 4_800)
    *args, mask = drawn(8, 40, 40)
    made = attention(*args, mask, config=dataclasses.replace(CONFIG, shards=2))
    np.testing.assert_allclose(made, plain(*args, mask), atol=1e-5, rtol=0)


def test_scores_of_all_sources_are_never_held(monkeypatch):
    hold(monkeypatch, 2**16)
    *args, mask = drawn(8, 512, 512)  # 6,291,456 scores, 25 MB

    def temporaries(function) -> int:
        grad = jax.jit(jax.grad(lambda args: jnp.sum(function(*args, mask))))
        return grad.lower(args).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(plain) > 50e6
    assert temporaries(lambda *a: attention(*a, config=CONFIG)) < 12e6


@pytest.mark.parametrize("causal", [False, True])
def test_biases_of_a_block_are_those_of_its_distances(causal):
    table = jax.random.normal(jax.random.key(0), (CONFIG.relative_attention_num_buckets, 3))
    block = bias_block(table, CONFIG, causal, jnp.int32(200), 100, 300)
    distance = np.arange(300) - np.arange(200, 300)[:, None]
    known = table[relative_bucket(CONFIG, distance, not causal)].transpose(2, 0, 1)
    expected = known + (np.where(distance > 0, MASKED, 0.0) if causal else 0.0)
    np.testing.assert_array_equal(block[0], expected)
