import collections
import dataclasses

import numpy as np
import pytest

from hir_jax.data.example import Example
from hir_jax.data.splits import (
    Splits,
    premise_of,
    seeded_order,
    shuffle_options,
    split_as_paper,
    split_by_premise,
)
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


def test_too_few_premises_name_the_empty_split():
    with pytest.raises(UserError, match="4 distinct premises leave dev empty"):
        split_by_premise(stories(4), dev_fraction=0.1, test_fraction=0.3, seed=0)
    with pytest.raises(UserError, match="1 distinct premises leave train empty"):
        split_by_premise(stories(1), dev_fraction=0.0, test_fraction=0.9, seed=0)


def test_shuffled_options_are_the_same_options_and_uniform_in_place():
    examples = stories(1000)
    shuffled = [shuffle_options(example, seed=0) for example in examples]
    assert all(sorted(e.options) == ["blue", "green", "red"] for e in shuffled)
    assert [dataclasses.replace(e, options=()) for e in shuffled] == [
        dataclasses.replace(e, options=()) for e in examples
    ]
    orders = collections.Counter(e.options for e in shuffled)
    expected = len(examples) / 6
    assert len(orders) == 6
    # 5 degrees of freedom: the 0.999 quantile of chi-squared.
    assert sum((n - expected) ** 2 / expected for n in orders.values()) < 20.5


def test_an_option_order_is_keyed_by_seed_and_id_alone():
    example = stories(1)[0]
    by_seed = {shuffle_options(example, seed).options for seed in range(20)}
    by_id = {shuffle_options(dataclasses.replace(example, id=str(i)), 0).options for i in range(20)}
    elsewhere = dataclasses.replace(example, question="Asked differently?", premise="other")
    assert len(by_seed) > 3 and len(by_id) > 3
    assert shuffle_options(elsewhere, 7).options == shuffle_options(example, 7).options


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


def test_premise_of_each_family():
    assert (
        premise_of("tracking_shuffled_objects_three_objects", "S. At the end of the game, A")
        == "S. "
    )
    assert premise_of("logical_deduction_five_objects", "S.\nOptions:\n(A) x") == "S."
    assert premise_of("date_understanding", "S. At the end of the\nOptions:") == (
        "S. At the end of the\nOptions:"
    )
