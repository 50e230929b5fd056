"""Runners in processes of their own that take turns.

Whoever waits is stopped, its workers, too: threads that spin while they have nothing to do
(OpenMP's) would slow down the others, and each process's peak of memory is its own.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence


class Runner:
    """A process that answers each line with a JSON object; see `serve`."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        patience: float | None = None,
    ) -> None:
        """Starts it; so many seconds are waited for an answer, without end where none are said."""
        self._patience = patience
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            process_group=0,  # of its own, so that signals reach its workers
        )

    def ask(self, what: str = "run") -> dict:
        """One run and what it cost, or something else that the process knows to answer.

        Raises:
            RuntimeError: it ended instead, or no answer came in time. What it began is ended, too.
        """
        self._send(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # it has ended: there is no answer below
            self._process.stdin.write(f"{what}\n")
            self._process.stdin.flush()
        answer = ""
        try:
            in_time = select.select([self._process.stdout], [], [], self._patience)[0]
            answer = self._process.stdout.readline() if in_time else ""
        finally:  # after an interrupt, too, of which another group does not hear
            self._send(signal.SIGSTOP if answer else signal.SIGKILL)
        if not answer:
            self._process.wait()
            why = "the process ended" if in_time else f"none came in {self._patience:g} s"
            raise RuntimeError(f"expected an answer; {why}: {self._process.args}")
        return json.loads(answer)

    def close(self) -> None:
        """Ends it."""
        self._send(signal.SIGCONT)
        self._process.stdin.close()
        self._process.wait()

    def _send(self, number: int) -> None:
        """Sends a signal to it and its workers."""
        with contextlib.suppress(ProcessLookupError):  # none is left
            os.killpg(self._process.pid, number)


def serve(**answers: Callable[[], dict]) -> None:
    """Answers each line by the function of that name, and with the seconds it took."""
    for line in sys.stdin:
        started = time.perf_counter()
        told = answers[line.strip()]()
        print(json.dumps(told | {"seconds": time.perf_counter() - started}), flush=True)
