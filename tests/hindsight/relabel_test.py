"""Hindsight relabeling and sub-outputs: drawn examples, ranges, keys of the draws."""

import collections
import dataclasses

import numpy as np
import pytest

from hir_jax.errors import UserError
from hir_jax.hindsight import relabel
from hir_jax.hindsight.relabel import Goal, Pair
from hir_jax.hindsight.sample import Sample

EOS = 1
RIGHT, WRONG = Goal(True), Goal(False)
# Token 2 is "a", 3 is "b", ...; the letters of multiple choice are 50 "(", 51 ")", 65 "A", 66 "B".
CLOSED = (2, 3, 4, EOS)


def decode(tokens):
    marks = {EOS: "", 50: "(", 51: ")", 65: "A", 66: "B"}
    return " ".join(marks.get(token, chr(ord("a") + token - 2)) for token in tokens)


def sample(tokens=CLOSED, *, correct=True, example_id="t/0", index=0, iteration=1):
    return Sample(example_id, index, tokens, decode(tokens), correct, True, -1.5, iteration)


def rngs(count):
    return (np.random.default_rng([7, i]) for i in range(count))


def pairs(samples, mode="suffix", prob=1.0, seed=0, iteration=1, epoch=0, answers=None, opening=()):
    keys = {"seed": seed, "iteration": iteration, "epoch": epoch, "opening_ids": opening}
    answers = answers or collections.defaultdict(lambda: "(A)")
    return relabel.hindsight_pairs(
        samples, mode=mode, prob=prob, eos_ids=(EOS,), decode=decode, answers=answers, **keys
    )


def test_full_is_the_whole_output():
    assert pairs([sample(correct=False)], "full") == [Pair("t/0", (), CLOSED, WRONG)]


def test_suffix_drawn_example():
    drawn = {relabel.suffix(sample(), rng, 1.0, (EOS,)) for rng in rngs(50)}
    assert drawn == {
        Pair("t/0", (), (2, 3, 4, EOS), RIGHT),
        Pair("t/0", (2,), (3, 4, EOS), RIGHT),
        Pair("t/0", (2, 3), (4, EOS), RIGHT),
    }


def test_suffix_of_an_output_cut_at_the_limit_counts_its_last_token_and_gets_no_eos():
    drawn = {relabel.suffix(sample((2, 3), correct=False), rng, 1.0, (EOS,)) for rng in rngs(50)}
    assert drawn == {Pair("t/0", (), (2, 3), WRONG), Pair("t/0", (2,), (3,), WRONG)}


def test_an_output_may_be_closed_by_any_of_several_ids():
    output = sample((2, 3, 9))
    drawn = {relabel.suffix(output, rng, 1.0, (EOS, 9)) for rng in rngs(50)}
    assert drawn == {Pair("t/0", (), (2, 3, 9), RIGHT), Pair("t/0", (2,), (3, 9), RIGHT)}
    output = sample((50, 66, 51, 4, 9), correct=False)
    drawn = {relabel.window(output, rng, (EOS, 9), decode, "?").target[-1] for rng in rngs(50)}
    assert drawn == {9}


@pytest.mark.parametrize("mode", relabel.MODES)
def test_what_opens_an_output_opens_every_part_of_it(mode):
    # 50 opens; parts and their draws are those of the output without it.
    bare = [sample((2, 50, 3, 4, 5, 6, EOS), correct=False, index=i) for i in range(50)]
    opened = [dataclasses.replace(each, tokens=(50, *each.tokens)) for each in bare]
    drawn = pairs(opened, mode, opening=(9, 50))
    assert drawn == [
        dataclasses.replace(pair, target=(50, *pair.target)) for pair in pairs(bare, mode)
    ]
    assert len({pair.prefix for pair in drawn}) == {"full": 1, "suffix": 6, "window": 2}[mode]
    assert pairs(bare, mode, opening=(9, 50)) == pairs(bare, mode)  # it does not begin with one


def test_nothing_but_an_opening():
    assert pairs([sample((50,)), sample(())], opening=(50,)) == [
        Pair("t/0", (), (50,), RIGHT),
        Pair("t/0", (), (), RIGHT),
    ]


def test_suffix_of_an_empty_output_is_the_eos():
    assert relabel.suffix(sample((EOS,)), next(rngs(1)), 1.0, (EOS,)) == Pair(
        "t/0", (), (EOS,), RIGHT
    )


@pytest.mark.parametrize("prob", [0.0, 0.4, 1.0])
def test_suffix_starts_are_uniform_with_the_probability_and_else_zero(prob):
    tokens, count = (2, 3, 4, 5, 6, EOS), 5000
    drawn = pairs([sample(tokens, index=i) for i in range(count)], prob=prob)
    starts = np.bincount([len(pair.prefix) for pair in drawn], minlength=5) / count
    expected = np.full(5, prob / 5)
    expected[0] += 1 - prob
    np.testing.assert_allclose(starts, expected, atol=4 * 0.5 / np.sqrt(count))
    if prob == 0.0:
        assert starts[0] == 1.0
    assert all(pair.prefix + pair.target == tokens for pair in drawn)


