"""What a verifier says of an output."""

import dataclasses
from collections.abc import Callable

from hir_jax.data.example import Example


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a verifier says of one output.

    Attributes:
        correct: the output is a right answer.
        parsed: the output could be read as an answer of the kind asked for, right or wrong.
        read: what was taken for the answer, '' where nothing was. For people to look at: verdicts
            are equal that say the same of what they read.
    """

    correct: bool
    parsed: bool
    read: str = dataclasses.field(default="", compare=False)


Verifier = Callable[[str, Example], Verdict]

UNREADABLE = Verdict(correct=False, parsed=False)
