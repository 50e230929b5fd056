"""Rewards: what a verifier may return, several by weights, and what is right."""

import dataclasses
import itertools
import pathlib
import re
import sys

import numpy as np
import pytest

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight import reward, verify
from hir_jax.hindsight.verify import Verdict

BLUE = Example("t/0", "?", (), ("blue",), "t", "?")
NUMBER = Example("t/2", "?", (), ("42",), "t", "?")
SOURCE = """
from hir_jax.hindsight.verify import Verdict

def graded(output, example): return float(output)
def tenth(output, example): return len(output) / 10
def short(output, example):
    return Verdict(reward=0.5, parsed=False, read="mine", facts={"short": len(output) < 5})
def also(output, example): return Verdict(True, facts={"short": True})
def lower(output, example): return Verdict(output != "", facts={"lower": output.islower()})
"""


@pytest.fixture(autouse=True)
def users_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    (tmp_path / "my_rewards.py").write_text(SOURCE)
    yield
    sys.modules.pop("my_rewards", None)


def judged(name, output, example=BLUE, **settings):
    return verify.resolve(name, **settings)(output, example)


def returning(result):
    """The verdict on what a user's function returns."""
    module = sys.modules["my_rewards"] = type(sys)("my_rewards")
    module.given = lambda output, example: result
    return judged("my_rewards:given", "out")


# A verdict ----------------------------------------------------------------------------------------


def test_a_verdict_without_a_reward_has_one_by_what_is_right():
    assert (Verdict(True, True).reward, Verdict(False, False).reward) == (1.0, 0.0)
    assert Verdict(True, True, "read") == Verdict(correct=True)
    assert Verdict(reward=0.7) == Verdict(None, True, reward=0.7, facts={}, parts={})
    assert hash(Verdict(True, facts={"short": True})) is not None


def test_a_verdict_that_says_neither_is_refused(monkeypatch):
    with pytest.raises(TypeError, match="`correct` or `reward`"):
        Verdict(parsed=True)
    module = sys.modules["my_rewards"] = type(sys)("my_rewards")
    module.given = lambda output, example: Verdict(facts={"short": True})
    with pytest.raises(UserError, match=r"my_rewards:given.*expects `correct` or `reward`.*'t/0'"):
        judged("my_rewards:given", "out")


# What a function may return -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (True, 1.0),
        (False, 0.0),
        (np.True_, 1.0),
        (0.7, 0.7),
        (0.1 + 0.2, 0.1 + 0.2),
        (5e-324, 5e-324),
        (1, 1.0),
        (0, 0.0),
        (-0.0, 0.0),
        (np.float64(1 / 3), 1 / 3),
        (np.float32(0.7), 0.7),
        (np.float16(0.5), 0.5),
        (np.int64(1), 1.0),
        (Verdict(reward=np.float32(0.3)), 0.3),
        (Verdict(reward=True), 1.0),
        (Verdict(np.True_, np.True_), 1.0),
    ],
)
def test_rewards(result, value):
    verdict = returning(result)
    assert (verdict.reward, verdict.correct, verdict.parsed) == (value, value >= 0.5, True)
    assert (type(verdict.reward), type(verdict.correct), type(verdict.parsed)) == (
        float,
        bool,
        bool,
    )


def test_a_graded_verdict_with_facts():
    facts = {"short": np.True_, "whole": False}
    verdict = returning(Verdict(reward=0.7, parsed=False, read="it", facts=facts))
    assert verdict == Verdict(True, False, reward=0.7, facts={"short": True, "whole": False})
    assert verdict.read == "it"
    assert all(type(holds) is bool for holds in verdict.facts.values())


@pytest.mark.parametrize("correct", [True, False])
def test_a_reward_overrules_what_is_said_to_be_right(correct):
    assert returning(Verdict(correct, reward=0.3)).correct is False
    assert returning(Verdict(correct, reward=0.7)).correct is True


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (float("nan"), "it returned nan of type float"),
        (float("inf"), "it returned inf of type float"),
        (float("-inf"), "it returned -inf of type float"),
        (-1e-9, "it returned -1e-09 of type float"),
        (1.0000001, "it returned 1.0000001 of type float"),
        (np.float32("nan"), r"it returned np.float32\(nan\) of type float32"),
        (2, "it returned 2 of type int"),
        (None, "it returned None of type NoneType"),
        ("yes", "it returned 'yes' of type str"),
        (1j, "it returned 1j of type complex"),
        (Verdict(reward=float("nan")), "reward must be a float from 0 to 1, found nan"),
        (Verdict(True, reward=1.5), "reward must be a float from 0 to 1, found 1.5"),
        (Verdict(reward="0.5"), "reward must be .* found '0.5' of type str"),
        (Verdict(0.7, True), "correct must be a bool, found 0.7"),
        (Verdict(True, None), "parsed must be a bool, found None"),
        (
            Verdict(True, facts={"short": 1}),
            "the fact 'short' must be a bool under a name, found 1",
        ),
        (Verdict(True, facts={3: True}), "the fact 3 must be a bool under a name"),
        (Verdict(True, facts={"": True}), "the fact '' must be a bool under a name"),
        (Verdict(True, facts=["short"]), r"facts must be a dict of bools by name, found \['short'"),
        (Verdict(True, facts={"a\ud800": True}), r"the fact 'a.ud800' must be a bool under a name"),
    ],
)
def test_what_a_function_may_not_return(result, found):
    says = rf"'my_rewards:given' must return a bool, a float from 0 to 1 or .*{found}.*'t/0'.*'out'"
    with pytest.raises(UserError, match=says):
        returning(result)


