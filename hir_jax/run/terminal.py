"""What one sees of long work: a live view where there is a terminal, lines elsewhere, or nothing.

The view is drawn by a thread. Logs and whatever else goes to stderr print above it. A fault in it
ends the view, is logged with its traceback, and lines go on in its place.
"""

import collections
import contextlib
import logging as std_logging
import os
import pathlib
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any, Self

import ml_collections
import rich.console
import rich.file_proxy
import rich.live
from absl import logging

from hir_jax.devices import processes
from hir_jax.run import workdirs
from hir_jax.run.trackers import Told, Tracker, Values
from hir_jax.run.view import View, clock

LINE_SECONDS = 60  # between lines of a bar that is no terminal's
REDRAWS = 2  # a second
RECENT = 30  # seconds that a rate is taken over

_quiet = False
_screen: "Screen | None" = None  # the one that is open
_broken = False  # the view had a fault


def hush() -> None:
    """Only errors and alarms are told from now on."""
    global _quiet
    _quiet = True
    logging.get_absl_handler().python_handler.addFilter(_matters)


def _matters(record: std_logging.LogRecord) -> bool:
    return record.levelno >= std_logging.ERROR or str(record.msg).startswith("ALARM")


def lively() -> bool:
    """Whether a live view can be drawn here, and is wanted."""
    if _quiet or _broken or not processes.is_first() or not sys.stderr.isatty():
        return False
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return os.environ.get("TERM", "") not in ("", "dumb") and encoding.lower().startswith("utf")


class Screen:
    """A view on stderr, with all that is written there meanwhile above it."""

    def __init__(self, view: View) -> None:
        """Draws at once, and from then on `REDRAWS` times a second."""
        global _screen
        self._view, self._fault = view, None
        # Of the view and of the terminal: rich's own does not keep two threads' lines apart.
        self._lock = threading.RLock()
        self._live = rich.live.Live(
            console=rich.console.Console(file=sys.stderr),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
            vertical_overflow="crop",
        )
        self._handler = logging.get_absl_handler().python_handler
        self._streams = self._handler.stream, sys.stderr
        self._closed = threading.Event()
        _screen = self
        try:
            self._live.start()
            self._live.console.show_cursor(True)  # it would stay hidden after a kill
            sys.stderr = _Above(self._live.console, sys.stderr, self._lock)
            self._handler.setStream(sys.stderr)
            threading.Thread(target=self._draw, daemon=True).start()
        except Exception as e:
            self._end(e)

    def tell(self, method: str, *args: Any) -> None:
        """Calls a method of the view."""
        if self._closed.is_set():
            return
        try:
            if self._fault is not None:
                raise self._fault
            with self._lock:
                getattr(self._view, method)(*args)
        except Exception as e:
            self._end(e)

    def close(self) -> None:
        """Takes the view off the terminal."""
        self._end(self._fault)

    def draw(self) -> None:
        """Draws the view as it is now."""
        with self._lock:
            if not self._closed.is_set():
                self._live.update(self._view.draw(time.monotonic()), refresh=True)

    def _draw(self) -> None:
        try:
            self.draw()
            while not self._closed.wait(1 / REDRAWS):
                self.draw()
        except Exception as e:  # which this thread would keep to itself
            self._fault = e

    def _end(self, fault: Exception | None) -> None:
        global _screen, _broken
        if self._closed.is_set():
            return
        _screen = None
        try:
            with self._lock:
                self._closed.set()
                self._live.stop()
        except Exception as e:
            fault = fault or e
        logs, sys.stderr = self._streams
        self._handler.setStream(logs)
        if fault is not None:
            _broken = True
            logging.error("the live view has failed; the run goes on with lines", exc_info=fault)


class _Above(rich.file_proxy.FileProxy):
    """Prints whole lines above the view."""

    def __init__(self, console: rich.console.Console, file: IO[str], lock: threading.RLock) -> None:
        super().__init__(console, file)
        self._writing = lock

    def write(self, text: str) -> int:
        with self._writing:
            return super().write(text)


class Bar:
    """Progress towards a total; a context manager.

    Attributes:
        total: of what is counted.
        description: what is being done.
        unit: what is counted, in the singular.
        done: of the total.
    """

    def __init__(self, total: int, description: str, unit: str) -> None:
        self.total, self.description, self.unit, self.done = total, description, unit, 0
        self._started = self._told = time.monotonic()
        # (time, done) of updates, a second or more apart: what came before the first of them, a
        # compilation or what a resumed run has done already, is in no rate.
        self._marks: collections.deque[tuple[float, int]] = collections.deque()
        self._own: Screen | None = None

    def __enter__(self) -> Self:
        if _screen is None and lively():
            self._own = Screen(View())
        if _screen is not None:
            _screen.tell("show", self)
        return self

    def __exit__(self, *unused: object) -> None:
        if _screen is not None:
            _screen.tell("show", None)
        if self._own is not None:
            self._own.close()
        self._write()

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        self.done += n
        now = time.monotonic()
        if not self._marks or now - self._marks[-1][0] >= 1:
            self._marks.append((now, self.done))
        while len(self._marks) > 2 and now - self._marks[0][0] > RECENT:
            self._marks.popleft()
        if _screen is not None:
            _screen.tell("check")
        elif now - self._told >= LINE_SECONDS:
            self._told = now
            self._write()

    @property
    def share(self) -> float:
        """Of the total that is done."""
        return self.done / self.total if self.total else 1.0

    def rate(self, now: float) -> float | None:
        """Done a second, lately; None where there is nothing yet to tell it by."""
        if self._marks and self.done > self._marks[0][1]:
            then, before = self._marks[0]
            return (self.done - before) / max(now - then, 1e-9)
        return self.done / max(now - self._started, 1e-9) if self.done else None

    def pace(self, now: float) -> str:
        """'50/100, 12.3 samples/s, 0:00:04 left'; of what is done, how long it took."""
        text = f"{self.done}/{self.total}"
        if rate := self.rate(now):
            text += f", {rate:.3g} {self.unit}s/s"
            left = (self.total - self.done) / rate
            text += f", {clock(left)} left" if self.done < self.total else ""
        return text if self.done < self.total else f"{text}, in {clock(now - self._started)}"

    def _write(self) -> None:
        if self.done and not _quiet and processes.is_first():
            now = time.monotonic()
            line = f"{self.description}: {self.share:.0%} {self.pace(now)}\n"
            with contextlib.suppress(OSError):  # a pipe that no one reads; logs do the same
                sys.stderr.write(line)
                sys.stderr.flush()


class Watched(Tracker):
    """Shows a run on a screen of its own, until it ends."""

    def __init__(self, view: View) -> None:
        self._screen = Screen(view)

    def scalars(self, place: int, step: int, values: Values) -> None:
        """Tells the view."""
        self._screen.tell("scalars", place, step, values)

    def samples(self, place: int, step: int, told: Sequence[Told]) -> None:
        """Tells the view."""
        self._screen.tell("samples", place, step, told)

    def close(self) -> None:
        """Takes the view off the terminal."""
        self._screen.close()


def view_of(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[Tracker]:
    """The live view of a run in `workdir`, with what it did before; none where none can be."""
    if not lively():
        return []
    history = workdirs.read_lines(workdir / "metrics.jsonl")
    title = f"{workdir}: {config.algorithm}"
    return [Watched(View(title, history))]


def progress(total: int, description: str, unit: str) -> Bar:
    """A bar on stderr with rate and time left; where that is no terminal, a line a minute.

    It shows nothing on a process that is not the first of many.
    """
    return Bar(total, description, unit)
