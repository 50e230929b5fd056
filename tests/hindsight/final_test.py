import sys

import pytest

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.hindsight.verifiers import similarity, symbolic
from hir_jax.hindsight.verifiers.final import take


def free(*answers):
    return Example("t/0", "?", (), answers, "t", "?")


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("The answer is 42.", "42."),
        ("the ANSWER is: 42", "42"),
        ("2 + 40 = 42 #### 42", "42"),
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"The final answer is $\boxed{5}$. I hope it is correct.", "5"),
        (r"\boxed{\text{(B)}}", "(B)"),
        (r"\boxed{42", ""),
        ("Final Answer:\n\n42\n", "42"),
        ("**Final Answer:** 42", "42"),
        ("Answer: **Paris**", "Paris"),
        ("#### Step 1\nThe answer is 5\n", "5"),
        ("The answer to the question is 7", "7"),
        ("The answers are a, b", "a, b"),
        ("one line\nanother line \n\n", "another line"),
        ("The answer is Paris. It is in France.", "Paris."),
        ("The answer is Dr. J. Watson. He wrote it down.", "Dr. J. Watson."),
        ("The answer is U.S. Grant", "U.S. Grant"),
        ("The answer is 3.14. Good.", "3.14."),
        ("2**3 and 2**4", "2**3 and 2**4"),
        (" \n", ""),
        ("", ""),
    ],
)
def test_take(text, taken):
    assert take(text) == taken


def test_final_judges_by_what_the_answers_are():
    colors = Example("t/1", "?", ("red", "blue"), ("blue",), "t", "?")
    for output, example, read in (
        ("The answer is option B.", colors, "(B) blue"),
        ("The answer is $1,200.", free("1200", "twelve hundred"), "$1,200"),
        ("The answer is 5 apples.", free("5 apples"), "5 apples."),
    ):
        verdict = verify.final(output, example)
        assert (verdict.correct, verdict.parsed, verdict.read) == (True, True, read)
    # Not a number: an answer with more than a number is compared as it stands.
    assert not verify.final("The answer is 5 pears.", free("5 apples")).correct


def test_final_says_what_it_took_where_that_is_unreadable():
    verdict = verify.resolve("final:number")("The answer is 3 or 4.", free("3"))
    assert (verdict.correct, verdict.parsed, verdict.read) == (False, False, "3 or 4.")


def test_final_number_refuses_questions_without_numbers_before_any_output():
    with pytest.raises(UserError, match=r"'number' expects one number.*'t/0'"):
        verify.resolve("final:number")("", free("blue"))


def test_packages_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr(symbolic.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "hir_jax\[math\]"'):
        verify.resolve("final:math")
    similarity._scorer.cache_clear()
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(UserError, match=r'pip install "hir_jax\[similarity\]"'):
        verify.resolve("chrf:0.6")


def test_math_that_never_ends_is_unreadable(monkeypatch):
    pytest.importorskip("math_verify")
    monkeypatch.setattr(symbolic, "SECONDS", 1)
    for output in ("9^{9^{9^9}}", "(" * 400, r"\frac{" * 80, "x" * 5000):
        verdict = verify.resolve("math")(output, free("4"))
        assert not verdict.correct and not verdict.parsed
    monkeypatch.undo()  # on a busy machine a process takes longer than that to begin
    assert verify.resolve("math")("2+2", free("4")).correct  # in a process begun anew


def test_similarity_is_that_to_the_nearest_answer():
    pytest.importorskip("sacrebleu")
    answers = ("a dog barks at night", "the cat sat on the mat")
    assert similarity.score("chrf", "the cat sat on the mat", answers) == pytest.approx(1)
    assert similarity.score("bleu", "the cat sat on the mat", answers) == pytest.approx(1)
    for metric in similarity.METRICS:
        near = similarity.score(metric, "the cat sat on a mat", answers)
        assert 0 < similarity.score(metric, "the cat", answers) < near < 1
