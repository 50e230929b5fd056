"""What the cells of a grid came to: read from their workdirs, kept in results.json."""

import json
import pathlib
from typing import NamedTuple

from hir_jax.errors import UserError
from hir_jax.run import identity, workdirs
from hir_jax.run.outcome import Outcome

MEASURED = ("curve", "steps", "seconds")  # fields of a result beside its outcome


class Cell(NamedTuple):
    """One run of a grid."""

    variant: str
    task: str
    seed: int

    def __str__(self) -> str:
        """As `experiment.cells` names it."""
        return "/".join(map(str, self[:]))


class Result(NamedTuple):
    """What a run gave.

    Attributes:
        outcome: on the test questions.
        curve: (samples drawn, accuracy, gap) on the development questions.
        steps: optimizer steps in all.
        seconds: of sampling and training, compilation included; evaluation and start-up not.
        verifier: the digest of what judged, as in identity.json; '' where none was kept.
    """

    outcome: Outcome
    curve: tuple[tuple[int, float, float], ...]
    steps: int
    seconds: float
    verifier: str = ""


def read_result(folder: pathlib.Path) -> Result:
    """What a finished run left in its workdir."""
    lines = workdirs.read_lines(folder / "metrics.jsonl")
    rows = [row for row in lines if row["phase"] == "evaluate"]
    return Result(
        outcome=Outcome.from_json(workdirs.read_json(folder / "eval.json")),
        curve=tuple((row["samples_drawn"], row["accuracy"], row["gap"]) for row in rows),
        steps=max(row["step"] for row in rows),
        seconds=sum(row["seconds"] for row in workdirs.read_lines(folder / "timings.jsonl")),
        verifier=identity.read(folder).get("verifier", ""),
    )


# Results by cell and by the digest of what the cell was made of.
Known = dict[tuple[Cell, str], Result]


def write_results(file: pathlib.Path, results: Known) -> None:
    """results.json: a line a cell."""
    records = [
        cell._asdict()
        | {"content": content}
        | result.outcome.to_json()
        | {name: getattr(result, name) for name in MEASURED}
        | {"verifier": result.verifier}
        for (cell, content), result in results.items()
    ]
    lines = ",\n".join(json.dumps(record, allow_nan=False) for record in records)
    workdirs.write_text(file, f'{{"cells": [\n{lines}\n]}}\n', shared=True)


def read_results(file: pathlib.Path) -> Known:
    """The inverse of `write_results`; empty where there is no file.

    Raises:
        UserError: something else is in the file.
    """
    if not file.exists():
        return {}
    results = {}
    try:
        for record in workdirs.read_json(file)["cells"]:
            key = Cell(*(record[name] for name in Cell._fields)), record["content"]
            measured = {name: record[name] for name in MEASURED}
            curve = [tuple(map(float, point)) for point in measured["curve"]]
            measured["curve"] = tuple((int(n), accuracy, gap) for n, accuracy, gap in curve)
            measured["steps"], measured["seconds"] = int(record["steps"]), float(record["seconds"])
            measured["verifier"] = str(record.get("verifier", ""))  # earlier versions kept none
            results[key] = Result(Outcome.from_json(record), **measured)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise UserError(
            f"{file}: expected the results of a grid's cells, found a fault: {e!r}. Remove the "
            "file; it is made again of the cells' own folders."
        ) from e
    return results
