"""The order of a question's options: shuffled, but for those that speak of letters or places."""

import dataclasses
import functools
import re
import string

from hir_jax.data.example import Example
from hir_jax.data.splits import keyed_hash

_NOUN = r"(?i:options?|answers?|choices?|alternatives?|responses?)"
_NUMBER = r"(?i:number )?(?:\d|(?i:one|two|three|four|five)\b)"
_ORDINAL = r"(?i:first|second|third|fourth|fifth|sixth|last|next|previous|preceding|following)"
_LONGEST = 80  # characters of an option that speaks of those before it; others are texts

_OF_THOSE_BEFORE = re.compile(
    "|".join(
        (
            # All of the above; none of these; neither of them; more than one of the answers
            r"^\W*(?:all|any|both|each|either|neither|none|some|one|two|three|half|most|more|not?|"
            r"nothing|everything|anything)(?: [\w']+){0,4}? "
            rf"(?:above|below|these|those|them|others?|preceding|previous|{_NOUN})\b",
            r"\b(?:the|as|see|mentioned|listed) (?:above|below)\b",
            r"^\W*(?:all|both|none|neither)"
            r"(?: (?:are|is))?(?: (?:right|true|correct|false|wrong))?\W*$",
        )
    ),
    re.IGNORECASE,
)


@functools.cache
def _of_places(count: int) -> re.Pattern[str]:
    """What speaks of single options by letter, of `count` there are, or by place."""
    one = f"[A-{string.ascii_uppercase[min(count, 26) - 1]}]" if count else "(?!)"
    patterns = (
        rf"\((?i:{one})\)",  # Both (A) and (B)
        rf"^{one}\W*$",  # A
        rf"\b{one}(?:,? (?:and|or|nor|but not)|,| ?[&+/]) ?{one}\b",  # A and C; A, B, D; A & B
        # Only C. But not "neither a B movie", nor "A bird", which opens a sentence.
        rf"\b(?:(?i:only|just|both|either|neither|not)|{_NOUN}) {one}\b(?! \w)",
        rf"\b{one} (?i:only|alone)\b",
        # Both a and b; neither 1 nor 2; a, c
        rf"\b(?i:both|either|neither|only) (?i:{one}|\d) (?:and|or|nor) (?i:{one}|\d)\b",
        rf"^(?i:{one})(?:,? (?:and|or)|,| ?&) ?(?i:{one})\W*$",
        rf"\b{_ORDINAL}(?: \w+)? {_NOUN}\b",  # the first two options
        rf"\b(?i:the) {_ORDINAL} (?i:one|two|three|four)\W*$",  # the last two
        rf"\b{_NOUN} {_NUMBER}",  # options 1 and 3
        r"\b(?i:the (?:former|latter))\b",
    )
    return re.compile("|".join(patterns))


def shuffle_options(example: Example, seed: int) -> Example:
    """The example with its options in an order keyed by (seed, example id) alone.

    Only the first `movable` of them change places.
    """
    count = movable(example.options)
    moved = sorted(
        example.options[:count], key=lambda option: keyed_hash(seed, "option", example.id, option)
    )
    return dataclasses.replace(example, options=(*moved, *example.options[count:]))


def movable(options: tuple[str, ...]) -> int:
    """How many options, from the first on, may change places without falsifying any.

    Those at the end that speak of all before them ("none of the above") stay at the end. Where an
    option speaks of single ones by letter or place ("both (A) and (C)", "the first option"), or of
    those before it from elsewhere than the end, none may move. English alone is understood.

    >>> movable(("red", "blue", "none of the above")), movable(("red", "blue", "(A) and (B)"))
    (2, 0)
    """
    of_those_before = [len(o) <= _LONGEST and bool(_OF_THOSE_BEFORE.search(o)) for o in options]
    count = len(options)
    while count and of_those_before[count - 1]:
        count -= 1
    speaks = any(of_those_before[:count]) or any(map(_of_places(len(options)).search, options))
    return 0 if speaks else count
