"""Verifiers, by tables of outputs."""

import signal
import sys

import numpy as np
import pytest

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.hindsight.verify import Verdict
from hir_jax.methods import table

RIGHT, WRONG, UNREADABLE = Verdict(True, True), Verdict(False, True), Verdict(False, False)


def free(*answers):
    return Example("t/0", "?", (), answers, "t", "?")


def multiple(*options, right):
    right = (right,) if isinstance(right, str) else right
    return Example("t/1", "?", options, right, "t", "?")


COLORS = multiple("red", "blue", "light blue", right="blue")


@pytest.mark.parametrize(
    ("output", "answers", "expected"),
    [
        ("Blue.", ("blue",), RIGHT),
        ("  light \n blue ", ("light blue",), RIGHT),
        ("lightblue", ("light blue",), WRONG),
        ('"blue"!', ("blue",), RIGHT),
        ("3", ("three", "3"), RIGHT),
        ("1.5", ("15",), WRONG),
        ("-5", ("5",), WRONG),
        (".5", ("5",), WRONG),
        ("...blue", ("blue",), RIGHT),
        ("5%", ("5",), WRONG),
        ("a.b", ("ab",), WRONG),
        ("STRASSE", ("Straße",), RIGHT),
        ("cafe\u0301", ("caf\u00e9",), RIGHT),
        ("x2", ("x²",), RIGHT),
        ("]", (")",), WRONG),
        ("]", ("]",), RIGHT),
        (".", ("blue",), WRONG),
        ("(a)(b)", ("a)(b",), WRONG),
        ("[ ) ]", (")",), WRONG),
        ("«Blue»", ("blue",), RIGHT),
        ("10²", ("102",), WRONG),
        ("2½", ("21/2",), WRONG),
        ("", ("blue",), UNREADABLE),
        (" \n", ("blue",), UNREADABLE),
    ],
)
def test_exact(output, answers, expected):
    assert verify.exact(output, free(*answers)) == expected


def test_exact_compares_letters_where_there_are_options():
    assert verify.exact("(b)", COLORS) == RIGHT
    assert verify.exact("(A", COLORS) == WRONG
    assert verify.exact("blue", COLORS) == WRONG
    assert verify.exact("(C)", multiple("1", "2", "two", right=("2", "two"))) == RIGHT


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("(B)", RIGHT),
        ("B", RIGHT),
        ("B.", RIGHT),
        ("(b)", RIGHT),
        ("(b).", RIGHT),
        ("B)", RIGHT),
        ("(B", RIGHT),
        ("( B )", RIGHT),
        ('"B"', RIGHT),
        ("blue", RIGHT),
        ("Blue.", RIGHT),
        ("(B) blue", RIGHT),
        ("(B)blue.", RIGHT),
        ("b: BLUE", RIGHT),
        ("B blue", RIGHT),
        ("(A)", WRONG),
        ("(A", WRONG),
        ("red", WRONG),
        ("light blue", WRONG),
        ("(C) light blue", WRONG),
        ("(B) red", UNREADABLE),
        ("(B) light blue", UNREADABLE),
        ("(B) blue red", UNREADABLE),
        ("(B) (B)", UNREADABLE),
        ("I think (B) because (C) is wrong", UNREADABLE),
        ("light", UNREADABLE),
        ("blue light", UNREADABLE),
        ("b-blue", UNREADABLE),
        ("(D)", UNREADABLE),
        ("(", UNREADABLE),
        ("()", UNREADABLE),
        ("(BB)", UNREADABLE),
        ("(Б)", UNREADABLE),
        ("", UNREADABLE),
    ],
)
def test_choice(output, expected):
    assert verify.choice(output, COLORS) == expected


