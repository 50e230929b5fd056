"""What a run says of itself: metrics.jsonl, timings.jsonl, TensorBoard, progress bars, tables."""

import contextlib
import json
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import tabulate
import tqdm
from tensorboardX import event_file_writer, summary
from tensorboardX.proto.event_pb2 import Event, SessionLog

from hir_jax.devices import processes
from hir_jax.errors import UserError

# Seconds between lines of a progress bar that is no terminal's.
LINE_SECONDS = 60

Value = float | int | str


class MetricsWriter:
    """Appends to a workdir's records, one JSON object a line, and mirrors them to TensorBoard.

    `metrics.jsonl` holds only what a rerun repeats, so that a run that was killed and resumed
    leaves the same bytes as one never stopped. Wall-clock times go to `timings.jsonl`.
    TensorBoard's tags are "<phase>/<name>" where the values have a "phase", else "<name>", with
    "_" for what it has no tags with: "pass_2" for "pass@2".
    """

    def __init__(self, workdir: str | os.PathLike[str], position: int | None = None) -> None:
        """Opens the records of `workdir`, making it where it is absent.

        Args:
            workdir: the run's folder.
            position: bytes of metrics.jsonl to keep, as a checkpoint of the run has them; what was
                written after is cut, from TensorBoard's curves too. None keeps everything.

        Raises:
            UserError: metrics.jsonl does not reach to `position`, or has no line ending there.
        """
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        first_step = None if position is None else _cut(folder / "metrics.jsonl", position)
        self._metrics = _open(folder / "metrics.jsonl")
        self._timings = _open(folder / "timings.jsonl")
        # Files are named by the second: one resumed within it must not overwrite the other.
        self._curves = _Curves(folder / "tensorboard", first_step, f".{position or 0}")

    def write(self, step: int, values: Mapping[str, Value]) -> None:
        """Adds a line to metrics.jsonl: reproducible values only, "nan" and "inf" as strings."""
        self._add(self._metrics, step, values)

    def timing(self, step: int, values: Mapping[str, Value]) -> None:
        """Adds a line to timings.jsonl: durations and rates, and the time, in Unix seconds."""
        self._add(self._timings, step, values, time=time.time())

    @property
    def position(self) -> int:
        """Length of metrics.jsonl in bytes, all of them on disk."""
        os.fsync(self._metrics.fileno())
        return self._metrics.tell()

    def close(self) -> None:
        """Closes the files; nothing can be written after."""
        for file in (self._metrics, self._timings, self._curves):
            file.close()

    def _add(
        self, file: BinaryIO, step: int, values: Mapping[str, Value], **unmirrored: Value
    ) -> None:
        values = {name: _number(value) for name, value in values.items()}
        line = {name: _json_value(value) for name, value in values.items()}
        line |= {"step": step, **unmirrored}
        _write(file, json.dumps(line, sort_keys=True, allow_nan=False).encode() + b"\n")
        group = f"{values['phase']}/" if "phase" in values else ""
        for name, value in values.items():
            if not isinstance(value, str):
                tag = re.sub(r"[^-/\w.]", "_", group + name)
                self._curves.add(tag, value, step)
        self._curves.flush()


class _Curves:
    """TensorBoard's file of events, written by this thread.

    tensorboardX's own `SummaryWriter` writes on another, which ends at the first fault, a full disk
    for one; then its queue fills, and the run waits for ever.
    """

    def __init__(self, folder: pathlib.Path, first_step: int | None, suffix: str) -> None:
        """Opens a new file; of earlier ones, what is from `first_step` on shows no longer."""
        folder.mkdir(exist_ok=True)
        self._file = event_file_writer.EventsWriter(str(folder / "events"), suffix)
        if first_step is not None:
            self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, tag: str, value: float, step: int) -> None:
        self._write(step, summary=summary.scalar(tag, value))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # which the write before has raised
            self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        self._file.write_event(Event(wall_time=time.time(), step=step, **content))


class NoWriter:
    """In place of a `MetricsWriter` on a process that writes nothing."""

    position = 0

    def write(self, step: int, values: Mapping[str, Value]) -> None:
        """Nothing."""

    def timing(self, step: int, values: Mapping[str, Value]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def writer(workdir: str | os.PathLike[str], position: int | None) -> MetricsWriter | NoWriter:
    """The records of `workdir` on the process that writes; see `MetricsWriter`."""
    return MetricsWriter(workdir, position) if processes.is_first() else NoWriter()


def progress(work: Iterable[Any] | int, description: str, unit: str) -> tqdm.tqdm:
    """A progress bar on stderr with rate and time left; where that is no terminal, a line a minute.

    Args:
        work: what to iterate over, or a total that is reached by calling `update(n)` on the bar.
        description: what is being done.
        unit: what is counted, in the singular.

    Returns:
        The bar: an iterable, and a context manager that closes it. It shows nothing on a process
        that is not the first of many.
    """
    iterable, total = (None, work) if isinstance(work, int) else (work, None)
    # A space parts number and unit: "12.3 samples/s" rather than "12.3samples/s".
    look = {"desc": description, "unit": f" {unit}", "dynamic_ncols": True}
    if not processes.is_first():
        return tqdm.tqdm(iterable, total=total, disable=True)
    if sys.stderr.isatty():
        return tqdm.tqdm(iterable, total=total, **look)
    return _Lines(iterable, total=total, mininterval=LINE_SECONDS, **look)


def format_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An aligned plain text table: the first column to the left, the others to the right.

    Cells are shown as `str` gives them, so that "+1.0" stays "+1.0".
    """
    alignment = ("left", *("right" for _ in headers[1:]))
    return tabulate.tabulate(
        [headers, *rows], headers="firstrow", disable_numparse=True, colalign=alignment
    )


def format_markdown(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The same table in Markdown."""
    return tabulate.tabulate([headers, *rows], headers="firstrow", tablefmt="github")


class _Lines(tqdm.tqdm):
    """Writes lines instead of redrawing one: in a log file, each redrawing would be another."""

    def display(self, *unused_args: Any, **unused_kwargs: Any) -> None:
        """Writes a line if there is anything to tell since the last."""
        if self.n > getattr(self, "shown", 0):
            self.fp.write(f"{self}\n")
            self.fp.flush()
            self.shown = self.n

    def close(self) -> None:
        """Writes the last line."""
        if not self.disable:
            self.disable = True  # tqdm's own close would write an empty line
            self.display()


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
