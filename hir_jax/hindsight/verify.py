"""Verifiers: is an output a right answer to its example, and could it be read at all?"""

import dataclasses
import decimal
import functools
import importlib
import re
import unicodedata
from collections.abc import Callable

import numpy as np

from hir_jax.data import example as example_lib
from hir_jax.errors import UserError

Example = example_lib.Example


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a verifier says of one output.

    Attributes:
        correct: the output is a right answer.
        parsed: the output could be read as an answer of the kind asked for, right or wrong.
    """

    correct: bool
    parsed: bool


Verifier = Callable[[str, Example], Verdict]

UNREADABLE = Verdict(correct=False, parsed=False)

# A leading full stop or comma is outer punctuation, but not where a number begins with it: ".5".
_OUTER_START = re.compile(r"\A(?:[\s\"'`“‘«„(\[{¿¡]|[.,;:!?](?!\d))+")
_OUTER_END = " \"'`”’»)]}.,;:!?"


def normalize(text: str) -> str:
    """The text without differences of case, white space and outer punctuation: " (Blue." -> "blue".

    A text that is nothing but punctuation keeps it.
    """
    folded = _fold(text)
    return _OUTER_START.sub("", folded).rstrip(_OUTER_END) or folded


def _fold(text: str) -> str:
    # NFKC because T5's vocabulary was made from text in that form: no output has any other.
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def reference_form(text: str) -> str:
    """The text as the reference code (tianjunz/HIR) compares it: no spaces, dots or case."""
    return text.lower().replace("\n", " ").replace(" ", "").replace(".", "")


def exact(output: str, example: Example) -> Verdict:
    """Equal to one of `example.targets` after `normalize`. Parsed: not empty."""
    text = normalize(output)
    return Verdict(text in map(normalize, example.targets), parsed=bool(text))


def reference(output: str, example: Example) -> Verdict:
    """Equal to the first target in `reference_form`, so "1.5" is "15". Parsed: not empty."""
    text = reference_form(output)
    return Verdict(text == reference_form(example.targets[0]), parsed=bool(text))


def choice(output: str, example: Example) -> Verdict:
    """Names a right option: by letter ("(B)", "b", "B."), by its text, or by both ("(B) blue").

    Parsed: it can be read as naming exactly one option. A letter and a text that contradict each
    other name none; a bare "B" that is option B and also the text of option A names two.

    Raises:
        UserError: the example has no options.
    """
    if not example.options:
        raise UserError(
            f"Verifier 'choice' expects options; example {example.id!r} has none. "
            "Use 'exact', 'number' or 'list' for free-form questions, or 'auto'."
        )
    named = _named_options(output, example.options)
    if len(named) != 1:
        return UNREADABLE
    return Verdict(example.options[named.pop()] in example.answers, parsed=True)


_LETTERED = re.compile(
    r"[\"'`]*(?P<bracket>\( ?)?(?P<name>[a-z]+)(?:[\s).:,;!?\"'`]+(?P<rest>.*))?"
)


def _named_options(output: str, options: tuple[str, ...]) -> set[int]:
    """Indices of all options that the output may be read as naming."""
    texts = [normalize(option) for option in options]
    whole = normalize(output)
    by_text = {i for i, text in enumerate(texts) if text == whole}
    match = _LETTERED.fullmatch(_fold(output))
    if match is None:
        return by_text
    index_of = {normalize(example_lib.letter(i)): i for i in range(len(options))}
    index = index_of.get(match["name"])
    rest = normalize(match["rest"] or "")
    if index is None or rest not in ("", texts[index]):
        return by_text
    # "(A)" is how the prompt names an option, even where "A" is the text of another.
    return {index} if match["bracket"] else by_text | {index}


def number(output: str, example: Example) -> Verdict:
    """Has the value of one of `example.answers`: "1,200", "1200.0", "twelve hundred".

    Reads digits with sign, decimals and thousands commas, and English words up to the millions.
    Parsed: there is exactly one distinct number in the output.

    Raises:
        UserError: an answer of the example is not a number.
    """
    values = [_numbers(answer) for answer in example.answers]
    if any(len(value) != 1 for value in values):
        raise UserError(
            f"Verifier 'number' expects one number in each answer; example {example.id!r} has the "
            f"answers {list(example.answers)}. Use 'exact' or 'auto' for this task."
        )
    found = _numbers(output)
    if len(found) != 1:
        return UNREADABLE
    return Verdict(found in values, parsed=True)


_UNITS = "one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
_WORD_VALUES = {word: value for value, word in enumerate(f"zero {_UNITS} {_TEENS}".split())}
_WORD_VALUES |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}


@functools.cache
def _number_pattern() -> re.Pattern[str]:
    def one_of(words: str) -> str:
        return rf"(?:{words.replace(' ', '|')})\b"

    digits = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
    words = rf"(?:{one_of(_TENS)}(?:[ -]{one_of(_UNITS)})?|{one_of(f'zero {_UNITS} {_TEENS}')})"
    for scale in _SCALES:
        words = rf"(?:(?:(?:a|{words}) )?{scale}\b(?: (?:and )?{words})?|{words})"
    minus = r"(?<!\w)-|\bminus |\bnegative "
    return re.compile(rf"(?P<minus>{minus})?(?:(?P<digits>{digits})|\b(?P<words>{words}))")


def _numbers(text: str) -> set[decimal.Decimal]:
    """The distinct numbers that stand in a text."""
    found = set()
    for match in _number_pattern().finditer(_fold(text).replace("−", "-")):
        if match["digits"]:
            value = decimal.Decimal(match["digits"].replace(",", ""))
        else:
            value = decimal.Decimal(_word_value(match["words"].replace("-", " ").split()))
        found.add(value.copy_negate() if match["minus"] else value)
    return found


def _word_value(words: list[str]) -> int:
    """["two", "hundred", "and", "five"] -> 205; a scale without a count before it counts once."""
    for word, scale in reversed(_SCALES.items()):
        if word in words:
            at = words.index(word)
            return (_word_value(words[:at]) or 1) * scale + _word_value(words[at + 1 :])
    return sum(_WORD_VALUES.get(word, 0) for word in words)


def ordered_list(output: str, example: Example) -> Verdict:
    """The items of one of `example.answers` in the same order; parsed: at least one item.

    Items are separated by white space, commas or semicolons and compared after `normalize`.
    """
    items = _items(output)
    return Verdict(items in map(_items, example.answers), parsed=bool(items))


def _items(text: str) -> list[str]:
    return [normalize(item) for item in re.split(r"[\s,;]+", normalize(text)) if item]


def auto(output: str, example: Example) -> Verdict:
    """`choice` where the example has options, else `exact`."""
    return choice(output, example) if example.options else exact(output, example)


BUILT_IN: dict[str, Verifier] = {
    "auto": auto,
    "choice": choice,
    "exact": exact,
    "list": ordered_list,
    "number": number,
    "reference": reference,
}


def resolve(name: str) -> Verifier:
    """The verifier of a name: one of `BUILT_IN`, or "package.module:function" of the user's own.

    A user's function takes (output, example) and returns a bool, which counts as parsed, or a
    `Verdict`. The verifier returned here raises UserError where it gives anything else or fails.

    Raises:
        UserError: no such built-in, module or function.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute) or module_name.startswith("."):
        raise UserError(
            f"Unknown verifier {name!r}. Expected one of {', '.join(BUILT_IN)}, or the import path "
            "of a function of your own: 'package.module:function'."
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an import runs the user's code, which may raise anything
        raise UserError(
            f"Verifier {name!r}: importing the module {module_name!r} failed with "
            f"{type(error).__name__}: {error}. It must be importable from where you start the "
            "program: install it, or put its folder on PYTHONPATH."
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        public = sorted(k for k, v in vars(module).items() if callable(v) and k[0] != "_")
        raise UserError(
            f"Verifier {name!r}: the module {module_name!r} has no function {attribute!r}. "
            f"Its functions: {', '.join(public) or 'none'}."
        )
    return functools.partial(_call_users, name, function)


def _call_users(name: str, function: Callable, output: str, example: Example) -> Verdict:
    try:
        result = function(output, example)
    except Exception as error:
        raise UserError(
            f"Verifier {name!r} raised {type(error).__name__}: {error}, for example "
            f"{example.id!r} and the output {output!r}. It must return a verdict for any text."
        ) from error
    if isinstance(result, Verdict):
        return result
    if isinstance(result, bool | np.bool_):
        return Verdict(bool(result), parsed=True)
    raise UserError(
        f"Verifier {name!r} must return a bool or a hir_jax.hindsight.verify.Verdict; it returned "
        f"{result!r} of type {type(result).__name__}, for example {example.id!r}."
    )
