"""What a verifier says of an output."""

import dataclasses
from collections.abc import Callable, Mapping

from hir_jax.data.example import Example


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a verifier says of one output: `Verdict(True)`, or graded, `Verdict(reward=0.7)`.

    Attributes:
        correct: the output is a right answer. It may be left out where there is a reward, which
            overrules it: `verify.resolve` takes for right what reaches the threshold.
        parsed: the output could be read as an answer of the kind asked for, right or wrong.
        read: what was taken for the answer, '' where nothing was. For people to look at: verdicts
            are equal that say the same of what they read.
        reward: how good the output is, from 0 to 1; where it is not said, 1.0 or 0.0 by `correct`.
        facts: what else holds of the output, and what does not, by names of the verifier's own.
        parts: where several verifiers judge together, each one's reward by its name;
            `verify.resolve` fills this in.
        canonical: the answer as all outputs have it that say the same ("1200" of "1,200"), by which
            samples vote; '' where `read` is as good.

    Raises:
        TypeError: there is neither `correct` nor `reward`.
    """

    correct: bool | None = None
    parsed: bool = True
    read: str = dataclasses.field(default="", compare=False)
    reward: float | None = None
    facts: Mapping[str, bool] = dataclasses.field(default_factory=dict, hash=False)
    parts: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    canonical: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.reward is None:
            if self.correct is None:
                raise TypeError("a Verdict expects `correct` or `reward`, found neither")
            object.__setattr__(self, "reward", 1.0 if self.correct else 0.0)


Verifier = Callable[[str, Example], Verdict]

UNREADABLE = Verdict(correct=False, parsed=False)
