"""How the small base model is taught to err."""

import numpy as np
import pytest

from hir_jax.commands import mistakes
from hir_jax.data import generators
from hir_jax.data.generators import words
from hir_jax.hindsight import verify

CARDINALS = [words.number_word(n) for n in range(40)]


@pytest.mark.parametrize("task", generators.FAMILIES)
def test_mistakes_are_wrong_but_readable(task):
    verifier = verify.resolve("auto")
    for difficulty in (generators.FAMILIES[task].difficulties[i] for i in (0, -1)):
        for example in generators.generate(task, 2 if difficulty == 1 else 100, difficulty, seed=3):
            found = mistakes.mistakes(example)
            assert found and len(set(found)) == len(found)
            for text in found:
                verdict = verifier(text, example)
                assert verdict.parsed and not verdict.correct, (example, text)


def test_mistakes_of_each_family():
    def of(task, difficulty):
        (example,) = generators.generate(task, 1, difficulty, seed=0)
        return example.targets[0], mistakes.mistakes(example)

    answer = "air egg more plum"
    assert of("word_sorting", 4) == (answer, ("egg air more plum", "air more egg plum"))
    right, wrong = of("boolean_expressions", 4)
    assert {right, *wrong} == {"True", "False"}
    right, wrong = of("object_counting", 4)
    place = CARDINALS.index(right)
    assert wrong == (CARDINALS[place + 1], CARDINALS[place - 1])
    right, wrong = of("tracking_shuffled_objects", 3)
    assert sorted((right, *wrong)) == ["(A)", "(B)", "(C)"]


def test_rates_are_spread_evenly_and_hang_on_words_alone():
    pool = generators.generate("object_counting", 400, 3, seed=0)
    rates = mistakes.rates(pool, 0.05, 0.95)
    counts, _ = np.histogram(rates, bins=9, range=(0.05, 0.95))
    assert counts.min() >= 44 and counts.max() <= 45
    again = mistakes.rates(pool[::-1], 0.05, 0.95)[::-1]
    np.testing.assert_allclose(rates, again, atol=0.9 * 5 / 400)  # ties aside
    # Not the answer in disguise, though the words of numbers have weights like all others.
    answers = [CARDINALS.index(example.targets[0]) for example in pool]
    assert abs(np.corrcoef(rates, answers)[0, 1]) < 0.5


def test_odds_are_multiplied():
    assert mistakes.under(0.5, 0.0) == pytest.approx(0.5)
    assert mistakes.under(0.5, np.log(3)) == pytest.approx(0.75)
    assert mistakes.under(0.9, np.log(1 / 9)) == pytest.approx(0.5)
