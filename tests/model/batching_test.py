import itertools

import numpy as np
import pytest

from hir_jax.errors import UserError
from hir_jax.model import batching
from hir_jax.model.batching import Buckets
from hir_jax.training.batch import TWO_PROMPTS, Layout, TrainingExample, make_batch, plan_batches


def padded_total(lengths, buckets):
    return sum(batching.bucket_of(length, buckets) for length in lengths)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_best_lengths_pad_no_more_than_any_other_table(count):
    rng = np.random.default_rng(count)
    for _ in range(12):
        lengths = rng.integers(1, 57, size=rng.integers(1, 20)).tolist()
        best = batching.best_lengths(lengths, count)
        assert len(best) <= count and list(best) == sorted(set(best))
        assert all(bucket % 8 == 0 for bucket in best)
        tables = [
            table
            for size in range(1, count + 1)
            for table in itertools.combinations(range(8, 57, 8), size)
            if table[-1] >= max(lengths)
        ]
        assert padded_total(lengths, best) == min(padded_total(lengths, t) for t in tables)


def test_best_lengths_of_a_worked_case():
    # Rounded: 8, 8, 8, 16, 40. One bucket costs 5 * 40; {8, 40} 24 + 80; {16, 40} 64 + 40.
    assert batching.best_lengths([3, 8, 1, 9, 37], 1) == (40,)
    assert padded_total([3, 8, 1, 9, 37], batching.best_lengths([3, 8, 1, 9, 37], 2)) == 104
    assert batching.best_lengths([3, 8, 1, 9, 37], 3) == (8, 16, 40)
    assert batching.best_lengths([3, 8, 1, 9, 37], 9) == (8, 16, 40)  # no more than are of use


def test_make_buckets_leaves_room_for_sub_outputs():
    buckets = batching.make_buckets([20, 30, 62], max_target=33, source_count=2, target_count=3)
    # 62 rounds up to 64; 64 + 33 to 104. Targets: 33 -> 40, 16, 8.
    assert buckets == Buckets((32, 64, 104), (8, 16, 40))


def test_make_buckets_of_short_targets_has_no_bucket_twice():
    assert batching.make_buckets([5], 3, source_count=3, target_count=3) == Buckets((8, 16), (8,))


def test_bucket_of_takes_the_shortest_that_holds():
    assert [batching.bucket_of(n, (8, 16)) for n in (0, 8, 9, 16)] == [8, 8, 16, 16]
    with pytest.raises(ValueError, match="length 17 is beyond the longest bucket, 16"):
        batching.bucket_of(17, (8, 16))


def test_round_up():
    assert [batching.round_up(n, 8) for n in (0, 1, 8, 9)] == [0, 8, 8, 16]


BUCKETS = Buckets((8, 16, 32), (8, 16))


def random_lengths(count):
    rng = np.random.default_rng(0)
    sources, targets = rng.integers(1, 33, count), rng.integers(1, 17, count)
    return list(zip(sources.tolist(), targets.tolist(), strict=True))


@pytest.mark.parametrize("count, batch_size", [(0, 4), (1, 4), (4, 4), (37, 5), (40, 8)])
def test_plan_covers_each_example_once_in_shapes_that_hold_it(count, batch_size):
    lengths = random_lengths(count)
    plan = plan_batches(lengths, batch_size, BUCKETS, np.random.default_rng(1))
    covered = [i for indices, _ in plan for i in indices.tolist()]
    assert sorted(covered) == list(range(count))
    short = [indices for indices, _ in plan if len(indices) < batch_size]
    assert len(plan) == -(-count // batch_size) and len(short) == bool(count % batch_size)
    for indices, (source, target) in plan:
        assert source == max(batching.bucket_of(lengths[i][0], BUCKETS.source) for i in indices)
        assert target == max(batching.bucket_of(lengths[i][1], BUCKETS.target) for i in indices)


def test_plan_is_decided_by_its_generator():
    def plan(seed):
        batches = plan_batches(random_lengths(40), 8, BUCKETS, np.random.default_rng(seed))
        return [(indices.tolist(), shape) for indices, shape in batches]

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)
    # Another epoch groups examples anew; it does not only reorder the same batches.
    assert {frozenset(i) for i, _ in plan(1)} != {frozenset(i) for i, _ in plan(2)}


def test_any_example_may_be_in_the_short_batch():
    # Short ones, long in source, long in both; 4 more than four batches of 9 hold.
    lengths = [(5, 5)] * 13 + [(30, 5)] * 13 + [(30, 15)] * 14
    times = np.zeros(len(lengths))
    for seed in range(500):
        plan = plan_batches(lengths, 9, BUCKETS, np.random.default_rng(seed))
        assert sorted(i for indices, _ in plan for i in indices) == list(range(len(lengths)))
        (short,) = (indices for indices, _ in plan if len(indices) < 9)
        assert len(short) == 4
        times[short] += 1
    # 500 draws of 4 in 40: 50 each, with a deviation of 7; of 5 in the mean of a kind.
    assert times.min() > 20 and times.max() < 80
    for kind in (slice(13), slice(13, 26), slice(26, 40)):
        assert abs(times[kind].mean() - 50) < 15


