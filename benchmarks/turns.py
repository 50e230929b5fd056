"""Runners in processes of their own that take turns.

Whoever waits is stopped: threads that spin while they have nothing to do (OpenMP's) would slow down
the others, and each process's peak of memory is its own.
"""

import contextlib
import json
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
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, what: str = "run") -> dict:
        """One run and what it cost, or something else that the process knows to answer.

        Raises:
            RuntimeError: it ended instead, or was ended since no answer came in time.
        """
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # it has ended: there is no answer below
            self._process.stdin.write(f"{what}\n")
            self._process.stdin.flush()
        in_time = select.select([self._process.stdout], [], [], self._patience)[0]
        answer = self._process.stdout.readline() if in_time else ""
        if not answer:
            self._process.kill()
            self._process.wait()
            why = "the process ended" if in_time else f"none came in {self._patience:g} s"
            raise RuntimeError(f"expected an answer; {why}: {self._process.args}")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(answer)

    def close(self) -> None:
        """Ends it."""
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.close()
        self._process.wait()


def serve(**answers: Callable[[], dict]) -> None:
    """Answers each line by the function of that name, and with the seconds it took."""
    for line in sys.stdin:
        started = time.perf_counter()
        told = answers[line.strip()]()
        print(json.dumps(told | {"seconds": time.perf_counter() - started}), flush=True)
