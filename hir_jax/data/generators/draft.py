"""What a family of generated tasks is: a way to draw questions, and how hard they can be."""

import dataclasses
import random
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Draft:
    """An `Example` before it has an id and a task; the fields mean the same."""

    question: str
    options: tuple[str, ...]
    answers: tuple[str, ...]
    premise: str


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of tasks.

    Attributes:
        draw: (rng, difficulty) -> the questions of one story, which share its premise. A family
            without stories gives one question, which is its own premise.
        difficulties: the difficulties that `draw` can serve.
        meaning: what the difficulty counts, for messages.
    """

    draw: Callable[[random.Random, int], list[Draft]]
    difficulties: range
    meaning: str


def free_form(question: str, *answers: str) -> list[Draft]:
    """One question without options."""
    return [Draft(question, (), answers, premise=question)]