@pytest.mark.parametrize(
    ("output", "options", "right", "expected"),
    [
        # Options that are single letters, in another order than the letters that name them.
        ("(A)", ("B", "A"), "B", RIGHT),
        ("(A) B", ("B", "A"), "B", RIGHT),
        ("A. B", ("B", "A"), "B", RIGHT),
        ("(A) A", ("B", "A"), "B", UNREADABLE),
        ("A", ("B", "A"), "B", UNREADABLE),
        ("A", ("A", "B"), "A", RIGHT),
        ("x", ("x", "y"), "x", RIGHT),
        # Options that begin with what looks like a letter.
        ("a circle", ("a square", "a circle"), "a circle", RIGHT),
        ("(A) and (B)", ("one", "two", "(A) and (B)"), "(A) and (B)", RIGHT),
        # Numbers: "2" is the text "2", not the second option.
        ("2", ("2", "1"), "2", RIGHT),
        ("(1)", ("2", "1"), "2", WRONG),
        ("-1", ("1", "-1"), "-1", RIGHT),
        ("1", ("10", "1"), "10", WRONG),
        ("(B) 1", ("10", "1"), "1", RIGHT),
        ("three", ("3", "three"), ("3", "three"), RIGHT),
        # Two options of one text are not told apart by it.
        ("Blue", ("blue", "Blue."), "blue", UNREADABLE),
        ("(A)", ("blue", "Blue."), "blue", RIGHT),
        ("café", ("tea", "cafe\u0301"), "cafe\u0301", RIGHT),
        # An output of nothing names no option, not even one of nothing.
        (" ", ("blue", ""), "", UNREADABLE),
        ("(B)", ("blue", ""), "", RIGHT),
    ],
)
def test_choice_of_awkward_options(output, options, right, expected):
    assert verify.choice(output, multiple(*options, right=right)) == expected


def test_choice_refuses_an_example_without_options():
    with pytest.raises(UserError, match=r"'t/0' has none.*'exact'"):
        verify.choice("(A)", free("blue"))


def test_choice_reads_all_options_named_where_one_verdict_holds_for_all():
    alike = multiple("blue", "Blue.", "BLUE", right=("blue", "Blue.", "BLUE"))
    verdict = verify.choice("bLUE", alike)
    assert verdict == RIGHT
    assert verdict.read == "(A) blue or (B) Blue. or (C) BLUE"


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("21", "21"),
        ("twenty-one", "21"),
        ("Twenty One.", "21"),
        ("the answer is 21.", "21"),
        ("21 (twenty-one)", "21"),
        ("21.00", "21"),
        ("ninety-nine", "99"),
        ("zero", "0"),
        ("nineteen", "19"),
        ("hundred", "100"),
        ("a hundred and five", "105"),
        ("two thousand three hundred twelve", "2312"),
        ("1,234,567.5", "1234567.5"),
        ("two million", "2000000"),
        (".5", "0.5"),
        ("-5", "-5"),
        ("\u22125", "-5"),
        ("minus five", "-5"),
        ("negative 5", "-5"),
        ("+5", "5"),
        ("$5", "5"),
        ("٣", "3"),
        ("0.1000000000000000000000000000000001", "0.1000000000000000000000000000000001"),
    ],
)
def test_number_reads(output, value):
    assert verify.number(output, free(value)) == RIGHT
    assert verify.number(output, free("12345")) == WRONG


@pytest.mark.parametrize(
    "output",
    [
        *("", "many", "someone", "phone", "3 or 4", "5-3", "1,2", "1,2345", "1.2.3", "covid-19"),
        *("one two", "twenty twelve", "three point five", "08/20/2020"),
    ],
)
def test_number_does_not_guess(output):
    assert verify.number(output, free("3")) == UNREADABLE


def test_number_tells_decimals_and_signs_apart():
    assert verify.number("1.5", free("15")) == WRONG
    assert verify.number("-5", free("5")) == WRONG
    assert verify.number(f"-0.1{'0' * 40}1", free(f"-0.1{'0' * 40}2")) == WRONG
    assert verify.number("three", free("four", "3")) == RIGHT
    assert verify.number("two", multiple("one", "two", right="two")) == RIGHT


