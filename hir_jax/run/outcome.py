"""What a run came to: eval.json and the closing table."""

import dataclasses
import json
import pathlib
from typing import Any, Self

from hir_jax.errors import UserError
from hir_jax.run import alarms, evaluation
from hir_jax.run.evaluation import Evaluation
from hir_jax.run.statistics import Estimate

NOTHING = "nothing beat the start"
_KINDS = dict.fromkeys(("iterations", "samples", "best_step", "best_iteration"), int)
_KINDS |= {"chosen_on": str, "alarms": dict}


def read(file: pathlib.Path) -> dict[str, Any]:
    """What eval.json holds; empty where there is none. Raises UserError where it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if not isinstance(found, dict):
            raise ValueError(f"it is a {type(found).__name__}")
        return found
    except (ValueError, RecursionError) as e:
        raise UserError(
            f"{file}: expected the outcome of a run in JSON, found a fault: {e}. Remove the file; "
            "the same command makes it again."
        ) from e


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The test evaluations of a run's starting model and of its best checkpoint.

    Attributes:
        iterations: how many the run had.
        samples: drawn in all.
        best_step: optimizer steps before the best checkpoint.
        best_iteration: the one that ended with it; 0 is the starting model.
        chosen_on: "dev", or "test" where there are no development questions and the newest
            checkpoint counts as the best.
        before: of the starting model.
        after: of the best checkpoint.
        alarms: how often each kind of trouble was seen; see `alarms`.
    """

    iterations: int
    samples: int
    best_step: int
    best_iteration: int
    chosen_on: str
    before: Evaluation
    after: Evaluation
    alarms: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def beat_the_start(self) -> bool:
        """A checkpoint is better than the starting model on the questions it was chosen on."""
        if self.chosen_on == "dev":
            return self.best_iteration > 0
        return self.after.quality > self.before.quality

    @property
    def change(self) -> dict[str, Estimate]:
        """After minus before, paired; empty where both are one model, which no chance parts."""
        return evaluation.compare([self.after], [self.before]) if self.best_iteration else {}

    def to_json(self) -> dict[str, Any]:
        """What eval.json holds."""
        return vars(self) | {
            "beat_the_start": self.beat_the_start,
            "change": {
                name: {"value": found.value, "interval": found.interval}
                for name, found in self.change.items()
            },
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            UserError: another version wrote the record.
        """
        record = {"alarms": {}} | record  # which earlier versions did not write
        fields = [field.name for field in dataclasses.fields(cls)]
        if missing := [name for name in fields if name not in record]:
            raise UserError(
                f"Expected the outcome of a run, found none of its fields {', '.join(missing)}: "
                "another version of hir_jax wrote it. Begin the run anew, in another workdir."
            )
        faults = [
            f"{k}: {record[k]!r}" for k, kind in _KINDS.items() if type(record[k]) is not kind
        ]
        if not faults:
            told = record["alarms"].items()
            faults = [
                f"alarm {kind!r}: {count!r}" for kind, count in told if type(count) is not int
            ]
        if faults:
            raise UserError(
                f"Expected the outcome of a run, found fields of other types: {', '.join(faults)}. "
                "Put the file back as it was, or begin the run anew, in another workdir."
            )
        evaluations = {name: Evaluation.from_json(record[name]) for name in ("before", "after")}
        before, after = evaluations.values()
        if before.digest == after.digest and before.stories != after.stories:
            raise UserError(
                "Expected both evaluations of a run's outcome on the same questions, found others. "
                "Put the file back as it was, or begin the run anew, in another workdir."
            )
        return cls(**{name: record[name] for name in fields} | evaluations)

    def table(self) -> str:
        """Before, after and the change, and which checkpoint "after" is."""
        after = "after" if self.best_iteration else "after (the start)"
        rows = {"before": self.before, after: self.after}
        parts = (evaluation.table(rows, self.change), self.note(), alarms.told(self.alarms))
        return "\n".join(part for part in parts if part)

    def note(self) -> str:
        """Which checkpoint "after" is."""
        if not self.iterations:
            return "after: the starting model, since no iteration was asked for"
        place = f"iteration {self.best_iteration} of {self.iterations}"
        if self.chosen_on == "test":
            newest = f"after: {place}, the newest, since there are no development questions"
            return newest if self.beat_the_start else f"{newest}; {NOTHING}"
        if self.beat_the_start:
            return f"after: {place}, the best on the development questions"
        return (
            f"{NOTHING}: on the development questions no iteration of {self.iterations} is better "
            "than the starting model, so that after is before"
        )
