"""Which method to begin with and how many samples to draw, by what `--mode=diagnose` measures.

The first row of `METHODS` that holds names the method, the first of `SAMPLES` gives R, and of
`REMARKS` all that hold are said. A row's reason is told with the figures that were measured. Which
method follows is what docs/results.md found, on one small model; the thresholds are conventions.
"""

import dataclasses
from collections.abc import Callable, Mapping

from hir_jax.run.statistics import Estimate

NEARLY_NONE, HALF, MOST, NEARLY_ALL = 0.05, 0.5, 0.9, 0.95


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the rules look at.

    Attributes:
        greedy: accuracy of greedy answers, asked for correct ones.
        constant: accuracy of the best constant answer to the same questions.
        found: the share of questions with a right one among k samples, by k.
        unparseable: the share of samples that cannot be read as an answer.
        distinct: different outputs among the samples of a question, on average.
        answers: how many answers are possible.
        accepted: the share of true answers that the verifier takes.
        both: whether both instructions are to be followed.
    """

    greedy: Estimate
    constant: float
    found: Mapping[int, float]
    unparseable: float
    distinct: float
    answers: float
    accepted: float
    both: bool

    @property
    def drawn(self) -> int:
        """Samples of a question."""
        return max(self.found)

    @property
    def enough(self) -> int | None:
        """The fewest samples among which most questions have a right one; None where none are."""
        return next((k for k in sorted(self.found) if self.found[k] >= MOST), None)

    @property
    def some(self) -> float:
        """The share of questions with a right one among all samples drawn."""
        return self.found[self.drawn]

    @property
    def none(self) -> float:
        """The share without."""
        return 1 - self.some

    @property
    def found_text(self) -> str:
        """The share of questions with a right sample, for each number of them."""
        shares = [f"{share:.0%} among {k}" for k, share in sorted(self.found.items())]
        return ", ".join(shares)

    @property
    def answered(self) -> bool:
        """Whether there are true answers to train on."""
        return self.accepted > HALF


@dataclasses.dataclass(frozen=True)
class Advice:
    """What to begin with.

    Attributes:
        algorithm: a value of `config.algorithm`.
        samples: of `config.sample.samples`; None for a method that draws none.
        reasons: for the method, for R, and what else there is to say.
    """

    algorithm: str
    samples: int | None
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where `holds`, `choice` is advised, for a reason whose braces name fields of `Measured`."""

    holds: Callable[[Measured], bool]
    choice: str | Callable[[Measured], int]
    because: str


METHODS = (
    Rule(
        lambda m: m.both,
        "hir",
        "Both instructions are to be followed, and hir alone trains on both: no other method "
        "parted them in the study (docs/results.md).",
    ),
    Rule(
        lambda m: m.unparseable > HALF and m.answered,
        "sft",
        "{m.unparseable:.0%} of the samples cannot be read as an answer; true answers show the "
        "form.",
    ),
    Rule(
        lambda m: m.greedy.value >= NEARLY_ALL,
        "farl",
        "Greedy answers are right to {m.greedy.value:.0%} of the questions: there is little to "
        "gain, and right samples are there to imitate.",
    ),
    Rule(
        lambda m: m.some <= NEARLY_NONE and m.answered,
        "sft",
        "Of {m.drawn} samples one is right for {m.some:.0%} of the questions: samples leave next "
        "to nothing to imitate, and true answers are there.",
    ),
    Rule(  # a right sample may be a guess
        lambda m: m.greedy.low <= m.constant and m.answered,
        "sft",
        "Greedy answers ({m.greedy.value:.0%}, at least {m.greedy.low:.0%}) are not shown to be "
        "better than one and the same answer to all questions ({m.constant:.0%}): right samples "
        "may be guesses, and true answers are there.",
    ),
    Rule(  # level with all others in the study, in the fewest steps
        lambda m: m.enough is not None,
        "farl",
        "Most questions have a right sample among {m.drawn}: imitating those is enough.",
    ),
    Rule(
        lambda m: True,
        "topr",
        "{m.none:.0%} of the questions have no right sample among {m.drawn}, and methods that "
        "imitate right ones learn nothing of them. topr learns from wrong ones as well, and was "
        "behind no other method in the study (docs/results.md).",
    ),
)

SAMPLES = (
    Rule(
        lambda m: m.enough is not None,
        lambda m: m.enough,
        "{m.enough} samples are the fewest tried with which most questions have a right one: "
        "{m.found_text}.",
    ),
    Rule(
        lambda m: True,
        lambda m: m.drawn,
        "No number of samples that was tried gives most questions a right one: {m.found_text}. So "
        "as many as were tried; --config.diagnose.samples tries more.",
    ),
)

REMARKS = (
    (
        lambda m: not m.answered,
        "The verifier takes {m.accepted:.0%} of the true answers of the questions: look at both "
        "with --mode=verify before anything else.",
    ),
    (
        lambda m: m.drawn > 1 and m.distinct - 1 < NEARLY_NONE,
        "The samples of a question are nearly all the same, so more of them find nothing new: "
        "raise config.sample.temperature, or draw one.",
    ),
    (
        lambda m: m.answers <= 2,
        "With two possible answers guesses are often right, so a right sample says little; and a "
        "wrong one says what is right.",
    ),
    (
        lambda m: not m.both,
        "Where wrong answers are wanted too, if asked for, say --config.diagnose.both=true.",
    ),
)
COMPARE = "Where true answers may be trained on, compare with sft, which draws no samples."


def advise(measured: Measured) -> Advice:
    """What to begin with, and why."""

    def first(rules: tuple[Rule, ...]) -> Rule:
        return next(rule for rule in rules if rule.holds(measured))

    method, number = first(METHODS), first(SAMPLES)
    draws = method.choice != "sft"
    reasons = [method.because, *([number.because] if draws else [])]
    reasons += [text for holds, text in REMARKS if holds(measured)]
    reasons += [COMPARE] if draws and measured.answered else []
    told = tuple(reason.format(m=measured) for reason in reasons)
    return Advice(method.choice, number.choice(measured) if draws else None, told)
