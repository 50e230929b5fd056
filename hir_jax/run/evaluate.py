"""How well a policy follows both instructions, with what a reader needs to trust the figure."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import scipy.stats

from hir_jax.data.example import Example
from hir_jax.decoding.sampler import Sampler
from hir_jax.hindsight.verify import Verifier
from hir_jax.model.codec import Codec
from hir_jax.model.config import Params
from hir_jax.run import metrics
from hir_jax.run.judging import judge
from hir_jax.run.prompts import PromptTable


@dataclasses.dataclass(frozen=True)
class Score:
    """Verdicts on one answer to each question."""

    correct: int
    unparseable: int
    n: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson score interval (Wilson, 1927) of the accuracy."""
        test = scipy.stats.binomtest(self.correct, self.n)
        low, high = test.proportion_ci(0.95, method="wilson")
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """Counts and what follows from them."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "correct": self.correct,
            "unparseable": self.unparseable,
            "n": self.n,
        }


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Greedy answers to held-out questions under both instructions.

    Attributes:
        asked_correct: under p_correct.
        asked_wrong: under p_wrong; still counts *right* answers.
        majority: accuracy of the best constant answer to these questions.
    """

    asked_correct: Score
    asked_wrong: Score
    majority: float

    @property
    def gap(self) -> float:
        """Accuracy under p_correct minus accuracy under p_wrong."""
        return self.asked_correct.accuracy - self.asked_wrong.accuracy

    def to_json(self) -> dict[str, Any]:
        """What eval.json and checkpoints keep."""
        return {
            "asked_correct": self.asked_correct.to_json(),
            "asked_wrong": self.asked_wrong.to_json(),
            "gap": self.gap,
            "majority": self.majority,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Evaluation":
        """The inverse of `to_json`."""

        def score(fields: dict[str, Any]) -> Score:
            return Score(fields["correct"], fields["unparseable"], fields["n"])

        return cls(score(record["asked_correct"]), score(record["asked_wrong"]), record["majority"])

    def scalars(self) -> dict[str, float]:
        """What metrics.jsonl and curves show."""
        return {
            "accuracy": self.asked_correct.accuracy,
            "accuracy_asked_wrong": self.asked_wrong.accuracy,
            "gap": self.gap,
            "unparseable": self.asked_correct.unparseable / self.asked_correct.n,
        }


def evaluate(
    sampler: Sampler,
    params: Params,
    examples: Sequence[Example],
    prompts: PromptTable,
    codec: Codec,
    verifier: Verifier,
    progress: Callable[[int], object] = lambda n: None,
) -> Evaluation:
    """Answers each question once, greedily, under each instruction."""

    params = sampler.prepare(params)

    def score(correct: bool) -> Score:
        asked = prompts.prompts(examples, correct)
        outputs = sampler(params, asked, jax.random.key(0), temperature=0.0, progress=progress)
        texts = [[codec.read(output.tokens)] for (output,) in outputs]
        verdicts = [verdict for (verdict,) in judge(verifier, examples, texts)]
        return Score(
            correct=sum(v.correct for v in verdicts),
            unparseable=sum(not v.parsed for v in verdicts),
            n=len(verdicts),
        )

    return Evaluation(score(True), score(False), majority_baseline(examples))


def majority_baseline(examples: Sequence[Example]) -> float:
    """Accuracy of always giving the one answer that is right most often."""
    counts = collections.Counter(target for e in examples for target in set(e.targets))
    return counts.most_common(1)[0][1] / len(examples)


def table(rows: dict[str, Evaluation]) -> str:
    """A row an evaluation, for people to read."""

    def cell(score: Score) -> str:
        low, high = score.interval
        return f"{score.accuracy:.1%} [{low:.1%}, {high:.1%}]"

    headers = ("", "asked correct", "asked wrong", "gap", "unparseable", "majority", "n")
    return metrics.format_table(
        headers,
        [
            (
                name,
                cell(e.asked_correct),
                cell(e.asked_wrong),
                f"{100 * e.gap:+.1f}",
                f"{e.asked_correct.unparseable / e.asked_correct.n:.1%}",
                f"{e.majority:.1%}",
                e.asked_correct.n,
            )
            for name, e in rows.items()
        ],
    )