def test_what_was_read_can_be_written():
    assert returning(Verdict(True, read="a\ud800\u00e9")).read == "a?\u00e9"
    assert returning(Verdict(True, canonical="a\ud800\u00e9")).canonical == "a?\u00e9"


def test_all_that_is_wrong_with_a_verdict_is_said_at_once():
    with pytest.raises(UserError, match=r"correct must.*; parsed must.*; reward must.*; the fact"):
        returning(Verdict(1, 1, reward=2, facts={"short": None}))


# The threshold ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [1e-9, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_reward_at_the_threshold_is_right(threshold):
    below, above = np.nextafter(threshold, 0), np.nextafter(threshold, 2)
    for value, right in ((below, False), (threshold, True), (min(above, 1.0), True)):
        verdict = judged("my_rewards:graded", repr(float(value)), threshold=threshold)
        assert (verdict.reward, verdict.correct) == (value, right)


@pytest.mark.parametrize("threshold", [1e-9, 0.5, 1.0])
@pytest.mark.parametrize("name", ["exact", "final:exact", "my_rewards:lower"])
def test_no_threshold_changes_right_and_wrong(name, threshold):
    assert judged(name, "blue", threshold=threshold).correct
    assert not judged(name, "", threshold=threshold).correct


def test_a_single_built_in_verifier_is_the_function_itself():
    by_itself = verify.BUILT_IN.keys() - {"auto"}  # which takes a family's own scorer, in time
    for name, function in ((name, verify.BUILT_IN[name]) for name in by_itself):
        assert verify.resolve(name, 0.9) is verify.resolve(f" {name},") is function


def test_final_leaves_the_reward_and_the_facts_of_what_it_took():
    verdict = judged("final:my_rewards:short", "The answer is blue", threshold=0.5)
    expected = Verdict(True, False, reward=0.5, facts={"short": True})
    assert (verdict, verdict.read) == (expected, "mine")
    # Nothing was answered; what else holds of nothing is still said.
    expected = Verdict(False, False, reward=0.0, facts={"short": True})
    assert judged("final:my_rewards:short", r"\boxed{blue") == expected


# Several verifiers --------------------------------------------------------------------------------


def test_several_verifiers_judge_together():
    name = "exact, my_rewards:short"
    verdict = judged(name, "Blue.", weights=(0.8, 0.2), threshold=0.9)
    assert verdict == Verdict(
        True,
        True,
        reward=0.9,  # 0.8 · 1 + 0.2 · 0.5
        facts={"short": False},
        parts={"exact": 1.0, "my_rewards:short": 0.5},
    )
    assert verdict.read == "Blue."
    wrong = judged(name, "red", weights=(0.8, 0.2), threshold=0.9)
    assert (wrong.correct, wrong.reward, wrong.facts) == (False, 0.1, {"short": True})
    # The first one says what was read.
    other = judged("my_rewards:short,exact", "Blue.")
    assert (other.parsed, other.read, other.reward) == (False, "mine", 0.75)


def test_a_single_verifier_has_no_parts():
    assert judged("my_rewards:short", "blue").parts == {}


def test_final_and_thresholds_of_their_own_stand_in_a_list():
    pytest.importorskip("sacrebleu")
    verdict = judged("final:number,chrf:0.6", "The answer is 42.", NUMBER, weights=(3, 1))
    assert verdict.parts == {"final:number": 1.0, "chrf:0.6": 0.0}
    assert (verdict.reward, verdict.read) == (0.75, "42")


def test_facts_come_from_all():
    verdict = judged("exact,my_rewards:short,my_rewards:lower", "Blue")
    assert verdict.facts == {"short": True, "lower": False}


def test_a_fact_named_by_two_is_refused():
    says = r"'my_rewards:short' and 'my_rewards:also' both name the fact 'short', for example 't/0'"
    with pytest.raises(UserError, match=says):
        judged("my_rewards:short,exact,my_rewards:also", "blue")


