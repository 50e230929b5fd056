"""What a run says of itself: metrics.jsonl, timings.jsonl, trackers, tables."""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import ml_collections
import tabulate

from hir_jax.data.example import Example
from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample
from hir_jax.run import terminal, trackers

Value = float | int | str

LABEL = 40  # characters of a name in a picture


class MetricsWriter:
    """Appends to a workdir's records, one JSON object a line, and tells trackers and the view.

    `metrics.jsonl` holds only what a rerun repeats, so that a run that was killed and resumed
    leaves the same bytes as one never stopped. Wall-clock times go to `timings.jsonl`.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        position: int | None = None,
        config: ml_collections.ConfigDict | None = None,
    ) -> None:
        """Opens the records of `workdir`, making it where it is absent.

        Args:
            workdir: the run's folder.
            position: bytes of metrics.jsonl to keep, as a checkpoint of the run has them; what was
                written after is cut, from TensorBoard's curves too. None keeps everything.
            config: of the run, which names the trackers; None: there are none, and no view.

        Raises:
            UserError: metrics.jsonl does not reach to `position`, or has no line ending there; or a
                tracker does not begin.
        """
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        first_step = None if position is None else _cut(folder / "metrics.jsonl", position)
        self._metrics = _open(folder / "metrics.jsonl")
        self._timings = _open(folder / "timings.jsonl")
        self._trackers: list[trackers.Tracker] = []
        if config is not None:
            self._trackers = trackers.make(config, folder, first_step, position)
            self._trackers += terminal.view_of(config, folder)

    def write(self, step: int, values: Mapping[str, Value]) -> None:
        """Adds a line to metrics.jsonl: reproducible values only, "nan" and "inf" as strings."""
        values = _add(self._metrics, step, values)
        for tracker in self._trackers:
            tracker.scalars(self._metrics.tell(), step, values)

    def timing(self, step: int, values: Mapping[str, Value]) -> None:
        """Adds a line to timings.jsonl: durations and rates, and the time, in Unix seconds."""
        values = _add(self._timings, step, values, time=time.time())
        for tracker in self._trackers:
            tracker.timing(self._metrics.tell(), step, values)

    def samples(
        self, step: int, samples: Sequence[Sample], examples: Mapping[str, Example]
    ) -> None:
        """Tells the trackers of a few of these; `examples` by id."""
        told = trackers.few(samples, examples)
        for tracker in self._trackers:
            tracker.samples(self._metrics.tell(), step, told)

    @property
    def position(self) -> int:
        """Length of metrics.jsonl in bytes, all of them on disk."""
        os.fsync(self._metrics.fileno())
        return self._metrics.tell()

    def close(self) -> None:
        """Closes the files; nothing can be written after."""
        for opened in (*self._trackers, self._metrics, self._timings):
            opened.close()


class NoWriter:
    """In place of a `MetricsWriter` on a process that writes nothing."""

    position = 0

    def write(self, step: int, values: Mapping[str, Value]) -> None:
        """Nothing."""

    def timing(self, step: int, values: Mapping[str, Value]) -> None:
        """Nothing."""

    def samples(
        self, step: int, samples: Sequence[Sample], examples: Mapping[str, Example]
    ) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def writer(
    workdir: str | os.PathLike[str],
    position: int | None,
    config: ml_collections.ConfigDict | None = None,
) -> MetricsWriter | NoWriter:
    """The records of `workdir` on the process that writes; see `MetricsWriter`."""
    return MetricsWriter(workdir, position, config) if processes.is_first() else NoWriter()


def shorten(text: str, most: int) -> str:
    """A text of at most so many characters; "…" stands for what is left out at its end."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def format_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An aligned plain text table: the first column to the left, the others to the right.

    Cells are shown as `str` gives them, so that "+1.0" stays "+1.0".
    """
    alignment = ("left", *("right" for _ in headers[1:]))
    return tabulate.tabulate(
        [headers, *rows], headers="firstrow", disable_numparse=True, colalign=alignment
    )


def format_markdown(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The same table in Markdown, where a bar inside a cell would end it."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (headers, *rows)]
    return tabulate.tabulate(cells, headers="firstrow", tablefmt="github")


def format_label(name: str) -> str:
    """A name as pictures show it: cut where it is long, and without matplotlib's own signs, the $
    of formulas and a _ in front of what a legend leaves out."""
    text = shorten(trackers.plain(name), LABEL)
    return (" " * text.startswith("_") + text).replace("$", r"\$")


def _cut(path: pathlib.Path, position: int) -> int:
    """Cuts metrics.jsonl to its first `position` bytes; returns the step after its last line's."""
    content = path.read_bytes() if path.exists() else b""
    kept = content[:position]
    if len(kept) < position or (kept and not kept.endswith(b"\n")):
        raise UserError(
            f"Expected {path} to have a line ending at byte {position}, as its checkpoint says, "
            f"found {len(content)} bytes. It was changed or cut since: put back the file that "
            "belongs to the checkpoints, or give another workdir."
        )
    try:
        step = json.loads(kept.splitlines()[-1])["step"] if kept else -1
        if type(step) is not int or not -1 <= step < 2**62:
            raise ValueError(f"the step {step!r}")
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise UserError(
            f"{path}: expected a line with its step at byte {position}, found a fault: {e!r}. Put "
            "back the file that belongs to the checkpoints, or give another workdir."
        ) from e
    if len(content) > position:
        os.truncate(path, position)
    return step + 1


def _open(path: pathlib.Path) -> BinaryIO:
    # Unbuffered: a line is one system call, so a killed process leaves whole lines.
    return path.open("ab", buffering=0)


def _add(
    file: BinaryIO, step: int, values: Mapping[str, Value], **untold: Value
) -> dict[str, Value]:
    """Adds a line; gives its values as Python's own, without those that trackers are not told."""
    values = {name: _number(value) for name, value in values.items()}
    line = {name: _json_value(value) for name, value in values.items()}
    line |= {"step": step, **untold}
    _write(file, json.dumps(line, sort_keys=True, allow_nan=False).encode() + b"\n")
    return values


def _write(file: BinaryIO, line: bytes) -> None:
    """The whole line: where the disk is nearly full, a part of it is written without a fault."""
    while line := line[file.write(line) :]:
        pass


def _number(value: Any) -> Value:
    """`value` as Python's own type: NumPy's and JAX's scalars have `item`."""
    return value.item() if hasattr(value, "item") else value


def _json_value(value: Value) -> Value:
    """JSON has no NaN and no infinity: "nan", "inf", "-inf", which `float` reads back."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
