"""What samples of a policy show before it is trained on any."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from hir_jax.hindsight import replay
from hir_jax.hindsight.sample import Sample
from hir_jax.run import choosing, metrics, statistics
from hir_jax.run.statistics import Estimate, percent

# Pass rates of questions, for people to tell them apart; a rate belongs to the first bin that
# reaches up to it.
BINS = {"0%": 0.0, "to 20%": 0.2, "to 60%": 0.6, "below 100%": np.nextafter(1, 0), "100%": 1.0}
BAR = 40  # characters for all questions


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Samples of questions, as many of each, and what they show.

    Attributes:
        count: samples of each question.
        right: how many of them are right, in the questions' order.
        found: the share of questions with a right one among k samples, by k: pass@k, unbiased.
        majority: the share where the answer that most of the first k come to is right.
        distinct: different outputs among the samples of a question, on average.
        answers: different answers, as the verifier reads them.
        nats: -log π of an output, on average: of untempered, untruncated samples the entropy.
        summary: see `replay.summary`.
    """

    count: int
    right: tuple[int, ...]
    found: Mapping[int, Estimate]
    majority: Mapping[int, Estimate]
    distinct: float
    answers: float
    nats: float
    summary: Mapping[str, float]

    @classmethod
    def of(cls, samples: Sequence[Sample], count: int, stories: Sequence[int]) -> Self:
        """Of `count` samples of each question, those of one behind those of another.

        `stories` are the numbers of the questions' stories, from 0.
        """
        rows = [samples[i : i + count] for i in range(0, len(samples), count)]
        answers = [[choosing.answer(each, each.text) for each in row] for row in rows]
        right = [sum(sample.correct for sample in row) for row in rows]
        numbers = np.array(stories)

        def share(values: Iterable[float]) -> Estimate:
            return statistics.accuracy(np.array([*values], float), numbers)

        def vote(k: int) -> list[bool]:
            pairs = zip(rows, answers, strict=True)
            return [row[choosing.majority(own[:k])].correct for row, own in pairs]

        tried = sorted({*(1 << i for i in range(count.bit_length())), count})
        return cls(
            count=count,
            right=tuple(right),
            found={k: share(replay.pass_at(k, count, n) for n in right) for k in tried},
            majority={k: share(vote(k)) for k in tried},
            distinct=float(np.mean([len({sample.text for sample in row}) for row in rows])),
            answers=float(np.mean([len(set(own)) for own in answers])),
            nats=float(np.mean([-sample.logprob for sample in samples])),
            summary=replay.summary(samples),
        )

    @property
    def unparseable(self) -> float:
        """The share of samples that cannot be read as an answer."""
        return 1 - self.summary["parsed"]

    def histogram(self) -> dict[str, int]:
        """How many questions have a pass rate in each of `BINS`."""
        places = np.searchsorted([*BINS.values()], np.array(self.right) / self.count)
        return dict(zip(BINS, np.bincount(places, minlength=len(BINS)).tolist(), strict=True))

    def to_json(self) -> dict[str, Any]:
        """All of it; estimates with their intervals."""

        def named(estimates: Mapping[int, Estimate]) -> dict[str, Any]:
            return {
                str(k): {"value": e.value, "interval": e.interval} for k, e in estimates.items()
            }

        shares = {"found": named(self.found), "majority": named(self.majority)}
        return vars(self) | shares | {"histogram": self.histogram()}

    def tables(self) -> str:
        """For people to read."""
        tried = [(k, percent(e), percent(self.majority[k])) for k, e in self.found.items()]
        lengths = self.summary["tokens_mean"], self.summary["tokens_max"]
        return "\n\n".join(
            [
                f"pass rate: {percent(self.found[1])}",
                self._bars(),
                metrics.format_table(("of k samples", "any right (pass@k)", "majority"), tried),
                f"different outputs of {self.count}: {self.distinct:.2f}; different answers: "
                f"{self.answers:.2f}; unparseable: {self.unparseable:.1%}\n"
                f"-log π: {self.nats:.2f} nats an output, {self.nats / lengths[0]:.2f} a token; "
                f"length: {lengths[0]:.1f} tokens, the longest {lengths[1]}",
            ]
        )

    def _bars(self) -> str:
        shares = {name: number / len(self.right) for name, number in self.histogram().items()}
        rows = [(name, number, f"{shares[name]:.1%}") for name, number in self.histogram().items()]
        head, rule, *lines = metrics.format_table(
            ("right samples", "questions", "share"), rows
        ).splitlines()
        bars = ["#" * round(BAR * share) for share in shares.values()]
        drawn = [f"{line}  {bar}".rstrip() for line, bar in zip(lines, bars, strict=True)]
        return "\n".join([head, rule, *drawn])
