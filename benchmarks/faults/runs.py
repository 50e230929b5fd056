"""Runs of main.py as processes of their own: begun, watched, stopped, compared by their files."""

import dataclasses
import filecmp
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO, Any, Protocol

ROOT = pathlib.Path(__file__).parents[2]

# Of a workdir, what promises to be the same byte for byte.
PROMISED = ("metrics.jsonl", "samples/*", "eval.json", "config.json", "identity.json")
# And what does not.
LEFT_OUT = {
    "timings.jsonl": "holds times",
    "tensorboard/": "its events hold times and its files are named by them",
    "report.html and its pictures": "show times",
    "lock-*.json, attempts.json": "hold pids and starts; gone when a run ends",
    "checkpoints/": "which file holds which array varies; the exported weights are compared",
}


class Process(Protocol):
    """What is used of a subprocess.Popen."""

    pid: int

    def poll(self) -> int | None:
        """The exit code, once there is one; below 0 the signal that killed it."""


class Starter(Protocol):
    """What begins a process: subprocess.Popen, or a `nursery.Nursery`."""

    def __call__(
        self, command: Sequence[str], *, cwd: Any, env: Any, stdout: IO[str], stderr: IO[str]
    ) -> Process:
        """Begins `command`, which is main.py with flags."""


@dataclasses.dataclass
class Started:
    """The processes of one command, and the files of what they say."""

    processes: list[Process]
    said_in: list[pathlib.Path]
    began: float  # Unix seconds

    def ended(self) -> bool:
        """Whether all have."""
        return all(process.poll() is not None for process in self.processes)

    def wait(self) -> list[int]:
        """Their exit codes."""
        while not self.ended():
            time.sleep(0.02)
        return [process.poll() for process in self.processes]

    def send(self, number: int, which: Sequence[int] = (0,)) -> None:
        """Sends a signal to some of them."""
        for i in which:
            if self.processes[i].poll() is None:
                os.kill(self.processes[i].pid, number)

    def freeze(self) -> bool:
        """Holds the first where it is, for a look at what it has done; False where it has ended."""
        process = self.processes[0]
        self.send(signal.SIGSTOP)
        while process.poll() is None:
            try:
                stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
            except OSError:
                continue  # it ends
            if stat.rpartition(")")[2].split()[0] == "T":
                return True
        return False

    def errors(self) -> str:
        """What the first says on stderr, so far."""
        return self.said_in[0].with_suffix(".err").read_text(errors="replace")

    def printed(self) -> str:
        """What all print on stdout."""
        return "".join(file.with_suffix(".out").read_text() for file in self.said_in)

    def last_words(self) -> str:
        """The last line on stderr."""
        return (self.errors().splitlines() or [""])[-1]


class Command:
    """A command of main.py that is given again and again."""

    def __init__(
        self,
        flags: Sequence[str],
        home: pathlib.Path,
        processes: int = 1,
        starter: Starter = subprocess.Popen,
    ) -> None:
        """`flags` are main.py's; `home` is for what its processes say and what they compile."""
        self.flags = list(flags)
        self.home = home
        self.processes = processes
        self._starter = starter
        self._numbers = itertools.count(1)
        if not any(flag.startswith("--compilation_cache") for flag in flags):
            self.flags.append(f"--compilation_cache={home / 'cache'}")

    def start(
        self, workdir: pathlib.Path, *more: str, devices: int = 0, alone: bool = False
    ) -> Started:
        """Begins it in `workdir`, with more flags, maybe on so many CPU devices or as one process
        of those that it has."""
        environment = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        if devices:
            count = f" --xla_force_host_platform_device_count={devices}"
            environment["XLA_FLAGS"] = environment.get("XLA_FLAGS", "") + count
        count = 1 if alone else self.processes
        together = _together(count)
        command = [sys.executable, "main.py", *self.flags, f"--workdir={workdir}", *more]
        started = Started([], [], time.time())
        for i in range(count):
            said = self.home / f"said_{next(self._numbers):04}"
            with said.with_suffix(".out").open("w") as out, said.with_suffix(".err").open("w") as e:
                given = {"cwd": ROOT, "env": environment, "stdout": out, "stderr": e}
                place = [f"--process_id={i}"] if together else []
                process = self._starter([*command, *together, *place], **given)
            started.processes.append(process)
            started.said_in.append(said)
        return started

    def export(self, workdir: pathlib.Path, output: pathlib.Path) -> Started:
        """Begins --mode=export of the run in `workdir`."""
        return self.start(workdir, "--mode=export", f"--output={output}", alone=True)


def _together(count: int) -> list[str]:
    if count == 1:
        return []
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return [f"--coordinator=localhost:{s.getsockname()[1]}", f"--processes={count}"]


def ended_well(started: Started) -> Started:
    """Waits for it. Raises RuntimeError where it does not end with 0."""
    codes = started.wait()
    if set(codes) != {0}:
        raise RuntimeError(f"ended with {codes}:\n{started.errors()[-3000:]}")
    return started


def differences(workdir: pathlib.Path, other: pathlib.Path) -> list[str]:
    """The files that are promised and are not the same in both, or are in one alone."""
    names = {
        str(file.relative_to(folder))
        for folder in (workdir, other)
        for pattern in PROMISED
        for file in folder.glob(pattern)
    }
    return _differing(workdir, other, names)


def differing_exports(folder: pathlib.Path, other: pathlib.Path) -> list[str]:
    """The files of two exported models that are not the same."""
    names = {file.name for each in (folder, other) for file in each.iterdir()}
    return [f"exported {name}" for name in _differing(folder, other, names)]


def _differing(folder: pathlib.Path, other: pathlib.Path, names: set[str]) -> list[str]:
    return [
        name
        for name in sorted(names)
        if not (folder / name).is_file()
        or not (other / name).is_file()
        or not filecmp.cmp(folder / name, other / name, shallow=False)
    ]


def progress(workdir: pathlib.Path) -> dict[str, Any]:
    """Of the newest checkpoint, as far as it can be read at this moment; else nothing."""
    try:
        newest = workdir / "checkpoints" / str(max(steps(workdir)))
        sealed = json.loads((newest / "progress" / "progress.json").read_text())
        return sealed["content"]["progress"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def steps(workdir: pathlib.Path) -> frozenset[int]:
    """Of the checkpoints that are there."""
    names = (path.name for path in (workdir / "checkpoints").glob("[0-9]*"))
    return frozenset(int(name) for name in names if name.isdigit())
