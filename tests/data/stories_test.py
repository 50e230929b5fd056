import itertools

import pytest

from hir_jax.data.example import Example
from hir_jax.data.stories import story_of, unite, with_premises


def examples(*questions, options=None, task="t"):
    options = options or [()] * len(questions)
    return [
        Example(str(i), question, own, ("a",), task, "")
        for i, (question, own) in enumerate(zip(questions, options, strict=True))
    ]


def groups(found):
    """The indices of the examples, by premise."""
    premises = [example.premise for example in found]
    return [
        {i for i, p in enumerate(premises) if p == premise} for premise in dict.fromkeys(premises)
    ]


@pytest.mark.parametrize(
    ("question", "story"),
    [
        ("It is May 1. What is the date tomorrow?", "it is may 1"),
        ("They swap. At the end of the game, Ann has the ", "they swap"),
        ("A table:\nAnn, 5\nHow old is Ann?", "a table: ann, 5"),
        ("He ran. He fell.", "he ran. he fell"),
        ("Which is sarcastic? (a) Sure (b) No", "which is sarcastic? (a) sure (b) no"),
        (
            "Was P. G. Wodehouse, e.g. by Mr. Smith, read?",
            "was p. g. wodehouse, e.g. by mr. smith, read",
        ),
        ("او رفت. سن او چیست؟", "او رفت"),
        ("Why?", "why"),
    ],
)
def test_the_story_is_what_comes_before_the_last_question(question, story):
    assert story_of(question) == story


def test_questions_of_one_story_share_its_premise():
    found = with_premises(
        examples(
            "It is May 1. What is tomorrow?",
            "it is  May 1! What was yesterday?",
            "It is June 2. What is tomorrow?",
        )
    )
    assert [e.premise for e in found] == ["it is may 1", "it is may 1", "it is june 2"]


def test_a_story_asked_through_its_options_alone():
    found = with_premises(
        examples("A is left of B.", "A is left of B.", options=[("x", "y"), ("z",)])
    )
    assert len(groups(found)) == 1


def test_what_many_share_is_an_instruction():
    pairs = [(f"red{i}", f"blue{i}") for i in range(21)]
    alone = with_premises(examples(*["Which is nicer?"] * 21, options=pairs))
    assert len(groups(alone)) == 21
    shared = with_premises(examples(*["Which is nicer?"] * 20, options=pairs[:20]))
    assert len(groups(shared)) == 1


NATURAL = (
    "The nurse ran from the baker because she smelled awful",
    "A ship left the harbour at noon and came to the island by night",
    "Every winter the lake behind our school froze over for weeks",
    "My uncle keeps nine goats, two dogs and an old horse on his farm",
    "Nobody knew who had written the letter that lay under the door",
)


@pytest.mark.parametrize(
    "twin",
    [
        "The nurse ran from the baker because he felt ill",  # begins alike
        "In fact the nurse ran from the baker because she smelled awful",
        "because she smelled awful The nurse ran from the baker",
    ],
)
def test_near_duplicates_are_one_story(twin):
    found = with_premises(examples(*NATURAL, twin))
    assert groups(found) == [{0, 5}, {1}, {2}, {3}, {4}]


def test_a_template_is_not_one_story():
    names, things = ("Ann", "Ben", "Cleo", "Dan"), ("ball", "cup", "hat", "pen", "key")
    filled = [
        f"{a} and {b} play a game with one another. At first {a} has the {x} and {b} has the {y}."
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.permutations(things, 2)
    ]
    found = with_premises(examples(*filled))
    assert max(map(len, groups(found))) <= 12


def test_families_read_what_differs_in_form_alone():
    same = ("True and ( not False ) is", "( True ) and not False is", "not True and False is")
    assert groups(with_premises(examples(*same, task="boolean_expressions")))[0] == {0, 1}


def test_unite_joins_what_shares_a_premise_or_asks_the_same():
    lines = [
        Example("0", "Who?", (), ("a",), "t", "story one"),
        Example("1", "who", (), ("a",), "t", "story two"),
        Example("2", "When?", (), ("a",), "t", "story two"),
        Example("3", "Where?", (), ("a",), "t", "story three"),
    ]
    assert [e.premise for e in unite(lines)] == ["story one"] * 3 + ["story three"]
