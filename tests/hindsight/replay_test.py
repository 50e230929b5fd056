"""The replay buffer: what is kept, in which order, and what is viewed."""

import dataclasses
import itertools

import numpy as np
import pytest

from hir_jax.errors import UserError
from hir_jax.hindsight import replay
from hir_jax.hindsight.relabel import Goal, Pair
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
        ("count", places(FIRST + SECOND)),
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


def test_counted_repeats_are_the_newest_and_know_how_often_they_were_drawn():
    buffer = fill(FIRST, SECOND, THIRD, dedup="count")
    samples = replay.distinct(buffer)
    assert samples == fill(FIRST, SECOND, THIRD, dedup="all")
    times = dict(zip(places(samples), replay.times_drawn(samples, buffer), strict=True))
    # "x" to q was drawn three times, "z" twice; "x" to r is another output.
    assert times == {
        (1, "q", 2): 1,
        (1, "r", 0): 1,
        (2, "q", 0): 3,
        (2, "q", 2): 2,
        (3, "r", 0): 1,
    }
    assert replay.times_drawn(samples[:1], buffer) == [1]
    # What fell out of the window is not counted.
    recent = fill(FIRST, SECOND, THIRD, keep_iterations=2, dedup="count")
    assert replay.times_drawn(replay.distinct(recent), recent) == [1, 2, 1]


@pytest.mark.parametrize(
    ("hold_out", "max_size", "kept"), [(0.1, 0, 180), (0.1, 30, 30), (1, 0, 0)]
)
def test_a_share_held_out(hold_out, max_size, kept):
    options = {"max_size": max_size, "hold_out": hold_out}
    part = replay.view(MANY, **options, seed=0)
    assert len(set(part)) == kept and set(part) <= set(MANY)
    assert places(part) == sorted(places(part))
    assert replay.view(MANY, **options, seed=0) == part
    assert not kept or replay.view(MANY, **options, seed=1) != part


def test_the_share_held_out_is_rounded_up():
    assert len(replay.view(MANY[:11], max_size=0, hold_out=0.1, seed=0)) == 9


def pairs(*correct):
    return [Pair(f"q{i}", (), (2, 1), Goal(c)) for i, c in enumerate(correct)]


def weights(given):
    return [pair.weight for pair in given]


def test_weights_by_counts_are_one_on_average():
    given = pairs(True, False, False, False)
    found = replay.counted(given, [5, 1, 1, 1])
    assert weights(found) == [2.5, 0.5, 0.5, 0.5]
    assert [(p.example_id, p.correct) for p in found] == [(p.example_id, p.correct) for p in given]
    assert replay.counted([], []) == []


def test_a_set_share_of_right_pairs():
    given = pairs(True, False, False, False)
    np.testing.assert_allclose(weights(replay.shared(given, 0.5)), [2, 2 / 3, 2 / 3, 2 / 3])
    # Counts say what counts for how much among the wrong ones: 1 : 1 : 2 of the other half.
    half = replay.shared(replay.counted(given, [7, 1, 1, 2]), 0.5)
    np.testing.assert_allclose(weights(half), [2, 0.5, 0.5, 1])
    assert weights(replay.shared(given, 1.0)) == [4, 0, 0, 0]
    assert replay.shared(given, 0.0) == given
    # Where there is no other kind, there is no share to set.
    for same in (pairs(False, False), pairs(True, True), []):
        assert replay.shared(same, 0.5) == same


def test_summary_of_pairs_is_by_weight():
    given = replay.counted(pairs(True, False, False, False), [5, 1, 1, 1])
    assert replay.pairs_summary(given) == {"pairs": 4, "questions": 4, "correct": 0.625}
    assert replay.pairs_summary([]) == {"pairs": 0, "questions": 0, "correct": 0}


