"""T5 against torch's: from recorded golden files always, and live where torch is installed.

The rest needs no reference: stepwise decoding, the ring, masks, buckets, dropout, precision.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.decoding import sampler
from hir_jax.decoding.prompt import Prompt
from hir_jax.devices import sharding
from hir_jax.model import batching, hf, remat, t5
from hir_jax.model.cache import Cache, Lanes, init_cache, lengthen_sources, padded
from hir_jax.model.config import Params, T5Config
from hir_jax.model.positions import relative_bucket
from hir_jax.training import scoring
from tests import tiny

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RECORDED = sorted(folder.name for folder in GOLDEN.iterdir() if (folder / "expected.npz").exists())
VARIANTS = ("v1_0", "v1_1", "deep_decoder", "wide_heads")

CONFIG = T5Config(
    vocab_size=64,
    d_model=16,
    d_kv=4,
    d_ff=32,
    num_layers=2,
    num_decoder_layers=2,
    num_heads=4,
)

forward = jax.jit(t5.forward, static_argnames="config")
encode = jax.jit(t5.encode, static_argnames="config")
put_sources = jax.jit(t5.put_sources, static_argnames="config")
decode_step = jax.jit(t5.decode_step, static_argnames="config")


@functools.cache
def random_params(config: T5Config = CONFIG) -> Params:
    """Parameters with norms that are not 1 and position biases that matter."""
    rng = np.random.default_rng(0)
    shapes = t5.abstract_params(config)

    def draw(path, leaf):
        mean = 1.0 if path[-1].key == "scale" else 0.0
        return rng.normal(mean, 0.2, leaf.shape).astype(np.float32)

    return jax.device_put(jax.tree_util.tree_map_with_path(draw, shapes))


def random_tokens(seed: int, *shape: int) -> np.ndarray:
    """Tokens that are neither padding nor EOS."""
    return np.random.default_rng(seed).integers(2, CONFIG.vocab_size, shape)


SOURCE = random_tokens(0, 2, 10)
SOURCE_MASK = np.arange(10) < np.array([[10], [6]])


# Parity with torch ---------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[*RECORDED, *(f"live {name}" for name in VARIANTS)])
def recorded(request, tmp_path_factory):
    """(A model's folder, inputs and what torch makes of them)."""
    kind, _, variant = request.param.rpartition("live ")
    if kind == "" and request.param == variant:
        folder = GOLDEN / variant
        return folder, dict(np.load(folder / "expected.npz"))
    pytest.importorskip("torch", reason="torch is not installed; golden files stand in for it")
    from tests.golden import record

    folder = tmp_path_factory.mktemp(variant)
    model = record.build(variant, seed=1)
    model.save_pretrained(folder)
    return folder, record.reference(model, seed=1)


@pytest.fixture(scope="module")
def case(recorded):
    """(Parameters and config as we read them, inputs and torch's outputs)."""
    folder, expected = recorded
    config = hf.read_config(folder)
    return hf.load_params(folder, config), config, expected


def test_logits_are_torchs(case):
    params, config, expected = case
    inputs = t5.shift_right(config, expected["target"])
    logits = forward(params, config, expected["source"], expected["source_mask"], inputs)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4, rtol=0)


