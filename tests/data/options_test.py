import collections
import dataclasses

import pytest

from hir_jax.data.example import Example
from hir_jax.data.options import movable, shuffle_options


def asked(*options, name="0"):
    return Example(name, "Which?", options, (options[0],), "t", "p")


def test_shuffled_options_are_the_same_options_and_uniform_in_place():
    examples = [asked("red", "green", "blue", name=str(i)) for i in range(3000)]
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
    example = asked("red", "green", "blue")
    by_seed = {shuffle_options(example, seed).options for seed in range(20)}
    by_id = {shuffle_options(dataclasses.replace(example, id=str(i)), 0).options for i in range(20)}
    elsewhere = dataclasses.replace(example, question="Asked differently?", premise="other")
    assert len(by_seed) > 3 and len(by_id) > 3
    assert shuffle_options(elsewhere, 7).options == shuffle_options(example, 7).options


@pytest.mark.parametrize(
    "option",
    [
        "Both (A) and (B)",
        "both a and b",
        "A and C",
        "A, B and C",
        "A & B.",
        "Only B",
        "B only",
        "neither A nor B",
        "Answer C",
        "Options 1 and 2",
        "Both 1 and 2",
        "the first option",
        "The second answer is wrong",
        "Both of the first two options",
        "the last two",
        "The former",
        "(b)",
    ],
)
def test_options_that_speak_of_single_others_keep_the_whole_order(option):
    options = ("red", "green", "blue", option, "pink")
    assert movable(options) == 0
    assert all(shuffle_options(asked(*options), seed).options == options for seed in range(9))


@pytest.mark.parametrize(
    "option",
    [
        "None of the above",
        "All of the above.",
        "all the above",
        "None of these",
        "neither of them",
        "More than one of the above",
        "Not any of the above is right",
        "No other option",
        "None",
        "All are correct",
    ],
)
def test_options_that_speak_of_all_before_them_stay_behind_them(option):
    options = ("red", "green", "blue", option)
    orders = {shuffle_options(asked(*options), seed).options for seed in range(30)}
    assert {order[-1] for order in orders} == {option}
    assert len(orders) > 3
    # From elsewhere they speak of those above alone, so all keep their places.
    assert movable(("red", option, "blue")) == 0
    assert movable((*options, "Both of the above")) == 3


@pytest.mark.parametrize(
    "options",
    [
        ("A bird", "A cat", "B movie"),
        ("vitamin C", "vitamin D", "I, Robot"),
        ("Dan finished above Ada", "The bird is below the tree"),
        ("in the last two days", "in the first week"),
        ("1", "2", "both sides"),
        ("The pears are the second-cheapest.", "One week"),
        ("All Is Lost", "Some Like It Hot"),
        ("a", "b"),
    ],
)
def test_other_options_move(options):
    assert movable(options) == len(options)
