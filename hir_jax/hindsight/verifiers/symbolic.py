"""LaTeX and symbolic answers, through the package math-verify."""

import functools
import importlib.util
import logging
import re
from typing import Any

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.verifiers import texts
from hir_jax.hindsight.verifiers.verdict import UNREADABLE, Verdict, Verifier

# Of parsing, and again of comparing. math-verify counts them by SIGALRM: in the main thread only.
_SECONDS = 3
_MOST_CHARACTERS = 500
# Its parser reads a part of these: "1 1/2" is 1 to it, 10_2 is 10, "5 apples" and "2 billion" not
# what they say. So words are not read; \sin, \text{...} and "x or y" are left to it.
_DROPPED = re.compile(r"\d\s+\d|\d\s*_|(?<![\\a-z])(?!(?:and|or|in)\b)[a-z]{3,}", re.IGNORECASE)
_PHRASE = re.compile(r"\\(?:text|mathrm|textbf|operatorname)\s*\{[^{}]*\}|\\[a-zA-Z]+")
_PERCENT = re.compile(r"\\?%")
_FENCE = re.compile(r"\\boxed\{(.*)\}|\$\$?([^$]*)\$?\$|\\[(\[](.*)\\[)\]]", re.DOTALL)


def math() -> Verifier:
    r"""The verifier: equal, as mathematics, to one of `example.answers`: "\frac{1}{2}", "0.5".

    The whole output is one expression, in `$...$` or `\boxed{}` or bare; one that stands in a
    sentence is for 'final:math'. Parsed: math-verify can read it and compare in time.

    Raises:
        UserError: math-verify is not installed.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise UserError(
            "Verifier 'math' expects the package math-verify, which is not installed. Install it: "
            'pip install "hir_jax[math]", or pip install math-verify.'
        )
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of each slow comparison
    return _verify


def _verify(output: str, example: Example) -> Verdict:
    read = " ".join(output.split())
    if not read:
        return UNREADABLE
    if any(texts.plain(output) == texts.plain(answer) for answer in example.answers):
        return Verdict(True, True, read)
    found = _parsed(read)
    if found is None:
        return UNREADABLE
    golds = [gold for answer in example.answers if (gold := _parsed(answer)) is not None]
    verdicts = [_equal(gold, found) for gold in golds]
    if True not in verdicts and None in verdicts:
        return UNREADABLE
    return Verdict(True in verdicts, True, read)


@functools.lru_cache(4096)
def _parsed(text: str) -> Any:
    """What math-verify makes of the whole text; None if it cannot, or would read a part."""
    from math_verify import LatexExtractionConfig, parse
    from math_verify.errors import TimeoutException

    fenced = _FENCE.fullmatch(text.strip().rstrip("."))
    inner = next((g for g in fenced.groups() if g is not None), "") if fenced else text
    # Money's sign is no fence; and "50%", which math-verify takes for 50 as well, is 0.5.
    inner = inner.strip().rstrip(".").replace(r"\$", "")
    inner = _PERCENT.sub(r"\\cdot\\frac{1}{100}", inner)
    if len(inner) > _MOST_CHARACTERS or "$" in inner or _DROPPED.search(_PHRASE.sub("~", inner)):
        return None
    try:
        # Only LaTeX is looked for: its reader of plain expressions evaluates them as code.
        found = parse(
            f"${inner}$",
            [LatexExtractionConfig()],
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=_SECONDS,
            raise_on_error=True,
        )
    except (Exception, TimeoutException):  # whatever a parser may raise at a model's output
        return None
    return found or None


def _equal(gold: Any, found: Any) -> bool | None:
    """None where it cannot be told in time."""
    from math_verify import verify
    from math_verify.errors import TimeoutException

    try:
        return bool(verify(gold, found, timeout_seconds=_SECONDS, raise_on_error=True))
    except (Exception, TimeoutException):
        return None
