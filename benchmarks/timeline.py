"""What the devices wait for: the host's share of each iteration of a run.

    python -m benchmarks.timeline [--config=configs/tiny.py] [--config.FIELD=VALUE ...]

Runs the job in a folder that is thrown away, and times what the host does by itself: texts of
outputs, verdicts, pairs, checkpoints, log and samples. A line an iteration: its seconds, and how
many percent of them each takes. Programs are compiled in the first. (The report is written beside
the run.)
"""

import collections
import contextlib
import functools
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from absl import app
from ml_collections import config_flags

from benchmarks import machine
from hir_jax import library
from hir_jax.model.codec import Codec
from hir_jax.run import checkpoint, evaluate, judging, loop, metrics, workdirs

CONFIG = config_flags.DEFINE_config_file("config", "configs/tiny.py", "The job.")

# Where each is done. What one calls of another counts for the other alone.
HOST = {
    "texts": [(Codec, "decode"), (Codec, "read"), (Codec, "is_readable")],
    "verdicts": [(judging, "judge"), (evaluate, "judge"), (evaluate, "best_constant")],
    "pairs": [(loop.Job, "_epochs"), (loop.Job, "_view")],
    "checkpoints": [(checkpoint.Checkpoints, "save"), (checkpoint.Checkpoints, "wait")],
    "log": [
        (metrics.MetricsWriter, "write"),
        (metrics.MetricsWriter, "samples"),
        (metrics.MetricsWriter, "timing"),
    ],
    "samples": [(workdirs, "write_samples")],
}


class Clock:
    """Seconds by name; what is inside of what else counts once, for the innermost."""

    def __init__(self) -> None:
        self.seconds: collections.Counter[str] = collections.Counter()
        self._open: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """What is done within it takes time of this name."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def watched(clock: Clock, stack: contextlib.ExitStack) -> None:
    """Has the clock run wherever `HOST` says, until the stack is left."""
    for name, places in HOST.items():
        for owner, attribute in places:
            does = getattr(owner, attribute)

            @functools.wraps(does)
            def timed(*args: Any, _does: Any = does, _name: str = name, **named: Any) -> Any:
                with clock.of(_name):
                    return _does(*args, **named)

            stack.enter_context(mock.patch.object(owner, attribute, timed))


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    config, clock, rows = CONFIG.value, Clock(), []
    with contextlib.ExitStack() as stack:
        watched(clock, stack)
        began = time.perf_counter()
        close = loop.Job.close_iteration

        def closed(job: loop.Job) -> None:
            nonlocal began
            close(job)
            ended = time.perf_counter()
            rows.append({"iteration": len(rows) + 1, "s": ended - began, **clock.seconds})
            clock.seconds.clear()
            began = ended

        stack.enter_context(mock.patch.object(loop.Job, "close_iteration", closed))
        workdir = stack.enter_context(tempfile.TemporaryDirectory())
        library.train(config, workdir)
    print(machine.name())
    shares = [[100 * row.get(name, 0.0) / row["s"] for name in HOST] for row in rows]
    lines = [
        [row["iteration"], f"{row['s']:.1f}", *(f"{x:.1f}" for x in own), f"{sum(own):.1f}"]
        for row, own in zip(rows, shares, strict=True)
    ]
    headers = ["iteration", "s", *(f"{name}, %" for name in HOST), "all, %"]
    print(metrics.format_table(headers, lines))


if __name__ == "__main__":
    app.run(main)
