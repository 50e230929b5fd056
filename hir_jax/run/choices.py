"""How good several ways of answering are, beside the likeliest tokens."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from hir_jax.run import metrics, statistics
from hir_jax.run.following import from_digits, to_digits
from hir_jax.run.statistics import percent, points

GREEDY = "greedy"


@dataclasses.dataclass(frozen=True)
class Choices:
    """Whether each way of choosing is right on each question, plain greedy first.

    Attributes:
        right: by the way's name, in the questions' order.
        stories: the number of each question's story, from 0.
    """

    right: Mapping[str, tuple[bool, ...]]
    stories: tuple[int, ...]

    def estimates(self) -> dict[str, tuple[statistics.Estimate, statistics.Estimate]]:
        """Of each way the accuracy, and the paired difference to plain greedy."""
        stories, greedy = np.array(self.stories), np.array(self.right[GREEDY], float)
        rows = {name: np.array(right, float) for name, right in self.right.items()}
        return {
            name: (
                statistics.accuracy(row, stories),
                statistics.difference(row - greedy, stories),
            )
            for name, row in rows.items()
        }

    def to_json(self) -> dict[str, Any]:
        """What eval.json keeps."""
        return {
            name: {
                "accuracy": accuracy.value,
                "interval": accuracy.interval,
                "difference": difference.value,
                "difference_interval": difference.interval,
                "right": to_digits(self.right[name]),
            }
            for name, (accuracy, difference) in self.estimates().items()
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], stories: tuple[int, ...]) -> Self:
        """The inverse of `to_json`; the stories are those of the evaluation."""
        return cls({name: from_digits(each["right"]) for name, each in record.items()}, stories)

    def table(self) -> str:
        """For people to read."""
        rows = [
            (
                name,
                percent(accuracy),
                "" if name == GREEDY else points(change),
            )
            for name, (accuracy, change) in self.estimates().items()
        ]
        return metrics.format_table(("asked correct", "accuracy", "beside greedy"), rows)