def test_every_number_word_below_a_hundred():
    units = "zero one two three four five six seven eight nine ten eleven twelve thirteen"
    teens = "fourteen fifteen sixteen seventeen eighteen nineteen"
    units = [*units.split(), *teens.split()]
    tens = "twenty thirty forty fifty sixty seventy eighty ninety"
    tens = ["", "", *tens.split()]
    for n in range(100):
        words = units[n] if n < 20 else tens[n // 10] + (f"-{units[n % 10]}" if n % 10 else "")
        assert verify.number(words, free(str(n))) == RIGHT, words


def test_number_refuses_answers_without_a_number():
    with pytest.raises(UserError, match=r"'t/0' has the answers \['blue'\]"):
        verify.number("3", free("blue"))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("ant bee cow", RIGHT),
        ("Ant, BEE; cow.", RIGHT),
        ("ant\nbee\ncow\n", RIGHT),
        ("[ant,bee,cow]", RIGHT),
        ("'ant', 'bee', 'cow'", RIGHT),
        ("bee ant cow", WRONG),
        ("ant bee", WRONG),
        ("ant bee cow cow", WRONG),
        ("antbee cow", WRONG),
        ("", UNREADABLE),
        (" , ;", UNREADABLE),
    ],
)
def test_list(output, expected):
    assert verify.ordered_list(output, free("dog", "ant bee cow")) == expected


@pytest.mark.parametrize(
    ("output", "correct", "complete", "only"),
    [
        ("ant bee cow", True, True, True),
        ("Ant, BEE; cow.", True, True, True),
        ("cow ant bee", False, True, True),
        ("ant cow", True, False, True),
        ("ant dog bee cow", True, True, False),
        ("ant ant bee cow", True, True, False),  # once too often
        ("dog cow ant dog bee", False, True, False),
        ("ant dog bee", True, False, False),
        ("cow bee", False, False, True),
        ("cow dog bee", False, False, False),
        ("antbee cow", None, False, False),  # one item of the answer has no order
        ("ant", None, False, True),
        ("dog elk", None, False, False),
        ("", None, False, True),
    ],
)
def test_order(output, correct, complete, only):
    verdict = verify.order(output, free("ant bee cow"))
    assert (verdict.correct, verdict.parsed) == (bool(correct), correct is not None)
    assert verdict.facts == {"complete": complete, "only": only}
    assert verdict.reward == verdict.correct


@pytest.mark.parametrize(
    ("output", "complete", "only"),
    [("ant bee", False, True), ("ant ant bee", True, True), ("ant ant ant bee", True, False)],
)
def test_order_of_an_answer_that_repeats_an_item(output, complete, only):
    verdict = verify.order(output, free("ant ant bee"))
    assert verdict.correct
    assert verdict.facts == {"complete": complete, "only": only}


@pytest.mark.parametrize(
    ("output", "correct"),
    [("ant bee ant", True), ("bee ant", True), ("ant ant bee", True), ("ant bee ant bee", False)],
)
def test_order_of_an_item_that_comes_again(output, correct):
    assert verify.order(output, free("ant bee ant")).correct is correct


@pytest.mark.parametrize(
    ("output", "answer", "expected"),
    [
        ("1.5", "15", RIGHT),
        ("l i g h t BLUE...", "lightblue", RIGHT),
        ("ab", "a\nb", RIGHT),
        ("blue!", "blue", WRONG),
        ("(blue", "blue", WRONG),
        ("...", "blue", UNREADABLE),
    ],
)
def test_reference(output, answer, expected):
    assert verify.reference(output, free(answer)) == expected


def test_reference_knows_the_first_target_only():
    assert verify.reference("3", free("three", "3")) == WRONG
    assert verify.reference("( b )", COLORS) == RIGHT


def test_auto_goes_by_the_options():
    assert verify.auto("(B) blue", COLORS) == RIGHT
    assert verify.auto("nonsense", COLORS) == UNREADABLE
    assert verify.auto("nonsense", free("blue")) == WRONG


