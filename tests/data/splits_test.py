import numpy as np
import pytest

from hir_jax.data.example import Example
from hir_jax.data.splits import Splits, seeded_order, split_as_paper, split_by_premise
from hir_jax.errors import UserError


def stories(count, questions_each=3):
    return [
        Example(
            id=f"story/{s * questions_each + q}",
            question=f"Story {s}, question {q}?",
            options=("red", "green", "blue"),
            answers=("red",),
            task="story",
            premise=f"Story {s}",
        )
        for s in range(count)
        for q in range(questions_each)
    ]


def premises(examples):
    return {example.premise for example in examples}


def test_premises_are_cut_exactly_and_never_part():
    examples = stories(50)
    splits = split_by_premise(examples, dev_fraction=0.1, test_fraction=0.2, seed=3)
    assert [len(premises(side)) for side in splits] == [35, 5, 10]
    assert [len(side) for side in splits] == [105, 15, 30]
    assert len(set().union(*map(premises, splits))) == 50
    assert sorted(e.id for side in splits for e in side) == sorted(e.id for e in examples)


def test_split_depends_on_the_seed_but_not_on_the_order_of_the_examples():
    examples = stories(50)
    split = split_by_premise(examples, 0.1, 0.2, seed=3)
    assert split_by_premise(examples[::-1], 0.1, 0.2, seed=3) == split
    assert premises(split_by_premise(examples, 0.1, 0.2, seed=4).test) != premises(split.test)


def test_examples_within_a_split_are_in_seeded_order():
    train = split_by_premise(stories(50), 0.1, 0.2, seed=3).train
    assert train == seeded_order(train, seed=3)
    assert train != seeded_order(train, seed=4)
    assert list(train) != sorted(train, key=lambda e: e.id)


def test_fraction_zero_leaves_a_split_empty():
    splits = split_by_premise(stories(10), dev_fraction=0.0, test_fraction=0.2, seed=0)
    assert [len(premises(side)) for side in splits] == [8, 0, 2]


def test_a_part_that_is_wanted_has_a_premise():
    splits = split_by_premise(stories(3), dev_fraction=0.1, test_fraction=0.1, seed=0)
    assert [len(premises(side)) for side in splits] == [1, 1, 1]


def test_too_few_premises_name_the_empty_split():
    with pytest.raises(UserError, match="2 distinct premises leave train empty"):
        split_by_premise(stories(2), dev_fraction=0.1, test_fraction=0.3, seed=0)
    with pytest.raises(UserError, match="1 distinct premises leave train empty"):
        split_by_premise(stories(1), dev_fraction=0.0, test_fraction=0.9, seed=0)


def test_paper_split_is_numpys_permutation():
    examples = stories(7, questions_each=1)
    splits = split_as_paper(examples, seed=1)
    np.random.seed(1)
    order = np.random.permutation(7)
    assert (
        splits
        == Splits(
            train=tuple(examples[i] for i in order[:5]),  # int(0.8 * 7) = 5
            dev=(),
            test=tuple(examples[i] for i in order[5:]),
        )
    )
