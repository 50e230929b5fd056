"""LaTeX and symbolic answers, through the package math-verify in a process of its own."""

import decimal
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import threading
import unicodedata

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.verifiers import texts
from hir_jax.hindsight.verifiers.verdict import UNREADABLE, Verdict, Verifier

# For one output. A slower machine reads less: give both machines of a comparison time enough.
SECONDS = 5
_MOST_CHARACTERS = 500
_SPACE = r"(?:\\[,;:!> ]|\\q?quad\b|~)"
# Its parser reads a part of these: "1 1/2" is 1 to it, 10_2 is 10, 10\,5 is 15, "5 apples" and "2
# billion" not what they say. So words are not read; \sin, \text{...} and "x or y" are left to it.
_DROPPED = re.compile(
    rf"\d(?:\s+|\s*{_SPACE}\s*)+\d|\d\s*_|\de[+-]?\d|(?<![\\a-z])(?!(?:and|or|in)\b)[a-z]{{3,}}",
    re.IGNORECASE,
)
_COMMAND = re.compile(
    r"\\(?:text|mathrm|textbf|operatorname)\s*\{[^{}]*\}|\\(?:begin|end)\{[a-zA-Z]?matrix\}"
    r"|\\(?!q?quad\b)[a-zA-Z]+"
)
# And these it reads as products: 1.5e3, pi; 10\,236 as a sum.
_SCIENTIFIC = re.compile(r"(?<![\w.])(?:\d+\.?\d*|\.\d+)e[+-]?\d{1,2}(?![\w.])", re.IGNORECASE)
_GROUPED = re.compile(rf"(?<![\d.,])\d{{1,3}}(?:\s*{_SPACE}\s*\d{{3}})+(?!\d)")
# It drops "√", "½" and "³". What these belong to must be plain: of 2½, √2x and ³√8 it is not.
_VULGAR = re.compile(r"(?<![\d.])(?<!\d )[¼-¾⅐-⅞](?! ?[\d¼-¾⅐-⅞])")
_POWER = re.compile(r"(?<=[\w)}\]])[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]++(?![√\d])")
_ROOT = re.compile(
    r"√ ?(\d+(?:\.\d+)?(?![\w.^(])|[a-z](?![\w^(])|\([^()]*\)(?!\^))(?! ?\d)", re.IGNORECASE
)
_PI = re.compile(r"(?<![\\a-z])pi(?![a-z])", re.IGNORECASE)
_PERCENT = re.compile(r"\\?%")
_FENCE = re.compile(r"\\boxed\{(.*)\}|\$\$?([^$]*)\$?\$|\\[(\[](.*)\\[)\]]", re.DOTALL)


def math() -> Verifier:
    r"""The verifier: equal, as mathematics, to one of `example.answers`: "\frac{1}{2}", "0.5".

    The whole output is one expression, in `$...$` or `\boxed{}` or bare; one that stands in a
    sentence is for 'final:math'. Parsed: math-verify can read it and compare within `SECONDS`.

    Raises:
        UserError: math-verify is not installed.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise UserError(
            "Verifier 'math' expects the package math-verify, which is not installed. Install it: "
            'pip install "hir_jax[math]", or pip install math-verify.'
        )
    return _verify


def _verify(output: str, example: Example) -> Verdict:
    read = " ".join(output.split())
    if not read:
        return UNREADABLE
    if any(texts.plain(output) == texts.plain(answer) for answer in example.answers):
        return Verdict(True, True, read, canonical=_expression(read))
    expression = _expression(read)
    if not expression:
        return UNREADABLE
    answers = [e for answer in example.answers if (e := _expression(answer))]
    correct = _WORKER.ask({"answers": answers, "output": expression, "seconds": SECONDS})
    return UNREADABLE if correct is None else Verdict(correct, True, read, canonical=expression)


def _expression(text: str) -> str:
    """What math-verify is given of a text; '' where it would read a part of it."""
    fenced = _FENCE.fullmatch(text.strip().rstrip("."))
    inner = next((g for g in fenced.groups() if g is not None), "") if fenced else text
    # Money's sign is no fence; and "50%", which math-verify takes for 50 as well, is 0.5.
    inner = inner.strip().rstrip(".").replace(r"\$", "")
    inner = _PERCENT.sub(r"\\cdot\\frac{1}{100}", inner)
    inner = _SCIENTIFIC.sub(lambda number: format(decimal.Decimal(number[0]), "f"), inner)
    inner = _GROUPED.sub(lambda number: re.sub(r"\D", "", number[0]), inner)
    inner = _PI.sub(r"\\pi", inner)
    inner = _VULGAR.sub(_fraction, inner)
    inner = _POWER.sub(lambda power: f"^{{{unicodedata.normalize('NFKC', power[0])}}}", inner)
    inner = _ROOT.sub(r"\\sqrt{\1}", inner)
    is_whole = "$" not in inner and not _DROPPED.search(_COMMAND.sub("#", inner))
    return inner if is_whole and len(inner) <= _MOST_CHARACTERS else ""


def _fraction(vulgar: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", vulgar[0]).partition("⁄")
    return rf"\frac{{{above}}}{{{below}}}"


class _Worker:
    """The process of `math_worker`, begun at the first question and again after each it died of."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.lock = threading.Lock()

    def ask(self, request: dict) -> bool | None:
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self.process = self._begin()
            try:
                print(json.dumps(request), file=self.process.stdin, flush=True)
                answer = self.process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if not answer:
                self.process.wait()
        return json.loads(answer) if answer else None

    def _begin(self) -> "subprocess.Popen[str]":
        file = pathlib.Path(__file__).with_name("math_worker.py")
        return subprocess.Popen(
            [sys.executable, "-P", str(file)],  # -P: its folder's modules are not for everyone
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for us, who end it by ending its input
        )


_WORKER = _Worker()
