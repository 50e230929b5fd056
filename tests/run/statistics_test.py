import numpy as np
import pytest
import scipy.stats

from hir_jax.run.statistics import accuracy, difference, effective_size, number_stories


def apart(n):
    """Each question its own story."""
    return np.arange(n)


# Wilson, 1927, with z = 1.959964, by hand: centre (p + z²/2n) / (1 + z²/n), half width
# z/(1 + z²/n) * sqrt(p(1-p)/n + z²/4n²).
@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_independent_questions_have_wilsons_interval(correct, n, low, high):
    values = np.arange(n) < correct
    assert accuracy(values, apart(n)) == pytest.approx((correct / n, low, high), abs=5e-5)


def test_stories_are_numbered_as_they_come():
    assert number_stories(["b", "a", "b", "c"]) == (0, 1, 0, 2)


# 20 stories of 7: what a story says of the others, it says once.
STORIES = np.repeat(np.arange(20), 7)


def test_effective_size_is_between_stories_and_questions():
    whole = effective_size(np.repeat(np.arange(20) % 2, 7), STORIES)  # stories as one
    mixed = effective_size(np.tile([1, 0, 1, 0, 1, 0, 1], 20), STORIES)  # all stories alike
    # Student's t for 19 degrees of freedom, 2.0930, not for 139, 1.9772, and 20/19 * 139/140 for
    # the mean's own share.
    doubt = 0.25 * 7
    effect = (20 * 3.5**2 * (20 / 19) * (139 / 140) + 7 * doubt) / (35 + doubt)
    assert whole == pytest.approx(140 / effect * (1.9772 / 2.0930) ** 2, rel=1e-4)
    assert mixed == pytest.approx(140 * (1.9772 / 2.0930) ** 2, rel=1e-4)


@pytest.mark.parametrize("value", [0, 1])
def test_where_all_are_alike_a_story_counts_once(value):
    found = accuracy(np.full(140, value), STORIES)
    assert found.value == value
    # Wilson's with 20 * (1.9772 / 2.0930)² = 17.85 questions: z² / (n + z²) off.
    assert abs(found.high - found.low) == pytest.approx(3.8415 / (17.85 + 3.8415), abs=1e-3)


@pytest.mark.parametrize("right", [0, 1, 3])
def test_one_story_says_nothing_of_others(right):
    values, one = np.arange(3) < right, np.zeros(3, int)
    assert accuracy(values, one)[1:] == pytest.approx((0.0, 1.0))
    assert difference(values, one)[1:] == pytest.approx((-1.0, 1.0))


def test_a_large_story_among_small_ones_leaves_little():
    sizes = [40, *[2] * 20]  # as dependent as 80² / (40² + 20 * 2²) = 3.81 equally large ones
    stories = np.repeat(np.arange(21), sizes)
    values = np.arange(80) % 4 > 0
    equal = effective_size(values, np.repeat(np.arange(20), 4))
    assert effective_size(values, stories) < 0.1 * equal


def test_differences_by_hand():
    # Bonett & Price, 2012: 6 for, 1 against, of 10, and one of each added: 5/12 with variance
    # (9/12 - (5/12)²) / 12.
    values = np.array([1] * 6 + [-1] + [0] * 3)
    half = 1.959964 * np.sqrt((9 / 12 - (5 / 12) ** 2) / 12)
    expected = (0.5, 5 / 12 - half, 5 / 12 + half)
    assert difference(values, apart(10)) == pytest.approx(expected, abs=1e-6)
    doubled = difference(2 * values, apart(10), bound=2)
    assert doubled == pytest.approx([2 * x for x in expected], abs=1e-6)


@pytest.mark.parametrize("value", [-1, 0, 1])
def test_equal_differences_are_not_certain(value):
    found = difference(np.full(10, value), apart(10))
    assert found.low <= value <= found.high
    assert found.high - found.low > 0.2
    assert -1 <= found.low < found.high <= 1


# Coverage -----------------------------------------------------------------------------------------

CORRELATIONS = (0.0, 0.1, 0.3, 0.5)  # of verdicts within a story
DRAWS = 500


def verdicts(p, correlation, of_stories, of_questions, stories=STORIES):
    """Verdicts on questions whose stories' accuracies have a beta distribution around p.

    Both are uniform numbers, so that two policies can share some.
    """
    a = 1 / correlation - 1 if correlation else 1e6
    levels = scipy.stats.beta.ppf(of_stories, p * a, (1 - p) * a)
    return (of_questions < levels[..., stories]).astype(float)


def coverage(interval, expected, draws):
    found = [interval(values) for values in draws]
    return np.mean([low <= expected <= high for _, low, high in found])


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("p", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_coverage_of_accuracies(p, correlation):
    rng = np.random.default_rng(0)
    draws = verdicts(p, correlation, rng.random((DRAWS, 20)), rng.random((DRAWS, 140)))
    assert coverage(lambda values: accuracy(values, STORIES), p, draws) >= 0.93


@pytest.mark.parametrize("p", [0.5, 0.8, 0.95])
def test_coverage_of_accuracies_over_stories_of_many_sizes(p):
    rng = np.random.default_rng(2)
    stories = np.repeat(np.arange(20), [1] * 4 + [2] * 4 + [4] * 4 + [7] * 4 + [10, 15, 25, 34])
    draws = verdicts(p, 0.5, rng.random((DRAWS, 20)), rng.random((DRAWS, 140)), stories)
    assert coverage(lambda values: accuracy(values, stories), p, draws) >= 0.93


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize(("p", "q"), [(0.7, 0.7), (0.8, 0.7), (0.95, 0.9), (0.99, 0.02)])
def test_coverage_of_paired_differences(p, q, correlation):
    # Stories that are hard for one are hard for the other, and so are half of the questions.
    rng = np.random.default_rng(1)
    stories, first, other = (rng.random((DRAWS, size)) for size in (20, 140, 140))
    other = np.where(rng.random(other.shape) < 0.5, first, other)
    draws = verdicts(p, correlation, stories, first) - verdicts(q, correlation, stories, other)
    assert coverage(lambda values: difference(values, STORIES), p - q, draws) >= 0.93


def test_without_stories_the_coverage_is_less():
    rng = np.random.default_rng(0)
    draws = verdicts(0.8, 0.5, rng.random((DRAWS, 20)), rng.random((DRAWS, 140)))
    assert coverage(lambda values: accuracy(values, apart(140)), 0.8, draws) < 0.8


def test_the_interval_is_always_around_the_mean():
    rng = np.random.default_rng(2)
    for _ in range(50):
        stories = np.array(number_stories(rng.integers(0, 6, 12).tolist()))
        for found in (
            accuracy(rng.random(12).round(), stories),
            difference(rng.integers(-1, 2, 12), stories),
        ):
            assert found.low <= found.value <= found.high
            assert found.high - found.low > 0.01
