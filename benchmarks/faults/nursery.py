"""Begins runs without importing anything anew: a process that has, and forks one for each.

Where starts are slow, or many. It is less than a start of its own in one way: all that it forks
have one seed of Python's hashes, so an order of a set that would differ between starts does not.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Self

# Waits for lines of JSON. Each child has an attendant, which notes its pid and then how it ended.
_PROGRAM = """
import json, os, signal, sys
from absl import app
from hir_jax import cli
import hir_jax.commands.eval, hir_jax.commands.export, hir_jax.run.loop, hir_jax.report.report
import hir_jax.commands.experiment, hir_jax.commands.pretrain, hir_jax.commands.diagnose
import hir_jax.planning.plan, matplotlib.pyplot

def note(name, number):
    with open(name + ".part", "w") as file:
        file.write(str(number))
    os.replace(name + ".part", name)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # attendants need no one to wait for them
for line in sys.stdin:
    asked = json.loads(line)
    if os.fork():
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child:
        note(asked["notes"] + ".pid", child)
        note(asked["notes"] + ".code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    os.setpgid(0, 0)
    for number, name in ((1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(asked["env"])
    sys.argv = asked["argv"]
    cli.start()
"""


class Nursery:
    """A `runs.Starter`."""

    def __init__(self, root: pathlib.Path) -> None:
        """Begins the process, in the folder that main.py is in."""
        environment = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self,
        command: Sequence[str],
        *,
        cwd: Any,
        env: Mapping[str, str],
        stdout: IO[str],
        stderr: IO[str],
    ) -> "Child":
        """Forks a run; `command` is python, main.py and flags."""
        notes = stdout.name
        asked = {"argv": list(command[1:]), "env": dict(env), "notes": notes}
        asked |= {"out": stdout.name, "err": stderr.name}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        while (pid := _number(notes + ".pid")) is None:
            if self._process.poll() is not None:
                raise RuntimeError(f"the nursery ended with {self._process.returncode}")
            time.sleep(0.005)
        return Child(pid, notes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: Any) -> None:
        self._process.stdin.close()
        self._process.wait()


class Child:
    """A `runs.Process`."""

    def __init__(self, pid: int, notes: str) -> None:
        self.pid = pid
        self._notes = notes

    def poll(self) -> int | None:
        """The exit code, once there is one; below 0 the signal that killed it."""
        return _number(self._notes + ".code")


def _number(name: str) -> int | None:
    try:
        return int(pathlib.Path(name).read_text())
    except FileNotFoundError:
        return None