def test_a_drawn_short_batch():
    class Draws:
        def permutation(self, count):
            return np.arange(count)

        def integers(self, count):
            return 3

    lengths = [(8, 5)] * 7 + [(16, 5)] * 3  # the drawing of `plan_batches`
    plan = plan_batches(lengths, 4, BUCKETS, Draws())
    assert [(indices.tolist(), shape[0]) for indices, shape in plan] == [
        ([3, 4], 8),
        ([0, 1, 2, 5], 8),
        ([6, 7, 8, 9], 16),
    ]


def test_full_batches_are_still_of_neighbours_in_length():
    lengths = [(5, 5)] * 100 + [(30, 15)] * 101
    for seed in range(20):
        plan = plan_batches(lengths, 10, BUCKETS, np.random.default_rng(seed))
        full = [shape for indices, shape in plan if len(indices) == 10]
        assert set(full) == {(8, 8), (32, 16)}
        assert full.count((8, 8)) >= 9  # one batch at most holds both kinds


def test_plan_groups_alike_lengths_and_mixes_the_order_of_batches():
    lengths = [(5, 5)] * 16 + [(30, 5)] * 16 + [(30, 15)] * 16
    plan = plan_batches(lengths, 8, BUCKETS, np.random.default_rng(0))
    shapes = [shape for _, shape in plan]
    assert sorted(shapes) == [(8, 8)] * 2 + [(32, 8)] * 2 + [(32, 16)] * 2
    assert shapes != sorted(shapes)


def test_make_batch_pads_rows_and_masks_what_is_real():
    examples = [
        TrainingExample((5, 6, 1), (7, 1), (9, 1), True),
        TrainingExample((8, 1), (3, 0, 4, 1), (2, 0, 1), False, 0.5),  # token 0 is real in a row
    ]
    batch = make_batch(examples, 3, (4, 3), TWO_PROMPTS)
    assert batch.sources_BxPxS.tolist() == [
        [[5, 6, 1, 0], [7, 1, 0, 0]],
        [[8, 1, 0, 0], [3, 0, 4, 1]],
        [[0, 0, 0, 0], [0, 0, 0, 0]],
    ]
    assert batch.source_masks_BxPxS.sum(axis=2).tolist() == [[3, 2], [2, 4], [0, 0]]
    assert batch.source_masks_BxPxS[1, 1].all()
    assert batch.targets_BxT.tolist() == [[9, 1, 0], [2, 0, 1], [0, 0, 0]]
    assert batch.target_mask_BxT.tolist() == [[True, True, False], [True] * 3, [False] * 3]
    assert batch.correct_B.tolist() == [True, False, False]
    assert batch.weight_B.tolist() == [1.0, 0.5, 0.0]
    kinds = [x.dtype for x in batch[:-1]]
    assert kinds == [np.int32, np.bool_, np.int32, np.bool_, np.bool_, np.float32]
    assert batch.scalars == {}


def test_make_batch_has_what_its_layout_names_alone():
    examples = [
        TrainingExample((5, 1), (7, 1), (9, 8, 1), True, 1.0, {"a": 2.0, "t": (0.5, 1.5, 2.5)}),
        TrainingExample((5, 1), (7, 1), (9,), True, 1.0, {"a": 3.0, "t": [4.5]}),
    ]
    batch = make_batch(examples, 3, (2, 4), Layout(of_rows=("a",), of_tokens=("t",)))
    assert batch.sources_BxPxS.shape == (3, 1, 2)
    assert batch.scalars["a"].tolist() == [2.0, 3.0, 0.0]
    assert batch.scalars["t"].tolist() == [[0.5, 1.5, 2.5, 0], [4.5, 0, 0, 0], [0] * 4]
    assert {values.dtype for values in batch.scalars.values()} == {np.dtype(np.float32)}
    short = examples[1]._replace(scalars={"a": 3.0, "t": (4.5, 1.0)})
    with pytest.raises(UserError, match="expected for t 1 numbers"):
        make_batch([short], 3, (2, 4), Layout(of_tokens=("t",)))


def test_pad_refuses_a_row_beyond_its_length():
    with pytest.raises(ValueError):
        batching.pad([(1, 2, 3)], 2)


def test_buckets_come_from_the_shortest_on_each_in_parts():
    found = batching.by_bucket([9, 3, 16, 8, 1, 2], (8, 16, 24), size=3)
    assert list(found) == [(8, [1, 3, 4]), (8, [5]), (16, [0, 2])]


def test_chunks_are_consecutive():
    assert list(batching.chunks([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(batching.chunks([], 2)) == []
