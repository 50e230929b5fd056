"""Reads the one number that a text gives, wholly: sign, scale, exponent, fraction, percent, unit.

The rule: where anything numeric in the text is not understood to its end, or where there are two
numbers, the text cannot be read; a part is never taken for the whole. A text is cut into tokens
once and each token is looked at a bounded number of times.
"""

import dataclasses
import itertools
import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from hir_jax.hindsight.verifiers import number_words as words
from hir_jax.hindsight.verifiers import texts
from hir_jax.hindsight.verifiers.magnitudes import Magnitudes, Token, Unreadable


@dataclasses.dataclass(frozen=True)
class Numeral:
    """A number as it stands in a text.

    Attributes:
        value: exact.
        unit: "dollar", "mile per hour", ...; '' where there is none of those that are known.
        text: its characters.
        alone: nothing else stands in the text but punctuation.
    """

    value: Fraction
    unit: str
    text: str
    alone: bool


def read(text: str) -> Numeral | None:
    """The number that a text gives, once or repeated ("21 (twenty-one)"); None if it gives none.

    Words around it are taken for a sentence or a unit ("She has 5 apples."). "(5)" alone is -5, as
    in accounts; 50% is 0.5.
    """
    try:
        return _Reader(_prepared(text)).read()
    except Unreadable:
        return None


