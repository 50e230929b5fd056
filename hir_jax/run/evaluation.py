"""How well a policy follows both instructions, with what a reader needs to trust the figure."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from hir_jax.errors import UserError
from hir_jax.run import metrics, statistics
from hir_jax.run.choices import GREEDY, Choices
from hir_jax.run.constant import Constant
from hir_jax.run.following import Following, from_digits, to_digits
from hir_jax.run.statistics import Estimate, percent, points


@dataclasses.dataclass(frozen=True)
class Score:
    """Verdicts on one answer to each question.

    Attributes:
        right: the verdict of each question, in their order.
        unparseable: answers that could not be read.
    """

    right: tuple[bool, ...]
    unparseable: int

    @property
    def n(self) -> int:
        """Questions."""
        return len(self.right)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / self.n


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Greedy answers to held-out questions under both instructions.

    Attributes:
        asked_correct: under p_correct, where instructions speak of facts with all asked for.
        asked_wrong: under p_wrong; still counts *right* answers.
        constant: the best constant answer to these questions.
        stories: the number of each question's story, from 0.
        digest: of the questions; evaluations that agree in it can be compared pair by pair.
        facts: how the instructions' facts are followed, by name.
        choices: how good other ways of answering are, where they were asked for.
    """

    asked_correct: Score
    asked_wrong: Score
    constant: Constant
    stories: tuple[int, ...]
    digest: str
    facts: Mapping[str, Following] = dataclasses.field(default_factory=dict, hash=False)
    choices: Choices | None = dataclasses.field(default=None, hash=False)

    @property
    def gap(self) -> float:
        """Accuracy under p_correct minus accuracy under p_wrong."""
        return self.asked_correct.accuracy - self.asked_wrong.accuracy

    @property
    def fulfilled(self) -> tuple[bool, ...]:
        """Of each question whether the answer is right, all facts asked for, and they all hold."""
        facts = (following.asked_for for following in self.facts.values())
        return tuple(map(all, zip(self.asked_correct.right, *facts, strict=True)))

    @property
    def quality(self) -> list[float]:
        """What makes one policy better than another: the share fulfilled, then the mean gap.

        Without facts these are the accuracy and its gap.
        """
        gaps = [self.gap, *(following.gap for following in self.facts.values())]
        return [sum(self.fulfilled) / self.asked_correct.n, sum(gaps) / len(gaps)]

    def to_json(self) -> dict[str, Any]:
        """What eval.json and checkpoints keep; verdicts as a digit a question, in their order."""
        estimates = estimate([self])

        def fields(score: Score, name: str) -> dict[str, Any]:
            return {
                "accuracy": score.accuracy,
                "interval": estimates[name].interval,
                "unparseable": score.unparseable,
                "right": to_digits(score.right),
            }

        facts = {name: each.to_json(self.stories) for name, each in self.facts.items()}
        n, n_stories = self.asked_correct.n, len(set(self.stories))
        return {
            "n": n,
            "n_stories": n_stories,
            "asked_correct": fields(self.asked_correct, "asked_correct"),
            "asked_wrong": fields(self.asked_wrong, "asked_wrong"),
            "gap": self.gap,
            "gap_interval": estimates["gap"].interval,
            "best_constant": dataclasses.asdict(self.constant),
            # Nothing is said where each question is a story of its own.
            "stories": " ".join(map(str, self.stories)) if n_stories < n else "",
            "questions": self.digest,
            **({"facts": facts} if facts else {}),
            **({"choices": self.choices.to_json()} if self.choices else {}),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            UserError: another version wrote the record.
        """

        def score(fields: dict[str, Any]) -> Score:
            return Score(from_digits(fields["right"]), fields["unparseable"])

        try:
            stories = tuple(map(int, record["stories"].split())) or tuple(range(record["n"]))
            chosen = record.get("choices")
            found = cls(
                score(record["asked_correct"]),
                score(record["asked_wrong"]),
                Constant(**record["best_constant"]),
                stories,
                record["questions"],
                {name: Following.from_json(f) for name, f in record.get("facts", {}).items()},
                chosen and Choices.from_json(chosen, stories),
            )
            found._check()
            return found
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            wanted = f"with the field {e}" if isinstance(e, KeyError) else f"of other types ({e})"
            found = ", ".join(record) if isinstance(record, dict) else repr(record)
            raise UserError(
                f"Expected an evaluation {wanted}, found {found}: another version of hir_jax wrote "
                "it. Begin the run anew, in another workdir."
            ) from e

    def _check(self) -> None:
        """Raises ValueError or TypeError where its parts are not of one set of questions."""
        n, best = len(self.stories), self.constant
        scores = (self.asked_correct, self.asked_wrong)
        if not n or any(score.n != n for score in scores) or len(self.fulfilled) != n:
            raise ValueError("verdicts and stories differ in number")
        chosen = self.choices.right if self.choices else {GREEDY: self.asked_correct.right}
        if GREEDY not in chosen or any(len(right) != n for right in chosen.values()):
            raise ValueError("ways of answering and stories differ in number")
        if not 0 <= min(self.stories) <= max(self.stories) < n:
            raise ValueError("stories are not numbered from 0")
        numbers = [score.unparseable for score in scores] + [best.tried, best.candidates]
        texts = [self.digest, best.text]
        if {type(x) for x in numbers} != {int} or {type(x) for x in texts} != {str}:
            raise TypeError(f"numbers {numbers}, texts {texts}")
        if not 0 <= best.accuracy <= 1:
            raise ValueError(f"the best constant's accuracy is {best.accuracy}")

    def scalars(self) -> dict[str, float]:
        """What metrics.jsonl and curves show."""
        facts = {k: v for name, each in self.facts.items() for k, v in each.scalars(name).items()}
        return {
            "accuracy": self.asked_correct.accuracy,
            "accuracy_asked_wrong": self.asked_wrong.accuracy,
            "gap": self.gap,
            "unparseable": self.asked_correct.unparseable / self.asked_correct.n,
            **(facts | {"fulfilled": self.quality[0]} if facts else {}),
        }

    def bounds(self) -> dict[str, float]:
        """The ends of the 95% intervals, for curves: "accuracy_low" and the like."""
        names = ("accuracy", "accuracy_asked_wrong", "gap")
        found = zip(names, estimate([self]).values(), strict=True)
        return {
            f"{name}_{end}": bound
            for name, each in found
            for end, bound in zip(("low", "high"), each.interval, strict=True)
        }


# Estimates ----------------------------------------------------------------------------------------


def estimate(runs: Sequence[Evaluation]) -> dict[str, Estimate]:
    """Accuracy under each instruction and the gap, means over runs, with 95% intervals.

    The intervals are of what other questions would give these same policies.

    Raises:
        UserError: the runs were evaluated on different questions.
    """
    means, stories = _means(runs)
    return {
        "asked_correct": statistics.accuracy(means["asked_correct"], stories),
        "asked_wrong": statistics.accuracy(means["asked_wrong"], stories),
        "gap": statistics.difference(means["gap"], stories),
    }


def compare(runs: Sequence[Evaluation], others: Sequence[Evaluation]) -> dict[str, Estimate]:
    """How far the means of `runs` are above those of `others`, paired question by question.

    Raises:
        UserError: they were evaluated on different questions.
    """
    _means([*runs, *others])  # checks them
    (ours, stories), (theirs, _) = _means(runs), _means(others)
    return {
        name: statistics.difference(ours[name] - theirs[name], stories, 2.0 if name == "gap" else 1)
        for name in ours
    }


def same_questions(runs: Sequence[Evaluation]) -> bool:
    """Whether all runs were evaluated on the same questions."""
    return len({run.digest for run in runs}) == 1


def _means(runs: Sequence[Evaluation]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The mean over runs of each question's verdicts and of their difference; its story."""
    if not same_questions(runs):
        raise UserError(
            "Expected evaluations on the same questions, found different ones. Compare runs with "
            "the same config.data."
        )
    correct, wrong = (
        np.mean([getattr(run, name).right for run in runs], axis=0)
        for name in ("asked_correct", "asked_wrong")
    )
    means = {"asked_correct": correct, "asked_wrong": wrong, "gap": correct - wrong}
    return means, np.array(runs[0].stories)


# For people ---------------------------------------------------------------------------------------

HEADERS = (
    "",
    "asked correct",
    "asked wrong",
    "gap",
    "unparseable",
    "best constant",
    "n",
    "stories",
)
HEADERS_OF_FACTS = ("fact holds", "all asked for", "it asked against", "difference")


def table(rows: dict[str, Evaluation], change: dict[str, Estimate] | None = None) -> str:
    """A row an evaluation, and one of paired differences if there are any, for people to read."""
    lines = [
        (
            name,
            *_cells(estimate([e])),
            f"{e.asked_correct.unparseable / e.asked_correct.n:.1%}",
            constant(e.constant),
            e.asked_correct.n,
            len(set(e.stories)),
        )
        for name, e in rows.items()
    ]
    if change:
        lines.append(("change", *(points(cell) for cell in change.values()), *[""] * 4))
    text = metrics.format_table(HEADERS, lines)
    best = next(iter(rows.values())).constant
    if best.tried < best.candidates:
        text += (
            f"\nbest constant: all {best.candidates:,} answers were tried on some questions, the "
            f"{best.tried} most promising on all"
        )
    facts = list(_lines_of_facts(rows))
    if facts:
        text += f"\n\n{metrics.format_table(HEADERS_OF_FACTS, facts)}"
    chosen = [f"{name}\n{e.choices.table()}" for name, e in rows.items() if e.choices]
    return "\n\n".join([text, *chosen])


def _lines_of_facts(rows: dict[str, Evaluation]) -> Iterator[tuple[str, ...]]:
    for fact in next(iter(rows.values())).facts:
        for name, e in rows.items():
            asked_for, against, gap = e.facts[fact].estimates(e.stories).values()
            yield f"{fact}, {name}", percent(asked_for), percent(against), points(gap)
    for name, e in rows.items():
        if e.facts:
            share = statistics.accuracy(np.array(e.fulfilled, float), np.array(e.stories))
            yield f"all and right, {name}", percent(share), "", ""


def constant(found: Constant) -> str:
    """'21.6% "four"', a long text cut."""
    text = " ".join(found.text.split())
    return f'{found.accuracy:.1%} "{metrics.shorten(text, 16)}"'


def _cells(estimates: dict[str, Estimate]) -> tuple[str, str, str]:
    correct, wrong, gap = estimates.values()
    return percent(correct), percent(wrong), points(gap)
