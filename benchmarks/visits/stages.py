"""What a visit does, in the order of its worth; what a stage is given, and what it leaves."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

Note = Callable[..., None]  # adds what was found, by name, to what the stage leaves


class Stage(NamedTuple):
    """A process of its own.

    Attributes:
        name: such as "sampling small".
        work: the module of this folder that does it.
        seconds: that it may take.
        size: of the model; "" where there are several, or none.
        cache: folder of compiled programs.
        least: seconds without which it is not begun.
    """

    name: str
    work: str
    seconds: float
    size: str = ""
    cache: str = "cache"
    least: float = 10.0


def table(sizes: Sequence[str]) -> list[Stage]:
    """All stages of a visit with models of these sizes."""
    return [
        Stage("device", "device", 60),
        Stage("parity", "parity", 90),
        Stage("plan", "plan", 170),
        *(Stage(f"sampling {size}", "sampling", 80, size) for size in sizes),
        *(Stage(f"training {size}", "training", 80, size) for size in sizes),
        Stage("determinism", "determinism", 60, sizes[0]),
        Stage("resumption", "resumption", 150, least=60.0),
        Stage("parity of families", "parity", 90),
        Stage("determinism, compiled anew", "determinism", 100, sizes[0], cache="anew"),
    ]


@dataclasses.dataclass(frozen=True)
class Visit:
    """What a stage is given.

    Attributes:
        scratch: folder of compiled programs, traces, and what stages leave.
        stage: the one that runs.
        sizes: of all models.
    """

    scratch: pathlib.Path
    stage: Stage
    sizes: tuple[str, ...]

    @property
    def traces(self) -> pathlib.Path:
        """Folder for what the profiler writes."""
        return self.scratch / "traces" / self.stage.name.replace(" ", "_")

    def found(self, stage: str) -> dict[str, Any]:
        """What another stage has left so far."""
        return found(self.scratch, stage)


def file_of(scratch: pathlib.Path, stage: str) -> pathlib.Path:
    """Where a stage leaves what it found: a line of JSON for each note."""
    return scratch / f"{stage.replace(' ', '_')}.jsonl"


def noting(scratch: pathlib.Path, stage: str) -> Note:
    """Writes each note at once, so that what ends a stage takes away nothing that it found."""
    file = file_of(scratch, stage)
    file.write_text("")

    def note(**findings: Any) -> None:
        with file.open("a") as out:
            out.write(json.dumps(findings) + "\n")

    return note


def found(scratch: pathlib.Path, stage: str) -> dict[str, Any]:
    """All notes of a stage; a line that was cut off is none."""
    file = file_of(scratch, stage)
    merged: dict[str, Any] = {}
    for line in _whole_lines(file.read_text() if file.exists() else ""):
        merged |= json.loads(line)
    return merged


def _whole_lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines(keepends=True) if line.endswith("\n"))
