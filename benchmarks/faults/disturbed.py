"""What is disturbed: a command, what it makes where nothing disturbs it, and how both compare."""

import pathlib
import random
import shutil
import time

from benchmarks.faults import runs


class Disturbed:
    """A command of main.py, and the run that it makes undisturbed."""

    def __init__(self, command: runs.Command) -> None:
        """Makes the undisturbed run, and exports it."""
        self.command = command
        self.home = command.home
        self.straight = self.home / "straight"
        began = time.monotonic()
        self.table = self._finish(self.straight)
        self.seconds = time.monotonic() - began
        self.exported = self.home / "straight_exported"
        runs.ended_well(command.export(self.straight, self.exported))

    def moments(self, rng: random.Random) -> "Moments":
        """Random moments to stop runs of it at."""
        return Moments(rng, self.seconds / 8)

    def differences(self, workdir: pathlib.Path) -> list[str]:
        """Has the run in `workdir` go on to its end; what of it is not as undisturbed."""
        return self.compared(workdir, self._finish(workdir))

    def compared(self, workdir: pathlib.Path, printed: str) -> list[str]:
        """What is not as undisturbed, of a run that has ended and printed this."""
        output = workdir.with_name(f"{workdir.name}_exported")
        runs.ended_well(self.command.export(workdir, output))
        found = runs.differences(workdir, self.straight)
        found += ["the table"] * (printed != self.table)
        found += runs.differing_exports(output, self.exported)
        shutil.rmtree(output)
        return found

    def _finish(self, workdir: pathlib.Path) -> str:
        """What its last start prints. A lost process may be one that was late: then again."""
        while True:
            forget(workdir)
            started = self.command.start(workdir)
            if self.command.processes == 1 or 75 not in started.wait():
                return runs.ended_well(started).printed()


class Moments:
    """Random moments to stop a run at, often enough before and after it saves something.

    They count from where its devices are known, before which it has touched nothing. A run that
    saved nothing before it was stopped has longer the next time, and else less.
    """

    def __init__(self, rng: random.Random, most: float) -> None:
        """`most` is how many seconds the first waits at most."""
        self.last = 0.0
        self._rng = rng
        self._most = most
        self._saved: list[tuple[str, int]] = []

    def wait(self, started: runs.Started, workdir: pathlib.Path) -> bool:
        """Waits for the next; False where the run has ended before."""
        self._saved = _saves(workdir)
        while not started.ended() and "devices: " not in started.errors():
            time.sleep(0.01)
        self.last = self._rng.uniform(0, self._most)
        until = time.monotonic() + self.last
        while not started.ended() and time.monotonic() < until:
            time.sleep(0.01)
        return not started.ended()

    def learn(self, workdir: pathlib.Path) -> None:
        """By what the run has saved."""
        self._most *= 1.3 if _saves(workdir) == self._saved else 0.7


def _saves(workdir: pathlib.Path) -> list[tuple[str, int]]:
    """The notes of where the run is, each with the time of its writing."""
    return sorted(
        (str(file), file.stat().st_mtime_ns)
        for file in workdir.glob("checkpoints/*/progress/progress.json")
    )


def forget(workdir: pathlib.Path) -> None:
    """Starts that came to nothing count no more."""
    (workdir / "attempts.json").unlink(missing_ok=True)