@pytest.mark.parametrize("length", range(1, 12))
def test_window_ranges_are_those_of_the_specification(length):
    # An answer that holds no part of the output: every target but that of the whole is closed.
    tokens = (*range(2, length + 1), EOS)
    drawn = {
        relabel.window(sample(tokens, correct=False), rng, (EOS,), decode, "?") for rng in rngs(400)
    }
    if length <= 3:
        assert drawn == {Pair("t/0", (), tokens, WRONG)}
        return
    expected = set()
    for start in range(length):
        for end in range(length + 1):
            if start % 2 == 0 and start < length - 3 and end % 2 == 1 and start < end:
                closing = () if end == length else (EOS,)
                expected.add(Pair("t/0", tokens[:start], tokens[start:end] + closing, WRONG))
    assert drawn == expected


def test_window_drawn_example_half_of_the_letters_become_a_bare_parenthesis():
    right = sample((50, 65, 51, EOS), correct=True)
    wrong = sample((50, 66, 51, EOS), correct=False)
    for output, pieces in [
        (right, {Pair("t/0", (), (50,), RIGHT), Pair("t/0", (), (50, 65, 51, EOS), RIGHT)}),
        (wrong, {Pair("t/0", (), (50,), RIGHT), Pair("t/0", (), (50, 66, 51, EOS), WRONG)}),
    ]:
        drawn = [relabel.window(output, rng, (EOS,), decode, "(A)") for rng in rngs(1000)]
        assert set(drawn) == pieces
        assert 450 < sum(pair.target == (50,) for pair in drawn) < 550


def test_window_verdict_ignores_the_start_and_looks_anywhere_in_the_answer():
    # The output "a b c d e" is wrong; what of it is taken as right depends on o[:end] alone.
    tokens = (2, 3, 4, 5, 6, EOS)
    output = sample(tokens, correct=False)

    def verdicts(answer):
        drawn = (relabel.window(output, rng, (EOS,), decode, answer) for rng in rngs(200))
        seen = collections.defaultdict(set)
        for pair in drawn:
            closed = pair.target[-1] == EOS
            seen[len(pair.prefix) + len(pair.target) - closed].add((pair.correct, closed))
        return dict(seen)

    right_open, right_closed, wrong_closed = {(True, False)}, {(True, True)}, {(False, True)}
    assert verdicts("x A.B c y") == {1: right_open, 3: right_open, 5: wrong_closed}
    assert verdicts("A bc.") == {1: right_open, 3: right_closed, 5: wrong_closed}
    assert verdicts("bcd") == {1: wrong_closed, 3: wrong_closed, 5: wrong_closed}


def test_window_of_a_right_output_in_other_words_than_the_answer_is_right():
    drawn = {relabel.window(sample(), rng, (EOS,), decode, "?") for rng in rngs(50)}
    assert drawn == {Pair("t/0", (), (2, EOS), RIGHT), Pair("t/0", (), CLOSED, RIGHT)}


def test_window_of_a_cut_output_gets_no_eos():
    output = sample((2, 3, 4, 5), correct=False)
    drawn = {relabel.window(output, rng, (EOS,), decode, "?").target for rng in rngs(50)}
    assert drawn == {(2,), (2, 3, 4)}


@pytest.mark.parametrize("mode", ["suffix", "window"])
def test_draws_do_not_depend_on_order_or_company(mode):
    tokens = tuple(range(2, 20))
    samples = [
        sample(tokens, example_id=f"t/{q}", index=i, iteration=n)
        for q in range(5)
        for i in range(3)
        for n in (1, 2)
    ]
    whole = dict(zip(samples, pairs(samples, mode), strict=True))
    order = np.random.default_rng(0).permutation(len(samples))[:17]
    some = [samples[i] for i in order]
    assert pairs(some, mode) == [whole[s] for s in some]


@pytest.mark.parametrize("key", ["seed", "iteration", "epoch"])
def test_draws_depend_on_every_key(key):
    samples = [sample(tuple(range(2, 60)), index=i) for i in range(8)]
    assert pairs(samples, **{key: 3}) == pairs(samples, **{key: 3})
    assert pairs(samples, **{key: 3}) != pairs(samples, **{key: 4})


@pytest.mark.parametrize("key", ["example_id", "index", "iteration"])
def test_draws_depend_on_every_part_of_the_sample(key):
    values = [f"t/{i}" for i in range(20)] if key == "example_id" else range(20)
    drawn = pairs([sample(tuple(range(2, 60)), **{key: value}) for value in values])
    assert len({len(pair.prefix) for pair in drawn}) > 5


def test_unknown_mode():
    with pytest.raises(UserError, match=r"'prefix'.*full, suffix, window"):
        pairs([sample()], "prefix")
