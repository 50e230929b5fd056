"""Answers compared as texts: case, white space, matched outer pairs and sentence punctuation aside.

Only an output is peeled, layer by layer, until it says what an accepted answer says. So nothing is
taken off that the answer itself has at that place, nor anything that may carry a meaning: "5!" is
not 5, "(0,1]" is not "[0,1)".
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator

from hir_jax.data.example import Example
from hir_jax.hindsight.verifiers.verdict import Verdict

_SUPERSCRIPTS = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_LETTERS_SUPERSCRIPT = re.compile(r"(?<=[^\W\d_])[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
_ALIKE = str.maketrans(dict.fromkeys("‐‑‒–—―−⁻﹘﹣－", "-") | dict.fromkeys("‘’‚‛`´′", "'"))
_ALIKE |= str.maketrans(dict.fromkeys("“”„‟″", '"') | {"⁄": "/"})
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_PAIRS = _BRACKETS | {'"': '"', "'": "'", "«": "»", "$": "$", "*": "*"}
_LEADING = re.compile(r"\A(?:\.{2,}|[.,;:](?=\s)|[¿¡])\s*(?!\d)")
_STOPS = ".,;:?。、"
# Pairs and stops around one answer; also bounds the time that an output of nothing else takes.
_MOST_LAYERS = 64


def plain(text: str) -> str:
    """Characters that look alike made one, white space single: "10² – ½" -> "10^2 - 1/2".

    NFKC because T5's vocabulary was made from text in that form: no output has any other. But
    alone it would make 102 of 10² and 21/2 of 2½.
    """
    text = _SUPERSCRIPTS.sub(lambda run: f"^{unicodedata.normalize('NFKC', run[0])}", text)
    text = _VULGAR.sub(lambda one: f" {unicodedata.normalize('NFKC', one[0])}", text)
    return " ".join(unicodedata.normalize("NFKC", text.translate(_ALIKE)).translate(_ALIKE).split())


def fold(text: str) -> str:
    """`plain`, without differences of case."""
    return plain(text).casefold()


def layers(text: str) -> Iterator[str]:
    """A folded text, then what is left after each pair and sentence stop around it is taken off.

    '"(Blue)."' gives itself, '(blue).', '(blue)', 'blue'.
    """
    for _ in range(_MOST_LAYERS):
        yield text
        rest = (_without_stop(text) or _without_pair(text) or _LEADING.sub("", text, 1)).strip()
        if rest in ("", text):
            return
        text = rest


def innermost(text: str) -> str:
    """The last of the layers of a text: what all have in common that say the same."""
    *_, last = layers(fold(text))
    return last


def _without_stop(text: str) -> str:
    """The text without what ends a sentence; '' where nothing does.

    "..." stays where it may stand for further digits, "!" where it may be a factorial.
    """
    if text[-3:] == "..." and text.rstrip(".")[-1:].isdigit():
        return ""
    if text[-1:] == "!":
        rest = text.rstrip("!?")
        return rest if (rest[-2:].isalpha() and len(rest) > 1) or rest[-1:] in ("'", '"') else ""
    return text[:-1] if text[-1:] in tuple(_STOPS) else ""


def _without_pair(text: str) -> str:
    """The text without the pair of quotes or brackets around all of it; '' where there is none."""
    closing = _PAIRS.get(text[:1])
    if closing is None or len(text) < 3 or text[-1] != closing:
        return ""
    inner = text[1:-1]
    if text[0] in _BRACKETS:
        return inner if _is_balanced(inner) and has_letter_or_digit(inner) else ""
    if closing == "'":
        return "" if re.search(r"'(?!\w)|(?<!\w)'", inner) else inner
    if closing == "*" and inner[0] == inner[-1] == "*":
        inner = inner[1:-1]
    return "" if closing in inner or text[0] in inner else inner


def _is_balanced(text: str) -> bool:
    opened = []
    for character in text:
        if character in _BRACKETS:
            opened.append(_BRACKETS[character])
        elif character in _BRACKETS.values() and (not opened or opened.pop() != character):
            return False
    return not opened


def has_letter_or_digit(text: str) -> bool:
    """Whether a text is more than punctuation."""
    return any(character.isalnum() for character in text)


@functools.lru_cache(1 << 16)
def forms(answer: str) -> frozenset[str]:
    """The folded texts that say an answer.

    Besides itself: without quotes around all of it; without the full stop after its last letter
    ("U.S."); and, since T5 writes them so, with a letter's superscript on the line ("x²" as "x2").
    """
    flat = _LETTERS_SUPERSCRIPT.sub(lambda run: unicodedata.normalize("NFKC", run[0]), answer)
    found = {fold(answer), fold(flat)}
    found |= {_without_pair(text) or text for text in found if text[:1] in ("'", '"')}
    bare = {text[:-1] for text in found if text[-1:] == "." and text[-2:-1].isalpha()}
    return frozenset(found | bare)


def says(output: str, answers: Iterable[str]) -> bool:
    """Whether an output is one of the answers, less what `layers` takes off.

    White space means nothing where there is neither letter nor digit: "))" says ") )".
    """
    answers = list(answers)
    accepted = set().union(*map(forms, answers))
    closed = {text.replace(" ", "") for text in accepted if not has_letter_or_digit(text)}
    return any(
        text in accepted or (closed and text.replace(" ", "") in closed)
        for text in layers(fold(output))
    )


def exact(output: str, example: Example) -> Verdict:
    """One of `example.targets`, as `says` compares; a letter also without brackets.

    Parsed: not empty.
    """
    read = " ".join(output.split())
    bare = [target[1:-1] for target in example.targets if example.options]
    correct = bool(read) and says(read, [*example.targets, *bare])
    return Verdict(correct, bool(read), read, canonical=innermost(read))


def reference_form(text: str) -> str:
    """The text as the reference code (tianjunz/HIR) compares it: no spaces, dots or case."""
    return text.lower().replace("\n", " ").replace(" ", "").replace(".", "")


def reference(output: str, example: Example) -> Verdict:
    """Equal to the first target in `reference_form`, so "1.5" is "15". Parsed: not empty."""
    text = reference_form(output)
    return Verdict(text == reference_form(example.targets[0]), bool(text), text)


def ordered_list(output: str, example: Example) -> Verdict:
    """The items of one of `example.answers` in the same order; parsed: at least one item.

    Items are separated by white space, commas or semicolons, the last two also by "and", and each
    is compared as `says` does.
    """
    answers = [items(answer) for answer in example.answers]
    read = [items(text) for text in layers(fold(output))] if output.strip() else [[]]
    correct = any(_same_items(given, answer) for given in read for answer in answers)
    if not read[0]:
        return Verdict(correct, False)
    canonical = " ".join(innermost(item) for item in _without_and(read[-1]))
    return Verdict(correct, True, " ".join(output.split()), canonical=canonical)


def items(text: str) -> list[str]:
    """What white space, commas and semicolons part."""
    return [item for item in re.split(r"[\s,;]+", text) if item]


def _without_and(given: list[str]) -> list[str]:
    return [*given[:-2], given[-1]] if given[-2:-1] in (["and"], ["&"]) else given


def _same_items(given: list[str], answer: list[str]) -> bool:
    if len(given) == len(answer) + 1:
        given = _without_and(given)
    same = (says(item, [gold]) for item, gold in zip(given, answer, strict=False))
    return len(given) == len(answer) and all(same)
