"""The replay buffer: what is kept, in which order, and what is viewed."""

import dataclasses
import itertools

import numpy as np
import pytest

from hir_jax.errors import UserError
from hir_jax.hindsight import replay
from hir_jax.hindsight.sample import Sample


def sample(iteration, example_id, index, text, correct=False, parsed=True):
    return Sample(example_id, index, (2, 1), text, correct, parsed, -1.0, iteration)


def places(buffer):
    return [(s.iteration, s.example_id, s.index) for s in buffer]


FIRST = [sample(1, "q", 0, "x"), sample(1, "q", 1, "x"), sample(1, "q", 2, "y")]
FIRST += [sample(1, "r", 0, "x")]
SECOND = [sample(2, "q", 0, "x"), sample(2, "q", 1, "z"), sample(2, "q", 2, "z")]
THIRD = [sample(3, "r", 0, "w")]


def fill(*iterations, keep_iterations=0, dedup="all"):
    buffer = ()
    for samples in iterations:
        buffer = replay.add(buffer, samples, keep_iterations=keep_iterations, dedup=dedup)
    return buffer


@pytest.mark.parametrize(
    ("dedup", "expected"),
    [
        ("all", [(1, "q", 2), (1, "r", 0), (2, "q", 0), (2, "q", 2)]),
        ("iteration", [(1, "q", 1), (1, "q", 2), (1, "r", 0), (2, "q", 0), (2, "q", 2)]),
        ("none", places(FIRST + SECOND)),
    ],
)
def test_dedup_keeps_the_newest_of_each_repeat(dedup, expected):
    assert places(fill(FIRST, SECOND, dedup=dedup)) == expected


def test_a_repeated_output_stays_in_the_window():
    assert places(fill(FIRST, SECOND, THIRD, keep_iterations=2)) == [
        (2, "q", 0),
        (2, "q", 2),
        (3, "r", 0),
    ]
    assert places(fill(FIRST, SECOND, THIRD, keep_iterations=1)) == [(3, "r", 0)]
    assert len(fill(FIRST, SECOND, THIRD, keep_iterations=3)) == 5


def test_an_iteration_without_samples_changes_nothing():
    buffer = fill(FIRST, SECOND, keep_iterations=2)
    assert replay.add(buffer, [], keep_iterations=2, dedup="all") == buffer
    assert replay.add((), [], keep_iterations=2, dedup="all") == ()


@pytest.mark.parametrize("dedup", replay.DEDUP_MODES)
def test_order_does_not_depend_on_the_input(dedup):
    expected = fill(FIRST, SECOND, dedup=dedup)
    assert places(expected) == sorted(places(expected))
    for order in itertools.islice(itertools.permutations(FIRST + SECOND), 0, None, 97):
        assert fill(order[:4], order[4:], dedup=dedup) == expected


MANY = tuple(sample(1 + i // 50, f"q{i % 50:02}", 0, str(i)) for i in range(200))


def test_view_is_a_random_part_in_order():
    part = replay.view(MANY, max_size=30, seed=0)
    assert len(set(part)) == 30 and set(part) <= set(MANY)
    assert places(part) == sorted(places(part))
    assert replay.view(MANY, max_size=30, seed=0) == part
    assert replay.view(MANY, max_size=30, seed=1) != part
    later = tuple(dataclasses.replace(s, iteration=s.iteration + 1) for s in MANY)
    assert [s.text for s in replay.view(later, max_size=30, seed=0)] != [s.text for s in part]


def test_view_takes_all_iterations_alike():
    counts = sum(
        np.bincount([s.iteration for s in replay.view(MANY, max_size=40, seed=seed)], minlength=5)
        for seed in range(100)
    )
    np.testing.assert_allclose(counts[1:], 1000, rtol=0.1)


@pytest.mark.parametrize("max_size", [0, 200, 201])
def test_view_of_all(max_size):
    assert replay.view(MANY, max_size=max_size, seed=0) == MANY


def test_summary():
    samples = [
        sample(1, "q", 0, "x", correct=True),
        sample(1, "q", 1, "x", correct=True),
        sample(2, "q", 0, "x", correct=True),
        sample(1, "r", 0, "x", parsed=False),
        sample(1, "r", 1, "y", parsed=False),
    ]
    assert replay.summary(samples) == {
        "size": 5,
        "questions": 2,
        "correct": 0.6,
        "parsed": 0.6,
        "repeated": 0.4,
    }
    assert replay.summary(()) == dict.fromkeys(replay.summary(samples), 0)


def test_bad_settings():
    with pytest.raises(UserError, match=r"'always'.*all, iteration, none"):
        replay.add((), FIRST, keep_iterations=1, dedup="always")
    with pytest.raises(UserError, match=r"keep_iterations.*-1"):
        replay.add((), FIRST, keep_iterations=-1, dedup="all")
    with pytest.raises(UserError, match=r"max_size.*-1"):
        replay.view((), max_size=-1, seed=0)
