"""The record that every data source gives, and how it is put to the model."""

import dataclasses
import string
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Example:
    """A question whose answer can be checked.

    Attributes:
        id: unique among all tasks and stable across runs; random draws are keyed by it.
        question: the text put after "Q: ", any prefix of the task included, options not.
        options: texts to choose from, in the order shown; empty for a free-form question.
        answers: every accepted answer, at least one; for multiple choice, the right options' texts.
        task: the name of the task it belongs to.
        premise: examples that share one (a story asked several times) never part in a split.
        where: the place that it was read from, such as "questions.jsonl:12" (a line) or
            "navigate[12]" (of a list, from 0); '' if it has none. For people: it is no part of
            what the example is.
        metric: what its source scores answers by, where it is not whether they are equal; '' if
            it is.
        score: the source's own scorer of answers, 0 to 1; None where answers and options tell.
    """

    id: str
    question: str
    options: tuple[str, ...]
    answers: tuple[str, ...]
    task: str
    premise: str
    where: str = dataclasses.field(default="", compare=False, repr=False)
    metric: str = dataclasses.field(default="", compare=False, repr=False)
    score: Callable[[str], float] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    @property
    def targets(self) -> tuple[str, ...]:
        """Every output that counts as the answer, best first: letters "(B)" for multiple choice."""
        if not self.options:
            return self.answers
        return tuple(letter(i) for i, option in enumerate(self.options) if option in self.answers)


def letter(index: int) -> str:
    """The name of an option, as spreadsheets name columns: "(A)" ... "(Z)", "(AA)" ..."""
    name = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        name = string.ascii_uppercase[digit] + name
    return f"({name})"


def format_prompt(instruction: str, example: Example) -> str:
    """The text the encoder reads (reference code's template): instruction, question, options."""
    lines = [f"{instruction}\n", f"Q: {example.question}"]
    if example.options:
        lines.append("Options:")
        lines += [f"{letter(i)} {option}" for i, option in enumerate(example.options)]
    return "\n".join([*lines, "A:"])
