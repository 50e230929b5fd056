"""When two texts ask the same: one canonical form and one kind of id for every source."""

import collections
import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Iterable

from hir_jax.data.example import Example

# Brackets, signs and symbols stay: they may be what a question is about.
_AT_THE_ENDS = " .,;:!?¿¡…。、؟؛،\"'`"
_PLAIN = {
    **dict.fromkeys(map(ord, "‘’‚‛′"), "'"),
    **dict.fromkeys(map(ord, "“”„‟″«»"), '"'),
    **dict.fromkeys(map(ord, "‐‑‒–—―−"), "-"),
    # Characters without a shape: soft hyphen, zero-width ones, marks of direction.
    **dict.fromkeys([0xAD, 0x61C, 0x180E, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F)]),
    **dict.fromkeys(range(0x2060, 0x2065)),
}


def canonical(text: str) -> str:
    """The text without what does not change a question.

    That is: case, white space, Unicode form (NFKC), the shape of quotes and dashes, and punctuation
    at both ends. A text of nothing else stays, so that it is not empty.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    plain = " ".join(text.casefold().split())
    return plain.strip(_AT_THE_ENDS) or plain


def question_key(example: Example) -> tuple[str, ...]:
    """What two examples share that ask the same: the question, and options in whatever order."""
    return (canonical(example.question), *sorted(map(canonical, example.options)))


def with_ids(examples: Iterable[Example], part: str = "") -> list[Example]:
    """The examples with an id where they have none yet: `task[/part]/` and a digest of the content.

    The content is the question, its options and answers as they are written, so that an id does not
    depend on what else there is. True duplicates are numbered in their order: "-2", "-3", ...
    """
    seen: collections.Counter[str] = collections.Counter()
    named = []
    for example in examples:
        if not example.id:
            content = [example.task, example.question, example.options, example.answers]
            name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
            seen[name] += 1
            number = f"-{seen[name]}" if seen[name] > 1 else ""
            path = [example.task, *([part] if part else []), name + number]
            example = dataclasses.replace(example, id="/".join(path))
        named.append(example)
    return named
