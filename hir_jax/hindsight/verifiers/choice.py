"""Answers that name one of the options, by letter, by text or by both."""

import re
from collections.abc import Sequence

from hir_jax.data.example import Example, letter
from hir_jax.errors import UserError
from hir_jax.hindsight.verifiers import texts
from hir_jax.hindsight.verifiers.verdict import UNREADABLE, Verdict


def choice(output: str, example: Example) -> Verdict:
    """Names a right option: "(B)", "b", "Option B", "The answer is **B**.", "blue", "(B) blue".

    A text names the options that have exactly that text, else those that it says less pairs and
    stops (`texts.layers`). A letter in brackets is a letter; a bare "B" that is option B and also
    the text of option A names both. A letter and a text that contradict each other name none.
    Parsed: all options named are right, or all are wrong.

    Raises:
        UserError: the example has no options.
    """
    if not example.options:
        raise UserError(
            f"Verifier 'choice' expects options; example {example.id!r} has none. "
            "Use 'exact', 'number' or 'list' for free-form questions, or 'auto'."
        )
    named = _named(output, example.options)
    verdicts = {example.options[i] in example.answers for i in named}
    if len(verdicts) != 1:
        return UNREADABLE
    read = " or ".join(f"{letter(i)} {example.options[i]}" for i in sorted(named))
    return Verdict(verdicts.pop(), True, read)


_LETTER = re.compile(r"(?P<open>[(\[] ?)?(?P<name>[a-z]{1,3}) ?[)\]]?")
_LETTER_FIRST = re.compile(rf"{_LETTER.pattern}(?: - |[\s).:,;]|(?<=[)\]]))(?P<rest>.+)")
_LETTER_LAST = re.compile(
    r"(?P<rest>.+?)[\s,:;-]{0,3}(?:(?P<open>[(\[])(?:option |choice )?(?P<name>[a-z]{1,3})[)\]]"
    r"|[,:;-] ?(?:option|choice) (?P<bare>[a-z]{1,3}))"
)
_SAYING = re.compile(
    r"(?:(?:so|thus|therefore|hence)[, ]+)?"
    r"(?:(?:the )?(?:(?:correct|right|best|final|most likely) )*(?:answer|option|choice|letter)\b"
    r"(?: (?:is|would be|should be)\b)?|it is\b|it's\b|i (?:think|choose|pick)\b(?: it is| it's)?)"
    r"[ :=]*(?:the )?(?:(?:option|choice|letter)\b[ :]*)?"
)
_SAID = re.compile(
    r" (?:is|would be) (?:the )?(?:correct|right|best|answer)(?: (?:answer|option|choice|one))?\Z"
)


def _named(output: str, options: Sequence[str]) -> set[int]:
    """Indices of all options that the output may be read as naming."""
    squeezed = " ".join(output.split())
    if not squeezed:  # which published files have for an option here and there
        return set()
    exact = {i for i, option in enumerate(options) if " ".join(option.split()) == squeezed}
    accepted = [texts.forms(option) for option in options]
    whole = _unmarked(squeezed)
    by_letter, in_brackets = _by_letter(whole, accepted)
    by_text = exact or _by_text(whole, accepted)
    if by_letter and in_brackets:
        # "(A)" is how the prompt names an option, even where "A" is the text of another.
        return by_letter | exact
    return by_letter | by_text


def _unmarked(text: str) -> str:
    """Folded, without marks of emphasis around words."""
    return re.sub(r"\*\*([^*]+)\*\*", r"\1", texts.fold(text))


def _by_text(text: str, accepted: Sequence[frozenset[str]]) -> set[int]:
    """The options that a text says, itself or after "The answer is"."""
    for said in filter(None, (text, _unsaid(text))):
        for layer in texts.layers(said):
            found = {i for i, forms in enumerate(accepted) if layer in forms}
            if found:
                return found
    return set()


def _unsaid(text: str) -> str:
    """What a sentence says is the answer: of "so the answer is b." and "b is correct" "b"."""
    text = text.rstrip(".!,;: ")
    said = _SAYING.match(text)
    rest = text[said.end() :] if said else text
    behind = _SAID.search(rest)
    return (rest[: behind.start()] if behind else rest).strip()


def _by_letter(text: str, accepted: Sequence[frozenset[str]]) -> tuple[set[int], bool]:
    """The option that a letter names, with its text or without; whether it stands in brackets."""
    index_of = {letter(i)[1:-1].casefold(): i for i in range(len(accepted))}
    for said in filter(None, dict.fromkeys((text, _unsaid(text)))):
        for layer in texts.layers(said):
            for pattern in (_LETTER, _LETTER_FIRST, _LETTER_LAST):
                match = pattern.fullmatch(layer)
                groups = match.groupdict() if match else {}
                index = index_of.get(groups.get("name") or groups.get("bare"))
                if index is not None and _is_text_of(groups.get("rest"), index, accepted):
                    return {index}, bool(groups["open"])
    return set(), False


def _is_text_of(rest: str | None, index: int, accepted: Sequence[frozenset[str]]) -> bool:
    """Whether what stands beside a letter is nothing, or the text of its option.

    Behind "B" there may be a colon, or the stop that an option begins with.
    """
    if rest is None:
        return True
    return any(index in _by_text(text, accepted) for text in (rest.strip(), rest.lstrip(").:,; ")))
