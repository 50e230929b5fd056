"""A run's figures for TensorBoard."""

import contextlib
import json
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

import ml_collections
from tensorboardX import event_file_writer, summary
from tensorboardX.proto.event_pb2 import Event, SessionLog

from hir_jax.run.trackers import Told, Tracker, Values, figures, flat, plain


class TensorBoard(Tracker):
    """Writes TensorBoard's file of events, on this thread.

    tensorboardX's own `SummaryWriter` writes on another, which ends at the first fault, a full disk
    for one; then its queue fills, and the run waits for ever.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        config: ml_collections.ConfigDict,
        first_step: int | None,
        position: int | None,
    ) -> None:
        """Opens a new file; of earlier ones, what is from `first_step` on shows no longer."""
        folder.mkdir(exist_ok=True)
        # Files are named by the second: one resumed within it must not overwrite the other.
        self._file = event_file_writer.EventsWriter(str(folder / "events"), f".{position or 0}")
        if first_step is not None:
            self._write(first_step, session_log=SessionLog(status=SessionLog.START))
        if not position:  # a resumed run has told already
            shown = json.dumps(config.to_dict(), indent=2, default=str)
            self._write(0, summary=summary.text("config", _block(shown)))
            for part in summary.hparams(flat(config), {"evaluate/accuracy": None}):
                self._write(0, summary=part)

    def scalars(self, place: int, step: int, values: Values) -> None:
        """Curves; "_" stands for what tags cannot have: "pass_2" for "pass@2"."""
        for name, value in figures(values).items():
            tag = re.sub(r"[^-/\w.]", "_", name)
            self._write(step, summary=summary.scalar(tag, value))
        self._file.flush()

    timing = scalars

    def samples(self, place: int, step: int, told: Sequence[Told]) -> None:
        """Text."""
        text = "\n\n".join("\n".join(map(plain, each)) for each in told)
        self._write(step, summary=summary.text("samples", _block(text)))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # which the write before has raised
            self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        self._file.write_event(Event(wall_time=time.time(), step=step, **content))


def _block(text: str) -> str:
    """Markdown that shows text as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
