"""What a cell of a grid came to, read from its workdir."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from hir_jax.run import workdirs
from hir_jax.run.outcome import Outcome


class Cell(NamedTuple):
    """One run of a grid."""

    variant: str
    task: str
    seed: int


class Result(NamedTuple):
    """What a run gave.

    Attributes:
        outcome: on the test questions.
        curve: (samples drawn, accuracy, gap) on the development questions.
        steps: optimizer steps in all.
        seconds: of sampling and training, compilation included; evaluation and start-up not.
    """

    outcome: Outcome
    curve: tuple[tuple[int, float, float], ...]
    steps: int
    seconds: float


def read_result(folder: pathlib.Path) -> Result:
    """What a finished run left in its workdir."""
    lines = workdirs.read_lines(folder / "metrics.jsonl")
    rows = [row for row in lines if row["phase"] == "evaluate"]
    return Result(
        outcome=Outcome.from_json(workdirs.read_json(folder / "eval.json")),
        curve=tuple((row["samples_drawn"], row["accuracy"], row["gap"]) for row in rows),
        steps=max(row["step"] for row in rows),
        seconds=sum(row["seconds"] for row in workdirs.read_lines(folder / "timings.jsonl")),
    )


def to_json(cell: Cell, result: Result) -> Mapping[str, Any]:
    """One record of results.json."""
    measured = {name: getattr(result, name) for name in ("curve", "steps", "seconds")}
    return cell._asdict() | result.outcome.to_json() | measured