_TOKEN = re.compile(
    r"(?P<number>\.?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?)|(?P<word>[^\W\d_]+(?:'[^\W\d_]+)*)|(?P<mark>\S)"
)
# What LaTeX writes around numbers, and marks of emphasis. Only fractions of digits: whatever keeps
# its backslash cannot be read.
_REWRITTEN = [
    (re.compile(r"(?<!\\)\$(?=[^\s$])([^$]+)(?<=[^\s\\])\$(?!\d)"), r"\1"),
    (re.compile(r"\\[dt]?frac(?:\{(\d+)\}\{(\d+)\}|(\d)(\d))"), r" \1\3/\2\4"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "×"),
    (re.compile(r"\\(?:text|mathrm)\{([^{}\\]*)\}"), r" \1 "),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\[()\[\],!;]"), ""),
    (re.compile(r"\*\*(?=\S)([^*]+)(?<=\S)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*]+)(?<=\S)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
]


def _prepared(text: str) -> str:
    """One spelling for what is written in several. Raises Unreadable for numbers in other signs."""
    for character in text:
        if unicodedata.category(character) in ("No", "Nl"):
            # Of those only superscripts and fractions become something else in `plain`.
            if texts.plain(character) == unicodedata.normalize("NFKC", character):
                raise Unreadable
        elif not character.isascii() and character.isnumeric() and not character.isdecimal():
            raise Unreadable  # 三
    text = texts.fold(text)
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    return text


def _tokens(text: str) -> list[Token]:
    found, end = [], -1
    for match in _TOKEN.finditer(text):
        spaced = match.start() != end
        end = match.end()
        found.append(Token(match.lastgroup or "", match[0], match.start(), end, spaced))
    return found


class _Found(NamedTuple):
    """A number at tokens [start, stop)."""

    value: Fraction
    unit: str
    start: int
    stop: int
    bare: bool  # unsigned digits, which brackets make negative in accounts


class _Reader:
    """The tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.magnitudes = Magnitudes(self.tokens)

    def read(self) -> Numeral | None:
        found, at = [], 0
        while at < len(self.tokens):
            one = self._numeral(at)
            if one is None:
                self._check_harmless(at)
                at += 1
                continue
            self._check_before(one)
            self._check_behind(one)
            found.append(one)
            at = one.stop
        if not found:
            return None
        for before, behind in itertools.pairwise(found):
            self._check_between(before.stop, behind.start)
        return self._one_of(found)

    def _one_of(self, found: list[_Found]) -> Numeral:
        mains = [one for one in found if not (one.bare and self._is_bracketed(one))]
        inside = {i for one in found for i in range(one.start, one.stop)}
        others = [t for i, t in enumerate(self.tokens) if i not in inside]
        alone = not any(token.kind == "word" for token in others)
        if not mains:
            if not alone or len(found) > 1 or len(others) - self._stops() != 2:
                raise Unreadable
            mains = found = [found[0]._replace(value=-found[0].value)]
        first = mains[0]
        if any(one.value != first.value for one in found):
            raise Unreadable
        unit = next((one.unit for one in mains if one.unit), "")
        start, end = self.tokens[first.start].start, self.tokens[first.stop - 1].end
        if self._is_bracketed(first):
            start, end = self.tokens[first.start - 1].start, self.tokens[first.stop].end
        return Numeral(first.value, unit, self.text[start:end], alone)

    def _stops(self) -> int:
        """How many sentence stops stand at the end."""
        return len(self.text) - len(self.text.rstrip(".,;:"))

    def _is_bracketed(self, one: _Found) -> bool:
        return self._text(one.start - 1) == "(" and self._text(one.stop) == ")"

    # One number ----------------------------------------------------------------------------------

    def _numeral(self, start: int) -> _Found | None:
        """The number that begins at a token, with its signs and its unit; None if none does."""
        at, sign, currency = start, 1, ""
        signed = False
        while at < len(self.tokens):
            token = self.tokens[at]
            if token.text in ("-", "+", "minus", "negative") and not signed:
                signed, sign = True, 1 if token.text == "+" else -1
            elif token.text in (*words.CURRENCIES, *words.CODES) and not currency:
                currency = words.UNIT_OF[token.text]
            else:
                break
            at += 1
        if currency and self._text(at) == "(":
            return self._in_account(start, at + 1, currency)
        magnitude = self.magnitudes.read(at, bool(currency))
        if magnitude is None:
            return None
        if signed and self.tokens[start].text in "-+" and not self._may_be_sign(start):
            raise Unreadable
        value, stop, bare = magnitude
        stop, value = self._percent(stop, value)
        unit, stop = self._unit(stop, currency)
        return _Found(sign * value, unit, start, stop, bare and not signed)

    def _in_account(self, start: int, at: int, currency: str) -> _Found:
        """$(5), whose brackets stand behind the currency."""
        magnitude = self.magnitudes.read(at, True)
        if magnitude is None or not magnitude[2] or self._text(magnitude[1]) != ")":
            raise Unreadable
        value, stop, _ = magnitude
        return _Found(-value, currency, start, stop + 1, False)

    def _may_be_sign(self, at: int) -> bool:
        """Whether a dash before a number is its sign, not a hyphen, a range or a difference."""
        if at == 0:
            return True
        before, dash, behind = self.tokens[at - 1 : at + 2]
        if before.kind == "number" or before.text in (")", "]", "}", "%", "-", "+"):
            return False
        if before.kind == "word" or before.text in ".?!,":
            return dash.spaced and not behind.spaced
        return True

    def _percent(self, at: int, value: Fraction) -> tuple[int, Fraction]:
        if self._text(at) in words.PERCENT:
            return at + 1, value / 100
        if self._text(at) == "per" and self._text(at + 1) == "cent":
            return at + 2, value / 100
        if self._text(at) == "‰":
            return at + 1, value / 1000
        return at, value

    def _unit(self, at: int, currency: str) -> tuple[str, int]:
        """The unit behind a number, or its currency, and what it is per: 5€, 5 miles per hour."""
        unit = currency or words.UNIT_OF.get(self._text(at), "")
        if not unit:
            return "", at
        at += not currency
        if unit == "degree" and self._text(at) in words.DEGREES:
            return f"degree {words.DEGREES[self._text(at)]}", at + 1
        if self._text(at) == "^" and self._text(at + 1) in ("2", "3"):
            return f"{unit}^{self._text(at + 1)}", at + 2
        per = self._text(at + 1)
        if self._text(at) == "/" and per.isalpha() and not self.tokens[at + 1].spaced:
            return f"{unit} per {words.UNIT_OF.get(per, per)}", at + 2
        if self._text(at) in ("per", "a", "an") and per in words.UNIT_OF:
            return f"{unit} per {words.UNIT_OF[per]}", at + 2
        return unit, at

    # What stands around it -----------------------------------------------------------------------

    def _check_harmless(self, at: int) -> None:
        """A token that belongs to no number must not change one."""
        token = self.tokens[at]
        if token.kind == "word":
            if token.text in words.DENYING or token.text.endswith("n't"):
                raise Unreadable
        elif (
            token.kind == "number"
            or (
                token.text in "+*×÷·^√±<>≤≥≠∞π|\\_@∑∏∫∓&"
                and (token.text != "&" or self._is_number(at - 1) or self._is_number(at + 1))
            )
        ) or unicodedata.category(token.text) in ("No", "Nl"):
            raise Unreadable

    def _check_before(self, one: _Found) -> None:
        if not one.start:
            return
        token, before = self.tokens[one.start], self.tokens[one.start - 1]
        if before.kind == "word":
            if before.text in words.MONTHS or (
                not token.spaced and token.text not in words.CURRENCIES
            ):
                raise Unreadable
        elif before.text in "/-!'" if token.spaced else before.text not in "([{\"':=~≈#$":
            raise Unreadable

    def _check_behind(self, one: _Found) -> None:
        if one.stop >= len(self.tokens):
            return
        token = self.tokens[one.stop]
        following = self.tokens[one.stop + 1] if one.stop + 1 < len(self.tokens) else None
        attached = following is not None and not following.spaced
        if token.kind == "word":
            is_letter = len(token.text) == 1 and token.text not in ("a", "i")
            abbreviated = token.text == "a" and attached and following.text == "."
            if not token.spaced and self.tokens[one.stop - 1].kind == "number":
                raise Unreadable  # "5x"
            if is_letter or abbreviated or token.text in words.MONTHS:
                raise Unreadable
            if words.CHANGING.fullmatch(token.text):
                raise Unreadable
        elif token.text in "-/":
            is_word = following is not None and following.kind == "word"
            if not is_word or len(following.text) < 2 or following.text in words.NUMBER_WORDS:
                raise Unreadable
            if words.CHANGING.fullmatch(following.text):
                raise Unreadable
        elif token.text == "'" and self._text(one.start - 1) != "'":
            raise Unreadable  # 5'
        elif token.text == '"' and self._text(one.start - 1) != '"' and not token.spaced:
            raise Unreadable  # 5", unless a longer quotation ends here
        elif token.text == "!" or (
            token.text in ".,:;'"
            and attached
            and following.text != token.text
            and following.kind != "mark"
        ):
            raise Unreadable  # a factorial; 10:30; 1.x
        elif token.text == "." and attached and following.text == ".":
            raise Unreadable  # 3.14...

    def _check_between(self, start: int, stop: int) -> None:
        """Two numbers say the same thing twice only with words, a bracket or "=" between."""
        between = [token.text for token in self.tokens[start:stop]]
        if "(" in between or "=" in between:
            return
        if not any(text[0].isalpha() and text not in words.LINKING for text in between):
            raise Unreadable

    def _text(self, at: int) -> str:
        return self.tokens[at].text if 0 <= at < len(self.tokens) else ""

    def _is_number(self, at: int) -> bool:
        return 0 <= at < len(self.tokens) and self.tokens[at].kind == "number"
