"""What a family of generated tasks is: a way to draw questions, and how hard they can be."""

import dataclasses
import random
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Draft:
    """An `Example` before it has an id and a task; the fields mean the same.

    Two drafts with the same premise that ask the same are one question.

    Attributes:
        premise: canonical: of stories that differ only in wording, or in an order that changes
            nothing, it is the same.
        asked: what is asked of the premise, as canonical; empty where one thing alone can be.
    """

    question: str
    options: tuple[str, ...]
    answers: tuple[str, ...]
    premise: str
    asked: str = ""


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of tasks.

    Attributes:
        draw: (rng, difficulty) -> the questions of one story, which share its premise.
        difficulties: the difficulties that `draw` can serve.
        meaning: what the difficulty counts, for messages.
        read: a question's text, of a published file too -> its canonical premise; None where the
            text is none of the family's. Families without it are not read.
    """

    draw: Callable[[random.Random, int], list[Draft]]
    difficulties: range
    meaning: str
    read: Callable[[str], str | None] | None = None
