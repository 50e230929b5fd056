import dataclasses

import pytest

from hir_jax.data.canonical import canonical, question_key, with_ids
from hir_jax.data.example import Example


def example(question="q", options=(), answers=("a",), **fields):
    return Example(
        **{"id": "", "task": "t", "premise": ""} | fields,
        question=question,
        options=options,
        answers=answers,
    )


@pytest.mark.parametrize(
    "other",
    [
        "What is 1 + 2?",
        "what IS 1 + 2",
        " What  is\n1\u00a0+ 2 ?",
        "\ufeffWhat is\u3000１ + ２？",
        "“What is 1 + 2?”",
        "Wh\u200bat i\u00ads 1 + 2…",
    ],
)
def test_what_changes_no_question_changes_no_canonical_text(other):
    assert canonical(other) == "what is 1 + 2"


def test_unicode_forms_and_typography():
    assert canonical("Cafe\u0301 d’Or – ﬁne") == canonical("CAFÉ d'or - fine")
    assert canonical("STRASSE") == canonical("straße")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[ (", "[ {"),
        ("( )", "()("),
        ("-5", "5"),
        ("cafe", "café"),
        ("a, b", "a b"),
        ("x > 1", "x < 1"),
    ],
)
def test_what_may_be_asked_about_stays(one, other):
    assert canonical(one) != canonical(other)


def test_a_text_of_punctuation_alone_is_not_empty():
    assert canonical("?!") == "?!"
    assert canonical("...") != canonical("?")


def test_questions_are_the_same_whatever_the_order_of_their_options():
    one = example("Which?", ("red", "Blue"))
    assert question_key(one) == question_key(example("which", ("blue", "red")))
    assert question_key(one) != question_key(example("Which?", ("red", "green")))
    assert question_key(one) != question_key(example("Which?"))


def test_ids_are_of_the_content_alone():
    examples = [example("one"), example("two", ("a", "b")), example("three", answers=("x", "y"))]
    ids = {e.question: e.id for e in with_ids(examples)}
    assert len(set(ids.values())) == 3
    more = with_ids([example("zero"), *examples[::-1], example("four")])
    assert {e.question: e.id for e in more}.items() >= ids.items()
    for changes in ({"options": ("b",)}, {"answers": ("b",)}, {"task": "u"}, {"question": "One"}):
        (other,) = with_ids([dataclasses.replace(examples[0], **changes)])
        assert other.id not in ids.values()


def test_true_duplicates_are_numbered_and_given_ids_stay():
    found = with_ids(
        [example("one"), example("one", premise="p"), example("one", id="mine")], "dev"
    )
    assert [e.id for e in found][1:] == [f"{found[0].id}-2", "mine"]
    assert found[0].id.startswith("t/dev/")


def test_ids_are_pinned():
    """Random draws are keyed by them."""
    assert with_ids([example("one")])[0].id == "t/857008e390a96e55"