@pytest.mark.parametrize("name", verify.BUILT_IN)
def test_every_built_in_accepts_the_answer_and_the_empty_output(name):
    example = multiple("1", "3", right="3") if name == "choice" else free("3")
    verifier = verify.resolve(name)
    for output, expected in ((example.targets[0], RIGHT), ("", UNREADABLE)):
        verdict = verifier(output, example)
        assert (verdict.correct, verdict.parsed) == (expected.correct, expected.parsed)


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    """A function that writes a module of the user's own, importable as `my_checks`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source):
        sys.modules.pop("my_checks", None)
        (tmp_path / "my_checks.py").write_text(source)

    yield write
    sys.modules.pop("my_checks", None)


def test_resolve_calls_the_users_function(users_module):
    users_module(
        "import numpy as np\n"
        "from hir_jax.hindsight.verify import Verdict\n"
        "def same(output, example): return output == example.answers[0]\n"
        "def array(output, example): return np.array(output) == 'blue'\n"
        "def full(output, example): return Verdict(False, parsed=output != '')\n"
    )
    assert verify.resolve("my_checks:same")("blue", free("blue")) == RIGHT
    assert verify.resolve("my_checks:same")("", free("blue")) == WRONG
    assert verify.resolve("my_checks:full")("", free("blue")) == UNREADABLE
    verdict = verify.resolve("my_checks:array")("blue", free("blue"))
    assert verdict == RIGHT and not isinstance(verdict.correct, np.bool_)


def test_resolve_puts_final_before_the_users_function(users_module):
    users_module("def blue(output, example): return output == 'blue'\n")
    verdict = verify.resolve("final:my_checks:blue")("The answer is blue", free("blue"))
    assert (verdict, verdict.read) == (RIGHT, "blue")
    assert verify.module_of("final:my_checks:blue") == verify.module_of("my_checks:blue")
    assert {verify.module_of(name) for name in ("auto", "final", "final:math", "chrf:1")} == {""}


def test_resolve_wraps_what_goes_wrong_in_the_users_function(users_module):
    users_module(
        "def raises(output, example): raise KeyError('gold')\n"
        "def says(output, example): return 'yes'\n"
        "def ends(output, example): raise SystemExit(0)\n"
    )
    with pytest.raises(UserError, match=r"my_checks:ends' raised SystemExit.*'t/0'.*'out'"):
        verify.resolve("my_checks:ends")("out", free("blue"))
    with pytest.raises(UserError, match=r"my_checks:raises.*KeyError.*'t/0'.*'out'") as caught:
        verify.resolve("my_checks:raises")("out", free("blue"))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(UserError, match=r"my_checks:says.*'yes' of type str.*'t/0'.*'out'"):
        verify.resolve("my_checks:says")("out", free("blue"))


HANGS = """
import time
def asleep(output, example): time.sleep(60)
def at_work(output, example):
    while True:
        try:
            [i for i in range(10**5)]
        except Exception:
            pass
"""


@pytest.mark.parametrize("name", ["my_checks:asleep", "final:my_checks:at_work"])
def test_a_verifier_that_hangs_is_told_with_the_example(users_module, name):
    users_module(HANGS)
    before = signal.getsignal(signal.SIGALRM)
    message = (
        r"no verdict within config.reward.seconds=0.05, for example 't/0' and the output 'out'"
    )
    with pytest.raises(UserError, match=message):
        verify.resolve(name, seconds=0.05)("out", free("blue"))
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "exakt",
            "auto, choice, exact, list, number, order, reference, final, math, final:NAME, chrf:",
        ),
        ("final:exakt", "Unknown verifier 'exakt'"),
        ("chrf", "expected a threshold above 0 and at most 1, as in chrf:0.6; found ''"),
        ("bleu:2", "found '2'"),
        ("", "Unknown verifier ''"),
        ("my_checks", "Unknown verifier"),
        ("my_checks:", "Unknown verifier"),
        (".my_checks:one", "Unknown verifier"),
        ("no_such_module:one", "'no_such_module' failed with ModuleNotFoundError"),
        ("my_checks:two", "has no function 'two'.*one"),
        ("my_checks:CONSTANT", "has no function 'CONSTANT'"),
    ],
)
def test_resolve_says_what_exists(users_module, name, message):
    users_module("CONSTANT = 1\ndef one(output, example): return True\n")
    with pytest.raises(UserError, match=message):
        verify.resolve(name)


@pytest.mark.parametrize(
    ("source", "error"), [("def one(:\n", "SyntaxError"), ("exit(0)", "SystemExit")]
)
def test_resolve_reports_a_module_that_does_not_compile_or_is_a_program(
    users_module, source, error
):
    users_module(source)
    with pytest.raises(UserError, match=error):
        verify.resolve("my_checks:one")
    with pytest.raises(UserError, match=error):
        table.resolve("my_checks:One")
