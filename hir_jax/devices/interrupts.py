"""A polite stop: SIGTERM and SIGINT are noted, and obeyed where nothing is lost.

Among many processes that may be nowhere: where one waits for another that never comes, in a
collective or a save. So a thread sees to it that a signal ends the process in the end.
"""

import os
import select
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from hir_jax.devices import leaving, processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# For many processes to come to where they stop; less than the notice that the scripts ask for.
STOP_SECONDS = 240


class Interrupted(Exception):
    """A signal asked to stop. `main.py` exits with 128 + the signal's number, as shells do."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Interrupts:
    """Within its `with` block the first signal is noted; a second one acts as it always does.

    Among many processes a signal to one is a signal to all, from the next call of `due` or `check`
    on, which all must make in the same order.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._handlers: dict[int, object] = {}
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._note)
        if processes.many():
            # Written to as a signal comes, while Python's own handlers wait for the main thread.
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            signal.set_wakeup_fd(self._pipe[1])
            threading.Thread(target=_end_waits, args=(self._pipe[0],), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._restore()
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])

    @property
    def requested(self) -> bool:
        """Whether a signal has come to this process."""
        return self._number is not None

    def due(self, step: int, every: int) -> bool:
        """Whether to stop after a training step.

        In one process it is asked at each step. Among many it takes a message to all, so they are
        asked every `every` steps only.
        """
        if processes.many() and step % every:
            return False
        return self._agreed() is not None

    def check(self, *_: object) -> None:
        """Raises Interrupted if a signal has come, to any process."""
        number = self._agreed()
        if number is not None:
            raise Interrupted(number)

    def _agreed(self) -> int | None:
        numbers = processes.gather(self._number)
        return next((number for number in numbers if number is not None), None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        self._restore()

    def _restore(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)


def _end_waits(pipe: int) -> None:
    """Ends the process `STOP_SECONDS` after a signal, or at the next one, if it is still there."""
    with open(pipe, "rb", buffering=0) as signals:
        while (came := signals.read(1)) and came[0] not in SIGNALS:
            pass
        again, _, _ = select.select([signals], [], [], STOP_SECONDS)
        if not came or (again and not signals.read(1)):
            return  # the pipe is closed, since the block was left
    leaving.end(
        f"stopped by {signal.Signals(came[0]).name} while waiting for other processes, at the last "
        f"checkpoint; {leaving.ADVICE[0].lower()}{leaving.ADVICE[1:]}",
        128 + came[0],
    )
