"""A polite stop: SIGTERM and SIGINT are noted, and obeyed where nothing is lost."""

import signal
from types import FrameType, TracebackType
from typing import Self

from hir_jax.devices import processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)


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

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._restore()

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
