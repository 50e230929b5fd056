"""The answer that a longer text comes to, and its verdict."""

import dataclasses
import re

from hir_jax.data.example import Example
from hir_jax.hindsight.verifiers import numerals
from hir_jax.hindsight.verifiers.choice import choice
from hir_jax.hindsight.verifiers.number import number
from hir_jax.hindsight.verifiers.texts import exact
from hir_jax.hindsight.verifiers.verdict import UNREADABLE, Verdict, Verifier


def final(output: str, example: Example) -> Verdict:
    """The verdict on what `take` finds: `choice` where there are options, `number` or `exact`.

    `number` where every accepted answer is a number and no more.
    """
    return judged_by(_suited(example))(output, example)


def judged_by(verifier: Verifier) -> Verifier:
    """The verifier that gives `verifier` the answer in a text; parsed: there is one, and readable.

    An empty answer is still given to it, so that it can say whether the questions suit it.
    """

    def verify(output: str, example: Example) -> Verdict:
        taken = take(output)
        verdict = verifier(taken, example)
        if not taken:  # nothing was answered, whatever facts hold of it
            return dataclasses.replace(UNREADABLE, facts=verdict.facts)
        return dataclasses.replace(verdict, read=verdict.read or taken)

    return verify


def _suited(example: Example) -> Verifier:
    if example.options:
        return choice
    golds = [numerals.read(answer) for answer in example.answers]
    return number if all(gold is not None and gold.alone for gold in golds) else exact


_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HASHES = re.compile(r"####(?!#)")
_SAYS = re.compile(
    r"\banswers?\b(?:\s+(?:to|for|of)\b[^.:\n]{0,80}?)?\s*"
    r"(?:[:=]|\b(?:is|are|was|would be)\b\s*:?)",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(r"(?<![\w*])\*\*(?=\S)([^*]+)(?<=\S)\*\*(?![\w*])")
_PHRASE = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
# A full stop behind one of these, or behind a single letter, ends no sentence.
_ABBREVIATIONS = (
    "mr mrs ms dr st prof jr sr mt ft no vs gen col capt lt sgt rev hon ave inc ltd co corp dept "
    "eg ie etc approx fig jan feb mar apr jun jul aug sep sept oct nov dec"
)
_SHORT = frozenset(_ABBREVIATIONS.split())


def take(text: str) -> str:
    r"""The final answer of a text, '' where there is none.

    It stands in the last \boxed{...}, behind the last "####" or the last "answer is" or "answer:",
    whichever comes last; where none comes, it is the last line. Behind "answer is" it ends with its
    line or sentence. A box that is not closed holds none.
    """
    text = _EMPHASIS.sub(r"\1", text.strip())
    marks = [(m.start(), m.end(), m.re) for p in (_BOXED, _HASHES, _SAYS) for m in p.finditer(text)]
    if not marks:
        return text.splitlines()[-1].strip() if text else ""
    _, end, mark = max(marks)
    rest = text[end:].strip()
    if mark is _BOXED:
        taken = _inside(text, end)
    elif mark is _HASHES:
        taken = rest.partition("\n")[0]
    else:
        taken = _sentence(rest.partition("\n")[0])
    return _PHRASE.sub(r"\1", taken).strip()


def _inside(text: str, start: int) -> str:
    r"""The text from `start` to the brace that closes it; \{ and \} are none."""
    depth = 1
    for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if not depth:
            return text[start : start + brace.start()]
    return ""


def _sentence(line: str) -> str:
    """The line up to the end of its first sentence, where another sentence follows."""
    for stop in re.finditer(r"[.!?](?=[\"')\]*]*\s+[\"'(\[]?[A-Z])", line):
        before = re.search(r"([^\W\d_]*)\Z", line[max(0, stop.start() - 20) : stop.start()])
        word = before[1].lower() if before else ""
        if stop[0] != "." or not (len(word) == 1 or word in _SHORT):
            return line[: stop.start() + 1]
    return line
