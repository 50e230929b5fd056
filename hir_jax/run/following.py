"""How a fact is followed that instructions speak of: asked for, and asked against."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from hir_jax.hindsight.verify import Verdict
from hir_jax.run import statistics
from hir_jax.run.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class Following:
    """Whether a fact holds of the answer to each question, in their order.

    Attributes:
        asked_for: under the instruction that asks for a right answer of which every fact holds.
        asked_against: under the one that asks against this fact alone.
    """

    asked_for: tuple[bool, ...]
    asked_against: tuple[bool, ...]

    @classmethod
    def of(cls, fact: str, asked_for: Iterable[Verdict], asked_against: Iterable[Verdict]) -> Self:
        """By verdicts; of one that does not name the fact it does not hold."""
        verdicts = (asked_for, asked_against)
        return cls(*(tuple(v.facts.get(fact, False) for v in each) for each in verdicts))

    @property
    def gap(self) -> float:
        """How much oftener it holds where it is asked for."""
        return (sum(self.asked_for) - sum(self.asked_against)) / len(self.asked_for)

    def estimates(self, stories: Sequence[int]) -> dict[str, Estimate]:
        """The share of which it holds, asked for and asked against, and the paired difference."""
        asked_for, against = np.array([self.asked_for, self.asked_against], float)
        return {
            "asked_for": statistics.accuracy(asked_for, np.array(stories)),
            "asked_against": statistics.accuracy(against, np.array(stories)),
            "gap": statistics.difference(asked_for - against, np.array(stories)),
        }

    def to_json(self, stories: Sequence[int]) -> dict[str, Any]:
        """What an evaluation's record has of it."""
        asked_for, against, gap = self.estimates(stories).values()
        return {
            "asked_for": _fields(asked_for, self.asked_for),
            "asked_against": _fields(against, self.asked_against),
            "gap": self.gap,
            "gap_interval": gap.interval,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(*(from_digits(record[name]["holds"]) for name in ("asked_for", "asked_against")))

    def scalars(self, fact: str) -> dict[str, float]:
        """What metrics.jsonl and curves show."""
        shares = np.mean([self.asked_for, self.asked_against], axis=1).tolist()
        return dict(zip((f"fact_{fact}", f"fact_{fact}_asked_against"), shares, strict=True))


def _fields(share: Estimate, holds: Sequence[bool]) -> dict[str, Any]:
    return {"share": share.value, "interval": share.interval, "holds": to_digits(holds)}


def to_digits(verdicts: Iterable[bool]) -> str:
    """Verdicts as records have them, a digit each."""
    return "".join(str(int(verdict)) for verdict in verdicts)


def from_digits(digits: str) -> tuple[bool, ...]:
    """The inverse of `to_digits`."""
    return tuple(digit == "1" for digit in digits)
