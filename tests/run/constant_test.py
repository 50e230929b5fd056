import dataclasses

import pytest

from hir_jax.data import Example
from hir_jax.hindsight import verify
from hir_jax.hindsight.verifiers import texts
from hir_jax.run import constant
from hir_jax.run.constant import Constant, best_constant
from hir_jax.run.judging import judge


def free(name, *answers):
    return Example(name, f"q{name}", (), answers, "task", name)


def choice(name, options, *answers):
    return Example(name, f"q{name}", options, answers, "task", name)


def best(examples, verifier="auto"):
    return best_constant(tuple(examples), verify.resolve(verifier))


def test_free_answers():
    # "4" is right for three of four questions, though it is listed first for two only.
    examples = [free("1", "four", "4"), free("2", "4"), free("3", "5"), free("4", "4", "four")]
    assert best(examples) == Constant("4", 0.75, tried=3, candidates=3)


def test_an_answer_given_twice_counts_once():
    assert best([free("1", "a", "a", "a"), free("2", "b"), free("3", "b")]).accuracy == 2 / 3


def test_spellings_that_the_verifier_takes_for_one_count_together():
    # Each spelling is the target of few; "no" is right for nine of ten.
    spellings = ("no", "No", "NO", "no.", "No.", '"no"', " no", "'no'", "nO")
    examples = [free(str(i), text) for i, text in enumerate(spellings)] + [free("9", "yes")]
    found = best(examples)
    assert found.accuracy == 0.9
    assert texts.forms(found.text) >= {"no"}


def test_numbers_are_read():
    examples = [
        free("1", "12"),
        free("2", "twelve"),
        free("3", "12.0"),
        free("4", "7"),
        free("5", "7"),
    ]
    assert best(examples, "number").accuracy == 0.6


def test_the_text_of_an_option_may_beat_every_letter():
    examples = [
        choice("1", ("no", "yes"), "no"),
        choice("2", ("yes", "no"), "no"),
        choice("3", ("no", "yes"), "yes"),
        choice("4", ("yes", "no"), "no"),
    ]
    assert best(examples) == Constant("no", 0.75, tried=4, candidates=4)


def test_a_letter_may_beat_every_text():
    examples = [choice(str(i), (f"w{i}", f"v{i}"), f"w{i}") for i in range(4)]
    assert best(examples).text == "(A)"
    assert best(examples).accuracy == 1.0


def test_an_option_that_is_never_right_here_is_tried_too():
    # The verifier of this test takes it for right; nothing can be known beforehand.
    examples = [choice(str(i), ("odd", f"w{i}"), f"w{i}") for i in range(3)]
    found = best(examples, "tests.run.constant_test:is_odd")
    assert (found.text, found.accuracy) == ("odd", 1.0)


def is_odd(output, example):
    return output == "odd"


def is_even(output, example):
    return output.isdigit() and int(output) % 2 == 0


def test_of_many_answers_the_best_is_found_in_rounds(monkeypatch):
    # One even text among 401, and it comes last: found though most are never judged on all.
    examples = [free(str(i), str(2 * i + 1)) for i in range(400)] + [free("e", "1000")]
    found = best(examples, "tests.run.constant_test:is_even")
    assert (found.text, found.accuracy, found.candidates) == ("1000", 1.0, 401)
    assert found.tried < 401


def test_of_many_answers_the_most_frequent_is_found_in_rounds(monkeypatch):
    monkeypatch.setattr(constant, "CALLS", 100)
    examples = [free(str(i), f"w{i}") for i in range(300)]
    examples += [free(f"a{i}", "seldom") for i in range(3)]
    best_constant.cache_clear()
    found = best(examples)
    assert (found.text, found.accuracy) == ("seldom", 3 / 303)
    assert found.tried < found.candidates == 301


def test_the_number_of_verdicts_is_bounded(monkeypatch):
    calls = []

    def counted(output, example):
        calls.append(output)
        return verify.exact(output, example)

    examples = tuple(free(str(i), f"w{i}") for i in range(1000))
    best_constant(examples, counted)
    assert len(calls) < 10 * max(constant.CALLS_OF_USERS, 10 * 1000)


def test_a_built_in_verifier_judges_questions_with_the_same_answers_once(monkeypatch):
    judged = []
    monkeypatch.setattr(
        constant,
        "judge",
        lambda v, examples, texts: (
            judged.extend(examples)
            or [[v(text, e) for text in own] for e, own in zip(examples, texts, strict=True)]
        ),
    )
    examples = tuple(free(str(i), "True" if i % 3 else "False") for i in range(90))
    assert best_constant(examples, verify.exact).accuracy == pytest.approx(2 / 3)
    assert len(judged) == 2
    # A verifier of the user's may look at the question.
    best_constant(examples, lambda output, e: verify.exact(output, e))
    assert len(judged) == 92


@pytest.mark.parametrize("name", ["final:exact", "math", "chrf:0.6", "exact,final"])
def test_all_that_is_ours_looks_at_answers_alone(name):
    """Else 9,000 questions of two answers would take 18,000 verdicts."""
    needed = {"math": "math_verify", "chrf:0.6": "sacrebleu"}.get(name)
    if needed:
        pytest.importorskip(needed)
    examples = tuple(free(str(i), "2" if i % 3 else "3") for i in range(9000))
    judged = []

    def counted(verifier, examples, texts):
        judged.extend(examples)
        return judge(verifier, examples, texts)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(constant, "judge", counted)
        found = best_constant(examples, verify.resolve(name))
    assert (found.text, found.accuracy) == ("2", pytest.approx(2 / 3))
    assert len(judged) == 2


def test_a_constant_is_right_from_the_threshold_on():
    examples = [free(str(i), word) for i, word in enumerate(("a", "bb", "cccc"))]
    name = "tests.run.constant_test:share"
    for threshold, text, accuracy in ((0.5, "bb", 1.0), (0.51, "a", 1 / 3)):
        found = best_constant(tuple(examples), verify.resolve(name, threshold))
        assert (found.text, found.accuracy) == (text, accuracy)


def share(output, example):
    """How much of the longer of output and answer is as long as the other."""
    lengths = len(output), len(example.answers[0])
    return min(lengths) / max(lengths)


def test_the_same_questions_are_searched_once():
    calls = []

    def counted(output, example):
        calls.append(output)
        return verify.exact(output, example)

    examples = (free("1", "a"), free("2", "b"))
    assert best_constant(examples, counted) == best_constant(tuple(examples), counted)
    assert len(calls) == 4
    best_constant((*examples, dataclasses.replace(examples[0], id="3")), counted)
    assert len(calls) > 4
