"""A polite stop: SIGTERM, SIGINT and SIGHUP are noted, and obeyed where nothing is lost.

That takes as long as a step, a pool of outputs with its verdicts, or a save does. Whoever will not
wait sends a second signal. Among many processes it may take for ever: where one waits for another
that never comes, in a collective or a save. So a thread sees to it that the process ends all the
same.
"""

import os
import select
import signal
import threading
import time
from types import FrameType
from typing import BinaryIO, Self

import jax

from hir_jax.devices import leaving, processes

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# For many processes to come to where they stop; less than the notice that the scripts ask for.
STOP_SECONDS = 240
# Between two times that processes ask each other in training.
ASK_SECONDS = 5


class Interrupted(Exception):
    """A signal asked to stop. `main.py` exits with 128 + the signal's number, as shells do."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Interrupts:
    """Within its `with` block the first signal is noted; a second one ends the process at once.

    Among many processes a signal to one is a signal to all, from the next call of `due` or `check`
    on, which all must make in the same order. A signal that is ignored as the block is entered
    stays so: SIGHUP under `nohup`.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._handlers: dict[int, object] = {}
        self._pipe: int | None = None
        self._terminals: list[int] = []
        self._steps, self._ask_at, self._asked = 0, 1, time.monotonic()
        self._before: jax.Array | None = None

    def __enter__(self) -> Self:
        self._terminals = [fd for fd in (1, 2) if os.isatty(fd)]
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._note)
        # Written to as a signal comes, while Python's own handlers wait for the main thread.
        pipe, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        signal.set_wakeup_fd(self._pipe)
        threading.Thread(target=_end_waits, args=(pipe,), daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self._pipe)

    @property
    def requested(self) -> bool:
        """Whether a signal has come to this process."""
        return self._number is not None

    def due(self, made: jax.Array) -> bool:
        """Whether to stop after a training step, of which `made` is a result.

        Among many processes asking takes a message to all, so it is done every `ASK_SECONDS` or
        so: in a number of steps that all work out alike, from the slowest. Then the step before
        this one is waited for, in one process too: else steps that take half a minute would be
        queued up far ahead of the device, and all of them be done before a stop.
        """
        before, self._before = self._before, made
        self._steps += 1
        if self._steps < self._ask_at:
            return self.requested and not processes.many()
        jax.block_until_ready(before)
        asked = processes.gather([self._number, time.monotonic() - self._asked])
        in_time = int(self._steps * ASK_SECONDS / max(seconds for _, seconds in asked))
        self._ask_at = min(max(in_time, 1), 2 * self._steps)  # the first steps may be the fastest
        self._steps, self._asked = 0, time.monotonic()
        return any(number is not None for number, _ in asked)

    def check(self) -> None:
        """Raises Interrupted if a signal has come, to any process."""
        numbers = processes.gather(self._number)
        number = next((number for number in numbers if number is not None), None)
        if number is not None:
            raise Interrupted(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._number = self._number or number
        lost = [fd for fd in self._terminals if not os.isatty(fd)]
        if lost:  # writing there would be an error from now on
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for fd in lost:
                os.dup2(nowhere, fd)
            os.close(nowhere)


def _end_waits(pipe: int) -> None:
    """Ends the process at a second signal; among many also `STOP_SECONDS` after the first."""
    with open(pipe, "rb", buffering=0) as signals:
        first = _next(signals)
        patience = STOP_SECONDS if processes.many() else None
        again, _, _ = select.select([signals], [], [], patience)
        if first is None or (again and _next(signals) is None):
            return  # the pipe is closed, since the block was left
    what = "and a second signal" if again else "while waiting for other processes"
    leaving.end(
        f"stopped by {signal.Signals(first).name} {what}, at the last checkpoint; give the same "
        "command to go on",
        128 + first,
    )


def _next(signals: BinaryIO) -> int | None:
    """The number of the next signal of ours; None at the end."""
    while (came := signals.read(1)) and came[0] not in SIGNALS:
        pass
    return came[0] if came else None