def greedy(case, eos_id: int | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    params, config, expected = case
    limit = expected["tokens"].shape[1]
    params = jax.tree.map(jnp.asarray, params)
    engine = sampler.Sampler(
        config=config,
        mesh=tiny.one_device(),
        buckets=(expected["source"].shape[1],),
        rows=2,  # fewer than prompts: rows begin at different times
        max_new_tokens=limit,
        eos_id=eos_id,
    )
    prompts = [
        Prompt(tuple(row[mask].tolist()), i)
        for i, (row, mask) in enumerate(
            zip(expected["source"], expected["source_mask"].astype(bool), strict=True)
        )
    ]
    outputs = [one.tokens for (one,) in engine(params, prompts, jax.random.key(0), 0.0)]
    return batching.pad(outputs, limit)[0], np.array([len(tokens) for tokens in outputs])


def test_64_greedy_tokens_are_torchs(case):
    tokens, _ = greedy(case, eos_id=-1)
    assert tokens.shape[1] == 64
    np.testing.assert_array_equal(tokens, case[2]["tokens"])


def test_greedy_rows_that_end_at_different_steps_are_torchs(case):
    eos_id, expected = int(case[2]["eos_id"]), case[2]["tokens_to_eos"]
    tokens, lengths = greedy(case, eos_id)
    np.testing.assert_array_equal(tokens[:, : expected.shape[1]], expected)
    assert not tokens[:, expected.shape[1] :].any()
    ends = [row.index(eos_id) + 1 if eos_id in row else 64 for row in expected.tolist()]
    assert len(set(ends)) >= 3
    np.testing.assert_array_equal(lengths, ends)


def scored(case, length: int) -> tuple[list[tuple], list[float]]:
    """The recorded (source, target) pairs, and their scores with sources padded to a length."""
    params, config, expected = case
    pairs = [
        (tuple(source[source_mask].tolist()), tuple(target[target_mask].tolist()))
        for source, source_mask, target, target_mask in zip(
            *(expected[name] for name in ("source", "source_mask", "target", "target_mask")),
            strict=True,
        )
    ]
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    buckets = batching.Buckets(source=(length,), target=(16,))
    return pairs, scoring.score(params, config, mesh, pairs, 4, buckets)


def test_scores_are_torchs(case):
    _, config, expected = case
    pairs, logprobs = scored(case, length=160)
    assert all(target[-1] == config.eos_token_id for _, target in pairs)
    np.testing.assert_allclose(logprobs, expected["logprob"], atol=1e-3, rtol=0)


# Relative positions --------------------------------------------------------------------------


# Worked by hand. Both ways, 16 buckets a direction, 8 of them exact; then bucket 8 + k begins at
# 8 * 2**(k/2) = 8, 11.3, 16, 22.6, 32, 45.3, 64, 90.5. Backwards, 16 are exact, then bucket 16 + k
# begins at 16 * 2**(3k/16).
BOTH_WAYS = [*range(8), 8, 12, 16, 23, 32, 46, 64, 91]
BACKWARDS = [*range(16), 16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]


def test_relative_buckets_are_those_worked_by_hand():
    distances = np.arange(-300, 301)
    both = np.searchsorted(BOTH_WAYS, abs(distances), "right") - 1 + 16 * (distances > 0)
    np.testing.assert_array_equal(relative_bucket(CONFIG, distances, True), both)
    back = np.searchsorted(BACKWARDS, np.maximum(-distances, 0), "right") - 1
    np.testing.assert_array_equal(relative_bucket(CONFIG, distances, False), back)


def test_relative_buckets_are_torchs():
    distances = np.arange(-300, 301)
    recorded = np.load(GOLDEN / "relative_buckets.npz")
    for name, bidirectional in (("both_ways", True), ("backwards", False)):
        buckets = relative_bucket(CONFIG, distances, bidirectional)
        np.testing.assert_array_equal(buckets, recorded[name])


def test_relative_buckets_are_torchs_live():
    pytest.importorskip("torch", reason="torch is not installed; golden files stand in for it")
    from tests.golden import record

    for bidirectional in (True, False):
        buckets = relative_bucket(CONFIG, np.arange(-300, 301), bidirectional)
        np.testing.assert_array_equal(buckets, record.torch_buckets(bidirectional))


# Decoding step by step -----------------------------------------------------------------------


def start(rows: int, length: int, config: T5Config = CONFIG) -> Cache:
    params = random_params()
    encoded = encode(params, CONFIG, SOURCE, SOURCE_MASK)
    return filled_cache(params, encoded, SOURCE_MASK, rows, length, config)


def filled_cache(params, encoded, mask, rows: int, length: int, config: T5Config = CONFIG) -> Cache:
    cache = init_cache(config, rows, length, len(mask), rows // len(mask), mask.shape[1])
    return put_sources(params, config, cache, encoded, mask, np.arange(len(mask)))


@pytest.mark.parametrize("together", [1, 2, 4])
def test_steps_equal_forward(together):
    params, inputs = random_params(), random_tokens(1, 4, 12)
    config = dataclasses.replace(CONFIG, heads_together=together)
    cache, steps = start(rows=4, length=12, config=config), []  # two of each source
    for t in range(12):
        logits, cache = decode_step(params, config, cache, inputs[:, t], t, np.full(4, t))
        steps.append(logits)
    sources = [np.repeat(of, 2, axis=0) for of in (SOURCE, SOURCE_MASK)]
    whole = forward(params, CONFIG, *sources, inputs)
    np.testing.assert_allclose(np.stack(steps, 1), whole, atol=1e-5, rtol=0)


# Rows of a ring of 6 columns, clock by clock: digits are ages, letters the targets read, of which
# a later one overwrites the columns of an earlier one. The clock does not begin at 0.
RING = """
    clock     3  4  5  6  7  8  9 10 11 12 13 14 15 16
    row 0    a0 a1 a2 a3 a4 a5 b0 b1 b2 b3 b4 b5  .  .
    row 1     .  . c0 c1 c2 c3 c4 c5  .  . d0 d1 d2 d3
"""


def test_rows_of_different_ages_in_a_ring_equal_fresh_rows():
    params = random_params()
    clocks, *rows = (line.split() for line in RING.strip().splitlines())
    targets = dict(zip("abcd", random_tokens(2, 4, 6), strict=True))
    sources = {name: row for row, names in enumerate(("ab", "cd")) for name in names}
    fresh = {
        name: forward(params, CONFIG, SOURCE[row, None], SOURCE_MASK[row, None], target[None])[0]
        for (name, target), row in zip(targets.items(), sources.values(), strict=True)
    }
    cache = start(rows=2, length=6)
    for clock, *cells in zip(clocks[1:], *(row[2:] for row in rows), strict=True):
        reads = [(targets[cell[0]], int(cell[1])) if cell != "." else ([9], 0) for cell in cells]
        tokens = np.array([target[age] for target, age in reads])
        ages = np.array([age for _, age in reads])
        logits, cache = decode_step(params, CONFIG, cache, tokens, int(clock), ages)
        for row, cell in enumerate(cells):
            if cell != ".":
                expected = fresh[cell[0]][int(cell[1])]
                np.testing.assert_allclose(logits[row], expected, atol=1e-5, rtol=0)


# The drawing of `Cache`, at clock 5: w is the column written, x those seen besides.
SEEN = """
    age 5     x  w  x  x
    age 1     x  w  .  .
    age 0     .  w  .  .
"""


def test_a_row_sees_as_many_columns_as_it_is_old():
    drawing = [line.split()[1:] for line in SEEN.strip().splitlines()]
    ages, drawn = np.array([int(line[0]) for line in drawing]), np.array([d[1:] for d in drawing])
    params = random_params()
    encoded = encode(params, CONFIG, SOURCE[:1], SOURCE_MASK[:1])
    cache = filled_cache(params, encoded, SOURCE_MASK[:1], rows=3, length=4)
    old = tuple(jnp.ones_like(values) for values in cache.values_NxGxTxC)

    def step(values):
        filled = cache.replace(values_NxGxTxC=values)
        logits, after = t5.decode_step(params, CONFIG, filled, np.full(3, 7), 5, ages)
        return logits[:, 5].sum(), after

    gradients, after = jax.jit(jax.grad(step, has_aux=True))(old)
    for layer, gradient in enumerate(gradients):
        np.testing.assert_array_equal(np.any(gradient != 0, axis=(1, 3)), drawn == "x")
        written = np.any(after.values_NxGxTxC[layer] != 1, axis=(1, 3))
        np.testing.assert_array_equal(written, drawn == "w")


def test_lanes_and_longer_sources_change_nothing():
    """Five rows on the lanes of two sources, one row idle; then room for longer sources."""
    params, inputs = random_params(), random_tokens(4, 6, 5)
    lane_of_row = np.array([3, 0, 5, 6, 1, 4])  # lane 2 is free, row 3 reads nothing
    source = np.array([1, 0, 1, 0, 0, 1])
    expected = forward(params, CONFIG, SOURCE[source], SOURCE_MASK[source], inputs)
    cache, lanes = start(rows=6, length=5), Lanes.make(lane_of_row, 6)
    for t in range(5):
        if t == 2:
            longer = SOURCE.shape[1] + 8
            missing = longer - cache.source_mask_BxS.shape[-1]
            cache = lengthen_sources(cache, missing, padded)
            assert cache.cross(0)[0].shape[2] == longer
        args = (cache, inputs[:, t], t, np.full(6, t), lanes)
        logits, cache = decode_step(params, CONFIG, *args)
        reading = lane_of_row < 6
        np.testing.assert_allclose(logits[reading], expected[reading, t], atol=1e-5, rtol=0)


# Masks and rows ------------------------------------------------------------------------------


def test_rows_that_share_a_source_equal_repeated_sources():
    params, inputs = random_params(), random_tokens(3, 6, 5)
    shared = forward(params, CONFIG, SOURCE, SOURCE_MASK, inputs)
    source, mask = np.repeat(SOURCE, 3, axis=0), np.repeat(SOURCE_MASK, 3, axis=0)
    repeated = forward(params, CONFIG, source, mask, inputs)
    np.testing.assert_allclose(shared, repeated, atol=1e-5, rtol=0)
    cache = start(rows=6, length=5)
    for t in range(5):
        logits, cache = decode_step(params, CONFIG, cache, inputs[:, t], t, np.full(6, t))
        np.testing.assert_allclose(logits, repeated[:, t], atol=1e-5, rtol=0)


def test_logits_do_not_depend_on_later_inputs():
    # Every position reads a token of its own, so the gradient by that token's embedding tells
    # which positions the logits depend on.
    params, inputs = random_params(), np.arange(40, 48)[None]
    source = np.arange(2, 12)[None]

    def logit(embedding_VxD):
        changed = params | {"shared": embedding_VxD}
        return t5.forward(changed, CONFIG, source, SOURCE_MASK[:1], inputs)[0, :, 5]

    jacobian_TxVxD = jax.jit(jax.jacrev(logit))(params["shared"])
    depends_TxT = np.any(jacobian_TxVxD[:, inputs[0]] != 0, axis=-1)
    np.testing.assert_array_equal(depends_TxT, np.tri(8, dtype=bool))
    assert np.any(jacobian_TxVxD[:, source[0]] != 0, axis=-1).all()


def test_what_stands_in_the_padding_changes_nothing():
    params, inputs = random_params(), random_tokens(4, 2, 5)
    logits = forward(params, CONFIG, SOURCE, SOURCE_MASK, inputs)
    blank = forward(params, CONFIG, SOURCE * SOURCE_MASK, SOURCE_MASK, inputs)
    np.testing.assert_array_equal(logits, blank)
    wider = [np.pad(array, ((0, 0), (0, 6))) for array in (SOURCE, SOURCE_MASK)]
    np.testing.assert_allclose(forward(params, CONFIG, *wider, inputs), logits, atol=1e-5, rtol=0)


def test_each_layers_own_biases_are_learned_by_whichever_way_activations_are_kept():
    inputs = random_tokens(7, 2, 5)

    def gradient(keeps: str) -> Params:
        config = dataclasses.replace(CONFIG, layer_biases=True, remat=keeps)

        def loss(params: Params) -> jax.Array:
            return t5.forward(params, config, SOURCE, SOURCE_MASK, inputs)[..., 5].sum()

        return jax.jit(jax.grad(loss))(random_params(config))

    kept, again = gradient(""), gradient(remat.INPUTS)
    for stack in ("encoder", "decoder"):
        for layer in ("block_0", "block_1"):
            assert np.abs(kept[stack][layer]["relative_bias"]).max() > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), kept, again)


# Dropout and precision -----------------------------------------------------------------------


def test_dropout_is_decided_by_its_key():
    config = dataclasses.replace(CONFIG, num_layers=1, num_decoder_layers=1)
    params, inputs = random_params(config), random_tokens(5, 2, 5)

    def run(key):
        return np.asarray(forward(params, config, SOURCE, SOURCE_MASK, inputs, key))

    # Of the generators this one compiles fastest.
    first, second = (jax.random.key(seed, impl="rbg") for seed in (1, 2))
    np.testing.assert_array_equal(run(first), run(first))
    np.testing.assert_array_equal(run(None), run(None))
    assert np.abs(run(first) - run(second)).max() > 0.1
    assert np.abs(run(first) - run(None)).max() > 0.1


def test_bfloat16_stays_near_float32():
    inputs = random_tokens(6, 2, 5)
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    exact = forward(random_params(), CONFIG, SOURCE, SOURCE_MASK, inputs)
    rounded = forward(random_params(), config, SOURCE, SOURCE_MASK, inputs)
    assert rounded.dtype == exact.dtype == jnp.float32
    error = np.abs(rounded - exact).mean() / np.std(exact)
    assert 1e-4 < error < 0.05