def test_a_good_models_buffer_is_mostly_wrong_unless_repeats_count():
    """Right in 80%, R = 4, K = 4: each question's answer, and a mistake of its own each time."""
    rng = np.random.default_rng(0)
    buffers = dict.fromkeys(("all", "count"), ())
    drawn = []
    for iteration in range(1, 5):
        made = []
        for question, index in itertools.product(range(200), range(4)):
            right = bool(rng.random() < 0.8)
            text = "answer" if right else f"mistake {rng.integers(1000)}"
            made.append(sample(iteration, f"q{question:03}", index, text, correct=right))
        drawn += made
        for mode in buffers:
            buffers[mode] = replay.add(buffers[mode], made, keep_iterations=4, dedup=mode)

    def made_of(samples):
        return [Pair(s.example_id, (), s.tokens, Goal(s.correct)) for s in samples]

    def share(found):
        assert np.mean([pair.weight for pair in found]) == pytest.approx(1)
        return replay.pairs_summary(found)["correct"]

    whole = replay.summary(drawn)["correct"]
    assert 0.78 < whole < 0.82
    kept = made_of(buffers["all"])
    assert share(replay.shared(kept, 0.0)) < 0.3
    assert share(replay.shared(kept, 0.6)) == pytest.approx(0.6)
    samples = replay.distinct(buffers["count"])
    assert samples == buffers["all"]
    times = replay.times_drawn(samples, buffers["count"])
    assert share(replay.counted(made_of(samples), times)) == pytest.approx(whole)
    assert share(replay.shared(replay.counted(kept, times), 0.9)) == pytest.approx(0.9)


def test_summary():
    samples = [
        sample(1, "q", 0, "x", correct=True),
        sample(1, "q", 1, "x", correct=True),
        sample(2, "q", 0, "x", correct=True),
        sample(1, "r", 0, "x", parsed=False),
        sample(1, "r", 1, "y", parsed=False),
    ]
    found = replay.summary(samples)
    assert found == {
        "size": 5,
        "questions": 2,
        "correct": 0.6,
        "parsed": 0.6,
        "repeated": 0.4,
        "reward": pytest.approx(0.6),
        "reward_std": pytest.approx(0.24**0.5),
        "tokens_mean": 2,
        "tokens_max": 2,
        "all_right": pytest.approx(2 / 3),  # of q in each of two iterations, and r
        "all_wrong": pytest.approx(1 / 3),
        "pass@1": pytest.approx(2 / 3),
        "pass@2": 0.5,  # of the two groups of two
    }
    nothing = replay.summary(())
    assert nothing == dict.fromkeys(nothing, 0)
    assert list(nothing) == [name for name in found if not name.startswith("pass")]


def test_summary_of_graded_samples():
    made = [
        ((2, 1), 1.0, {"short": True}, {"exact": 1.0, "my:f": 1.0}),
        ((2, 3, 4, 1), 0.5, {"short": False}, {"exact": 0.0, "my:f": 1.0}),
        ((2, 3, 1), 0.5, {"short": True}, {"exact": 1.0, "my:f": 0.0}),
        ((1,), 0.0, {}, {}),  # one that could not be read: no verifier was asked
    ]
    samples = [
        dataclasses.replace(
            sample(1, "q", index, str(index), correct=reward >= 0.5),
            tokens=tokens,
            reward=reward,
            facts=facts,
            rewards=rewards,
        )
        for index, (tokens, reward, facts, rewards) in enumerate(made)
    ]
    found = replay.summary(samples)
    assert (found["reward"], found["reward_std"]) == (0.5, pytest.approx(0.125**0.5))
    assert (found["tokens_mean"], found["tokens_max"]) == (2.5, 4)
    assert (found["reward_exact"], found["reward_my:f"], found["fact_short"]) == (0.5, 0.5, 0.5)
    assert (found["all_right"], found["all_wrong"]) == (0, 0)
    assert [found[f"pass@{k}"] for k in (1, 2, 4)] == [0.75, 1, 1]
    assert "pass@3" not in found and "pass@8" not in found


@pytest.mark.parametrize(("n", "right"), [(1, 0), (1, 1), (4, 1), (5, 2), (6, 0), (6, 6)])
def test_pass_at_k_is_that_of_all_choices_of_k(n, right):
    verdicts = [True] * right + [False] * (n - right)
    for k in range(1, n + 1):
        chosen = [any(part) for part in itertools.combinations(verdicts, k)]
        assert replay.pass_at(k, n, right) == pytest.approx(np.mean(chosen))


def test_pass_at_k_of_very_many():
    assert replay.pass_at(1024, 4096, 1) == pytest.approx(0.25)
    assert replay.pass_at(1, 4096, 4096) == 1.0


def test_bad_settings():
    with pytest.raises(UserError, match=r"'always'.*all, iteration, none, count"):
        replay.add((), FIRST, keep_iterations=1, dedup="always")
    with pytest.raises(UserError, match=r"keep_iterations.*-1"):
        replay.add((), FIRST, keep_iterations=-1, dedup="all")
    with pytest.raises(UserError, match=r"max_size.*-1"):
        replay.view((), max_size=-1, seed=0)
