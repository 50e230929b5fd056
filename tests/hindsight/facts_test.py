"""Instructions that speak of several facts: how they are composed, and what the opposite one is."""

import collections

import numpy as np
import pytest

from hir_jax.hindsight import relabel
from hir_jax.hindsight.relabel import Facts, Goal, Instructions, Pair, achieved
from hir_jax.hindsight.sample import Sample

EOS = 1
TOKENS = (*range(2, 12), EOS)
FACTS = ("polite", "short")
ASKED = Instructions(
    "Be right.", "Be wrong.", {"polite": ("Please.", "Curse."), "short": ("Brief.", "At length.")}
)


def sample(correct=True, index=0, **facts):
    return Sample("t/0", index, TOKENS, "text", correct, True, -1.5, 1, facts=facts)


def pairs(samples, facts, mode="full", epoch=0, answer="?"):
    return relabel.hindsight_pairs(
        samples,
        mode=mode,
        prob=1.0,
        seed=0,
        iteration=1,
        epoch=epoch,
        eos_ids=(EOS,),
        decode=str,
        answers={"t/0": answer},
        facts=facts,
    )


def goal(correct, polite, short):
    return Goal(correct, (("polite", polite), ("short", short)))


def test_an_instruction_is_composed_of_the_phrases_of_its_goal():
    assert ASKED.text(goal(True, True, False)) == "Be right. Please. At length."
    assert ASKED.text(goal(False, False, True)) == "Be wrong. Curse. Brief."
    assert ASKED.text(Goal(False, (("short", False),))) == "Be wrong. At length."
    assert Instructions("Be right.", "Be wrong.").text(Goal(True)) == "Be right."


def test_a_goal_against_some_of_its_parts():
    assert goal(True, False, True).against(0) == goal(False, False, True)
    assert goal(True, False, True).against(2) == goal(True, False, False)
    assert goal(True, False, True).against(0, 1) == goal(False, True, True)
    assert Goal(True).against() == Goal(True)


def test_what_is_sampled_under_and_what_is_evaluated():
    assert ASKED.wanted == goal(True, True, True)
    assert ASKED.asked == [
        goal(True, True, True),
        goal(False, True, True),
        goal(True, False, True),
        goal(True, True, False),
    ]
    assert Instructions("r", "w").asked == [Goal(True), Goal(False)]


def test_achieved_is_what_holds_and_what_is_not_named_does_not():
    output = sample(correct=False, polite=True, odd=True)
    assert achieved(output, FACTS) == goal(False, True, False)
    assert achieved(output, ()) == Goal(False)


def test_without_facts_right_and_wrong_are_opposites():
    (pair,) = pairs([sample(polite=True)], Facts())
    assert pair == Pair("t/0", (), TOKENS, Goal(True), Goal(False))
    assert pair.correct and not Pair("t/0", (), (), Goal(False)).correct


def test_one_part_of_the_goal_is_flipped_each_as_often():
    own, count = goal(True, False, True), 3000
    made = pairs(
        [sample(index=i, polite=False, short=True) for i in range(count)], Facts(FACTS, flip="one")
    )
    assert {pair.goal for pair in made} == {own}
    flips = collections.Counter(pair.opposite for pair in made)
    assert set(flips) == {own.against(0), own.against(1), own.against(2)}
    assert all(abs(n / count - 1 / 3) < 4 * 0.5 / np.sqrt(count) for n in flips.values())


def test_all_parts_of_the_goal_are_flipped():
    (pair,) = pairs([sample(polite=False, short=True)], Facts(FACTS, flip="all"))
    assert (pair.goal, pair.opposite) == (goal(True, False, True), goal(False, True, False))


def test_each_fact_is_shown_with_the_probability_and_both_goals_speak_of_the_same():
    count, facts = 3000, Facts(FACTS, shown=0.3)
    made = pairs([sample(index=i, polite=True) for i in range(count)], facts)
    holds = {"polite": True, "short": False}
    shown = collections.Counter()
    for pair in made:
        assert dict(pair.goal.facts).items() <= holds.items()
        assert [name for name, _ in pair.goal.facts] == [name for name, _ in pair.opposite.facts]
        assert pair.goal != pair.opposite
        shown.update(name for name, _ in pair.goal.facts)
        shown["both"] += len(pair.goal.facts) == 2
    expected = {"polite": 0.3, "short": 0.3, "both": 0.09}
    assert all(abs(shown[k] / count - p) < 4 * 0.5 / np.sqrt(count) for k, p in expected.items())
    # Of what nothing is shown, right and wrong are left.
    assert {p.opposite for p in made if not p.goal.facts} == {Goal(False)}


@pytest.mark.parametrize("mode", relabel.MODES)
def test_facts_leave_the_sub_outputs_as_they_are(mode):
    samples = [sample(index=i, short=True) for i in range(30)]

    def parts(facts):
        return [(pair.prefix, pair.target, pair.correct) for pair in pairs(samples, facts, mode)]

    assert parts(Facts(FACTS)) == parts(Facts())


def test_a_window_has_its_own_verdict_and_the_facts_of_the_finished_output():
    samples = [sample(correct=False, short=True, index=i) for i in range(50)]
    made = pairs(samples, Facts(FACTS), "window", answer=str(TOKENS[:3]))  # as those begin
    assert {pair.goal for pair in made} == {goal(True, False, True), goal(False, False, True)}


def test_the_draw_is_keyed_by_sample_and_epoch():
    samples = [sample(index=i) for i in range(40)]
    made = pairs(samples, Facts(FACTS))
    assert pairs(samples[::-1], Facts(FACTS)) == made[::-1]
    assert pairs(samples, Facts(FACTS), epoch=1) != made
