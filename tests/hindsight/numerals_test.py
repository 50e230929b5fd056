import time
from fractions import Fraction

import pytest

from hir_jax.hindsight.verifiers import numerals, texts
from hir_jax.hindsight.verifiers.final import take


@pytest.mark.parametrize(
    ("text", "value", "unit", "read"),
    [
        ("It costs -$1,200.50, I think", "-1200.5", "dollar", "-$1,200.50"),
        ("12,00,000", "1200000", "", "12,00,000"),
        ("about 2 500 km/h", "2500", "kilometre per hour", "2 500 km/h"),
        ("25 °C", "25", "degree c", "25 °c"),
        ("5 cm²", "5", "centimetre^2", "5 cm^2"),
        ("$(5)", "-5", "dollar", "$(5)"),
        ("-3 x 10^{-2}", "-0.03", "", "-3 x 10^{-2}"),
        ("two hundred and five thousand and one", "205001", "", None),
        ("three and three quarters", "3.75", "", None),
        ("2.5 million dollars", "2500000", "dollar", None),
        ("a 5-year-old", "5", "", "5"),
        ("x = 5", "5", "", "5"),
        ("ninety-ninth", "99", "", None),
        ("-1 1/2", "-1.5", "", None),
        ("1/5th", "0.2", "", None),
    ],
)
def test_what_is_read(text, value, unit, read):
    found = numerals.read(text)
    assert (found.value, found.unit) == (Fraction(value), unit)
    assert found.text == (read or text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "5 (-5)",
            "1-1/2",
            "3 quarters",
            "half a dozen",
            "hundreds of 5",
            "(5) apples",
            "5i",
            "2π",
        ),
        *(
            "√5",
            "<5",
            "≥ 5",
            "±5",
            "--5",
            "5-",
            "the answer - 5",
            "10_2",
            "0x1F",
            "R2D2",
            "三",
            "Ⅷ",
        ),
        *("①", "1/0", "0^-1", "9^99999", "1e99999", "9" * 500, "5 a.m.", "thirty second", "5/x"),
        *("a million and a half", "2 million 5", "5 Mrd", "5 twenties", "isn't 5", "5 or 6", "5?6"),
    ],
)
def test_what_is_not_read(text):
    assert numerals.read(text) is None


@pytest.mark.parametrize("value", [0, 7, 19, 40, 99, 100, 101, 999, 1000, 12_345, 7_000_019, 10**9])
def test_words_of_large_numbers(value):
    assert numerals.read(in_words(value)).value == value
    assert numerals.read(f"minus {in_words(value)}").value == -value


def in_words(n):
    small = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    small = f"{small} fifteen sixteen seventeen eighteen nineteen".split()
    tens = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
    for scale, word in ((10**9, "billion"), (10**6, "million"), (1000, "thousand")):
        if n >= scale:
            rest = f" {in_words(n % scale)}" if n % scale else ""
            return f"{in_words(n // scale)} {word}{rest}"
    if n >= 100:
        return f"{small[n // 100]} hundred" + (f" and {in_words(n % 100)}" if n % 100 else "")
    if n >= 20:
        return tens[n // 10 - 2] + (f"-{small[n % 10]}" if n % 10 else "")
    return small[n]


UNITS = [
    "5 ",
    "(",
    "$",
    "*",
    "**",
    "one ",
    "a million ",
    "-",
    "1,",
    "^",
    "\\frac{",
    "{",
    "'",
    ".",
    "!",
]
UNITS += ["answer is ", "\\boxed{", "####", "5/", "1e", "x10^", "[", "and ", "** a ", "answer to "]


@pytest.mark.parametrize("unit", UNITS)
def test_long_outputs_take_time_in_proportion(unit):
    # A reader that looks at all pairs of tokens would take minutes.
    text = unit * (40_000 // len(unit))
    started = time.monotonic()
    numerals.read(text)
    list(texts.layers(texts.fold(text)))
    take(text)
    assert time.monotonic() - started < 5
