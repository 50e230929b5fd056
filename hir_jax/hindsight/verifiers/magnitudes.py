"""Numbers without sign and unit, in digits or English words, read from a list of tokens.

digits   1200   1,200   12,00,000   1 200 000   .5   1e3   3 x 10^4   10^4   1/2   1 1/2
words    twelve hundred   two and a half   three quarters   twenty-first
both     2.5 million   $5k   5th   2 thirds
"""

import re
from fractions import Fraction
from typing import NamedTuple

from hir_jax.hindsight.verifiers import number_words as words


class Unreadable(Exception):
    """The text holds something numeric that is not understood."""


class Token(NamedTuple):
    """A number in digits, a word or a single mark, with its place in the text."""

    kind: str  # number | word | mark
    text: str
    start: int
    end: int
    spaced: bool  # white space stands before it


# Value, the token behind it, and whether it is digits that are neither power nor fraction.
Magnitude = tuple[Fraction, int, bool]

_DIGITS = re.compile(
    r"(?:\d+|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3}|(?=\.))(?:\.\d+)?(?:e[+-]?\d+)?"
)
_GROUP = re.compile(r"\d{3}")
_MOST_DIGITS = 400  # also of an exponent's result; beyond that nobody answers


class Magnitudes:
    """Reads what begins at a token, as far as it goes."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens

    def read(self, at: int, is_money: bool) -> Magnitude | None:
        """The number at a token; None where none begins.

        Args:
            at: the token's index.
            is_money: a currency stands before it, so "m" is a million.

        Raises:
            Unreadable: one begins, but not as numbers are written.
        """
        fraction = self._fraction_words(at)
        if fraction is not None:
            return *self._scaled(*fraction), False
        if self._kind(at) == "number":
            return self._digits(at, is_money)
        cardinal = self._cardinal(at)
        if cardinal is None:
            return None
        value, stop, scaled = cardinal
        value, stop = self._with_part(value, stop, scaled)
        return value, stop, False

    # Digits --------------------------------------------------------------------------------------

    def _digits(self, at: int, is_money: bool) -> Magnitude:
        special = self._slashed(at) or self._power(at)
        if special is not None:
            return *self._scaled(*special), False
        letters = self._word(at + 1)
        attached = letters and not self.tokens[at + 1].spaced
        if attached and letters in ("st", "nd", "rd", "th") and self.tokens[at].text.isdigit():
            return self._value(at), at + 2, False
        scales = words.LETTER_SCALES | (words.MONEY_SCALES if is_money else {})
        if (attached or is_money) and letters in scales:
            return self._value(at) * scales[letters], at + 2, True
        cardinal = self._cardinal(at)
        assert cardinal is not None
        value, stop, scaled = cardinal
        whole, behind = value, stop
        value, stop = self._with_part(value, stop, scaled)
        return value, stop, (value, stop) == (whole, behind)

    def _grouped(self, at: int) -> tuple[Fraction, int]:
        """Digits and further groups of three behind spaces: 1 200 000."""
        stop = at + 1
        text = self.tokens[at].text
        if text.isdigit() and len(text) < 4 and text[0] != "0":
            while self._kind(stop) == "number" and self.tokens[stop].spaced:
                whole, _, decimals = self.tokens[stop].text.partition(".")
                if not _GROUP.fullmatch(whole) or not (decimals + "0").isdigit():
                    break
                text += self.tokens[stop].text
                stop += 1
                if decimals:
                    break
        return _number(text), stop

    def _slashed(self, at: int) -> tuple[Fraction, int] | None:
        """1/2, or 1 1/2."""
        mixed = (
            self._kind(at + 1) == "number"
            and self.tokens[at + 1].spaced
            and self._text(at + 2) == "/"
        )
        over = at + 1 if mixed else at
        if self._text(over + 1) != "/" or self._kind(over + 2) != "number":
            return None
        slash, below = self.tokens[over + 1 : over + 3]
        if slash.spaced != below.spaced or (mixed and slash.spaced):
            raise Unreadable
        above, under = self._value(over), self._value(over + 2)
        stop = over + 3
        if above.denominator != 1 or under.denominator != 1 or not under:
            raise Unreadable
        if self._word(stop) == "th" and not self.tokens[stop].spaced:
            stop += 1
        value = above / under
        if mixed:
            whole = self._value(at)
            if value >= 1 or whole.denominator != 1:
                raise Unreadable
            value += whole
        return value, stop

    def _power(self, at: int) -> tuple[Fraction, int] | None:
        """10^4, 10**4, 3 x 10^4."""
        factor, base = Fraction(1), at
        if self._text(at + 1) in ("x", "×", "*", "·") and self._text(at + 2) == "10":
            if not self._exponent(at + 3):
                return None
            factor, base = self._value(at), at + 2
        exponent = self._exponent(base + 1)
        if exponent is None:
            return None
        power, stop = exponent
        number = self._value(base)
        if abs(power) * len(self.tokens[base].text) > _MOST_DIGITS or (not number and power <= 0):
            raise Unreadable
        return factor * number**power, stop

    def _exponent(self, at: int) -> tuple[int, int] | None:
        """What "^4", "^-4", "^{4}", "^(4)" or "**4" raises to."""
        if self._text(at) == "^":
            at += 1
        elif self._text(at) == self._text(at + 1) == "*":
            at += 2
        else:
            return None
        closing = {"{": "}", "(": ")"}.get(self._text(at), "")
        at += bool(closing)
        negative = self._text(at) == "-"
        at += self._text(at) in ("-", "+") and self._text(at) != ""
        if self._kind(at) != "number" or not self.tokens[at].text.isdigit():
            raise Unreadable
        if len(self.tokens[at].text) > 4 or (closing and self._text(at + 1) != closing):
            raise Unreadable
        power = int(self.tokens[at].text)
        return -power if negative else power, at + 1 + bool(closing)

    # Words ---------------------------------------------------------------------------------------

    def _cardinal(self, at: int) -> tuple[Fraction, int, bool] | None:
        """Groups with falling scales, "two million three hundred thousand and five", or an ordinal.

        Also gives whether a scale stands at the end.
        """
        total, limit, stop = Fraction(0), 0, at
        while True:
            begin = stop
            if limit and self._text(begin) == "and":
                begin += 1
            if self._text(begin) == "a" and self._scale(begin + 1):
                begin, group = begin + 1, (Fraction(1), begin + 1, False)
            else:
                group = self._group(begin)
            value, behind, ordinal = group or (Fraction(1), begin, False)
            scale = 0 if ordinal else self._scale(behind)
            if group is None and (limit or not scale):
                break
            if scale and (not limit or scale < limit):
                total, limit, stop = total + value * scale, scale, behind + 1
                continue
            if limit and (value >= limit or self._kind(begin) == "number"):
                break
            return total + value, behind, False
        return (total, stop, True) if limit else None

    def _scale(self, at: int) -> int:
        word = self._word(at)
        behind_number = at > 0 and self._kind(at - 1) == "number"
        return words.SCALES.get(word, 0) or behind_number * words.PLURAL_SCALES.get(word, 0)

    def _group(self, at: int) -> tuple[Fraction, int, bool] | None:
        """Digits or a word below a hundred, with hundreds; also whether it is an ordinal."""
        if self._text(at) == "a" and self._word(at + 1) == "hundred":
            below, stop, ordinal = Fraction(1), at + 1, False
        elif self._word(at) == "hundred":
            below, stop, ordinal = Fraction(1), at, False
        elif self._word(at) in words.ORDINAL_SCALES:
            return Fraction(words.ORDINAL_SCALES[self._word(at)]), at + 1, True
        elif self._kind(at) == "number":
            below, stop, ordinal = *self._grouped(at), False
        elif found := self._below_hundred(at):
            below, stop, ordinal = found
        else:
            return None
        if ordinal or self._word(stop) != "hundred":
            return below, stop, ordinal
        value, stop = below * 100, stop + 1
        rest = self._below_hundred(stop + (self._text(stop) == "and"))
        if rest is None or self._is_parted(rest[1]):
            return value, stop, False
        return value + rest[0], rest[1], rest[2]

    def _below_hundred(self, at: int) -> tuple[Fraction, int, bool] | None:
        word = self._word(at)
        for values, ordinal in (
            (words.SMALL, False),
            (words.SMALL_ORDINALS, True),
            (words.TENS_ORDINALS, True),
        ):
            if word in values:
                return Fraction(values[word]), at + 1, ordinal
        if word not in words.TENS:
            return None
        hyphen = self._text(at + 1) == "-"
        unit = self._word(at + 1 + hyphen)
        for values, ordinal in ((words.SMALL, False), (words.SMALL_ORDINALS, True)):
            if 0 < values.get(unit, 0) < 10:
                if ordinal and unit == "second" and not hyphen:
                    raise Unreadable  # thirty seconds, or the 32nd
                return Fraction(words.TENS[word] + values[unit]), at + 2 + hyphen, ordinal
        return Fraction(words.TENS[word]), at + 1, False

    def _is_parted(self, at: int) -> bool:
        """Whether a denominator follows, so that what stands before it is a numerator."""
        return self._word(at + (self._text(at) == "-")) in words.PLURAL_DENOMINATORS

    def _fraction_words(self, at: int) -> tuple[Fraction, int] | None:
        """half, a third, one-third, three quarters, 2 thirds."""
        if self._word(at) == "half":
            return Fraction(1, 2), at + 1
        if self._word(at) in ("a", "one") or self._text(at) == "1":
            behind = at + 1 + (self._text(at + 1) == "-")
            if self._word(behind) in words.DENOMINATORS:
                return Fraction(1, words.DENOMINATORS[self._word(behind)]), behind + 1
        in_digits = self._kind(at) == "number" and self.tokens[at].text.isdigit()
        above = (self._value(at), at + 1, False) if in_digits else self._below_hundred(at)
        if above is None or above[2]:
            return None
        value, stop, _ = above
        stop += self._text(stop) == "-"
        below = words.PLURAL_DENOMINATORS.get(self._word(stop))
        if below is None:
            return None
        if in_digits and below == 4 and self._word(stop) == "quarters":
            raise Unreadable  # coins?
        return value / below, stop + 1

    def _with_part(self, value: Fraction, stop: int, scaled: bool) -> tuple[Fraction, int]:
        """With "and a half" behind it, and a scale behind that: two and a half million."""
        if self._text(stop) != "and":
            return value, stop
        part = self._fraction_words(stop + 1)
        if part is None:
            return value, stop
        if scaled or value.denominator != 1 or part[0] >= 1:
            raise Unreadable  # a million and a half
        return self._scaled(value + part[0], part[1])

    def _scaled(self, value: Fraction, stop: int) -> tuple[Fraction, int]:
        word = self._word(stop)
        scale = 100 if word == "hundred" else words.SCALES.get(word)
        return (value * scale, stop + 1) if scale else (value, stop)

    # Tokens --------------------------------------------------------------------------------------

    def _value(self, at: int) -> Fraction:
        return _number(self.tokens[at].text)

    def _text(self, at: int) -> str:
        return self.tokens[at].text if at < len(self.tokens) else ""

    def _kind(self, at: int) -> str:
        return self.tokens[at].kind if at < len(self.tokens) else ""

    def _word(self, at: int) -> str:
        return self.tokens[at].text if self._kind(at) == "word" else ""


def _number(text: str) -> Fraction:
    """1,200.5 or 1e3, exactly."""
    if len(text) > _MOST_DIGITS or not _DIGITS.fullmatch(text):
        raise Unreadable
    exponent = text.partition("e")[2]
    if len(exponent) > 4 or abs(int(exponent or 0)) > _MOST_DIGITS:
        raise Unreadable
    return Fraction(text.replace(",", ""))