@pytest.mark.parametrize("count", [2, 3, 7, 10])
def test_all_ones_are_exactly_one_and_all_zeros_nothing(count):
    rng = np.random.default_rng(count)
    for weights in (*rng.uniform(1e-9, 1, (50, count)), [0.1] * count, [1e-300] * count):
        weights = list(map(float, weights))
        assert reward.mean([1.0] * count, weights) == 1.0
        assert reward.mean([0.0] * count, weights) == 0.0
        assert reward.mean([0.7] * count, weights) == 0.7


def test_the_mean_of_decimal_weights_meets_decimal_thresholds():
    tenths = range(1, 9)
    for a, b in itertools.product(tenths, tenths):
        if (c := 10 - a - b) > 0:
            weights = [a / 10, b / 10, c / 10]
            assert reward.mean([1.0, 1.0, 0.0], weights) == (a + b) / 10
            assert reward.mean([1.0, 0.0, 0.5], weights) == (2 * a + c) / 20
    # In binary, 0.6 + 0.3 or another of these would not be what is written.
    assert any(a / 10 + b / 10 != (a + b) / 10 for a, b in itertools.product(tenths, tenths))


def test_only_the_ratio_of_weights_matters():
    verdicts = [
        judged("exact,my_rewards:short", "blue", weights=weights)
        for weights in ((3, 1), (0.3, 0.1))
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].reward == 0.875
    assert judged("exact,my_rewards:short", "blue").reward == 0.75  # all the same


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("exact", {"threshold": 0}, "reward.threshold: expected above 0 and at most 1; found 0"),
        ("exact", {"threshold": 1.5}, "found 1.5"),
        ("exact", {"threshold": float("nan")}, "found nan"),
        ("exact,number", {"weights": (1,)}, r"for each of exact, number a number above 0.*\(1,\)"),
        ("exact", {"weights": (0.5, 0.5)}, r"for each of exact a number above 0"),
        ("exact,number", {"weights": (1, 0)}, r"found \(1, 0\)"),
        ("exact,number", {"weights": (1, -1)}, r"found \(1, -1\)"),
        ("exact,number", {"weights": (1, float("inf"))}, r"found \(1, inf\)"),
        ("exact,number", {"weights": (1, float("nan"))}, r"found \(1, nan\)"),
        ("exact,number", {"weights": (1, "1")}, r"found \(1, '1'\)"),
        ("exact,number", {"weights": (1, True)}, r"found \(1, True\)"),
        ("exact,number,exact", {}, "verifier: expected each name once; found 'exact,number,exact'"),
        ("exact,exakt", {}, "Unknown verifier 'exakt'"),
        ("exact,no_such:one", {}, "'no_such' failed with ModuleNotFoundError"),
    ],
)
def test_faulty_settings(name, settings, message):
    with pytest.raises(UserError, match=message):
        verify.resolve(name, **settings)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *((name, True) for name in verify.BUILT_IN),
        ("final:number", True),
        ("exact,number", True),
        ("my_rewards:lower", False),
        ("final:my_rewards:lower", False),
        ("final:final:my_rewards:lower", False),
        ("exact,my_rewards:lower", False),
    ],
)
def test_which_are_built_in(name, ours):
    assert verify.is_built_in(verify.resolve(name)) == ours


@pytest.mark.parametrize("name", ["math", "final:math", "chrf:0.6", "bleu:0.3", "exact,math"])
def test_those_that_ask_a_package_are_built_in_too(name):
    pytest.importorskip("math_verify" if "math" in name else "sacrebleu")
    assert verify.is_built_in(verify.resolve(name))


def test_ours_are_asked_whether_they_suit_the_questions_the_users_are_not():
    verify.check_suits("my_rewards:graded", [BLUE])  # it would fail on ''
    verify.check_suits("exact,my_rewards:graded", [BLUE])
    for name in ("number", "final:number", "my_rewards:graded,number", "exact,final:number"):
        with pytest.raises(UserError, match=r"'number' expects one number.*'t/0'"):
            verify.check_suits(name, [NUMBER, BLUE])


def test_the_example_of_the_docs():
    docs = pathlib.Path(__file__).parents[2] / "docs" / "verifiers.md"
    (code,) = re.findall(r"```python\n# my_rewards.py\n(.*?)```", docs.read_text(), re.DOTALL)
    module = sys.modules["my_rewards"] = type(sys)("my_rewards")
    exec(code, vars(module))
    found = {
        output: judged("my_rewards:near", output, NUMBER, threshold=0.9)
        for output in ("41", "40", "42.000", "many", "nan", "inf")
    }
    graded = {
        output: (v.reward, v.correct, v.parsed, v.facts["short"]) for output, v in found.items()
    }
    assert graded == {
        "41": (0.9, True, True, True),
        "40": (0.8, False, True, True),
        "42.000": (1.0, True, True, False),
        "many": (0.0, False, False, False),
        "nan": (0.0, False, True, True),
        "inf": (0.0, False, True, True),
    }


def test_a_verdict_keeps_its_reward_where_a_field_is_replaced():
    assert dataclasses.replace(Verdict(reward=0.7), read="x").reward == 0.7
