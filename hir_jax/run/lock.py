"""The lock of a workdir: one run at a time trains there, and others are told which.

The lock is a file, lock-N.json, that says who holds it. A run that begins looks at all such files
there are: it is refused where one's holder lives, and else makes the next N. A file is made by one
alone, on network file systems too, so of two runs that begin at once one is refused.

A killed run leaves its file. On the same machine its holder is dead where no process has its pid
and its start time. From elsewhere that cannot be seen, so the file is watched: a holder touches it
every `BEAT_SECONDS`, and one that has not for `LEASE_SECONDS` of watching is dead. Clocks of
machines are not compared. A holder that was asleep for so long finds its file gone, and ends.
"""

import contextlib
import datetime
import getpass
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import logging

from hir_jax.devices import leaving, processes
from hir_jax.errors import UserError

BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0
LOOK_SECONDS = 1.0  # between two looks at a file that is watched
# A network's file system may show a new file late.
SEEN_SECONDS = 60.0


@contextlib.contextmanager
def held(workdir: str) -> Iterator[Callable[[], None]]:
    """Within it, no other run trains in `workdir`, an absolute path, made where it is absent.

    Gives a function that raises UserError where the lock was lost meanwhile, to be called before
    anything is written that another run must not find changed. Among many processes, process 0
    holds the lock for all and all call that function; each must see in the folder what process 0
    wrote, so copies of a workdir are not taken for one.

    Raises:
        UserError: another run holds it; it cannot be written; or not all processes see it.
    """
    folder, locks = pathlib.Path(workdir), []

    def take() -> list[str]:
        locks.append(_take(folder))
        return [locks[0].file.name, locks[0].token]

    name, token = processes.on_first(take)
    try:
        _check_shared(folder / name, token)
        yield lambda: processes.on_first(lambda: locks[0].check())
    except Exception as e:
        if not isinstance(e, UserError):
            for lock in locks:
                lock.check()  # of a folder that has gone any write may have failed
        raise
    finally:
        for lock in locks:
            lock.release()


class Lock:
    """A lock that this process has taken, and a thread that keeps it."""

    def __init__(self, file: pathlib.Path, token: str) -> None:
        self.file, self.token = file, token
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Raises UserError where another run has taken it over."""
        if not _has(self.file, self.token):
            raise UserError(
                f"The lock of the workdir, {self.file}, is no longer this process's: it, or its "
                "folder, was removed or moved, or another run took it since this one was not heard "
                f"of for {LEASE_SECONDS:.0f} s (was its machine asleep?). So this run has stopped "
                "and written nothing more. Its checkpoints are there: the same command goes on "
                "from the newest once the workdir is free."
            )

    def release(self) -> None:
        """Gives it back, if it is still held."""
        self._released.set()
        self._heart.join(BEAT_SECONDS)  # a file system that hangs is not waited for
        if _has(self.file, self.token):
            self.file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                self.check()
                os.utime(self.file)
            except UserError as e:
                leaving.end(f"error: {e}", 2)
            except OSError as e:  # of a network, most often; it may be over by the next
                logging.warning("cannot reach %s: %s", self.file, e)


def _take(folder: pathlib.Path) -> Lock:
    """The lock of a folder."""
    dead: set[pathlib.Path] = set()
    token = secrets.token_hex(16)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            found = _files(folder)
            for file in found - dead:
                _check_dead(file)
                dead.add(file)
            number = max(map(_number, found), default=0) + 1
            file = folder / f"lock-{number}.json"
            try:
                with file.open("x", encoding="utf-8") as f:
                    json.dump(_myself() | {"token": token}, f, indent=2)
            except FileExistsError:
                continue
            except OSError:  # a full disk, for one
                file.unlink(missing_ok=True)
                raise
            # Where those that were found have gone meanwhile, another may have begun anew.
            if _files(folder) <= dead | {file}:
                break
            file.unlink()
        for each in dead:
            each.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f"--workdir: cannot write to {e.filename or folder}: {e.strerror}.") from e
    return Lock(file, token)


def _files(folder: pathlib.Path) -> set[pathlib.Path]:
    return {file for file in folder.glob("lock-*.json") if file.stem[5:].isdecimal()}


def _number(file: pathlib.Path) -> int:
    return int(file.stem[5:])


def _read(file: pathlib.Path) -> dict[str, Any]:
    """Who holds it; empty where that is not written yet, or no longer."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _has(file: pathlib.Path, token: str) -> bool:
    return _read(file).get("token") == token


def _check_shared(file: pathlib.Path, token: str) -> None:
    """Raises UserError on all processes if one does not see what process 0 has written."""
    if not processes.many():
        return
    until = time.monotonic() + SEEN_SECONDS
    while not (seen := _has(file, token)) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    blind = [i for i, each in enumerate(processes.gather(seen)) if not each]
    if blind:
        raise UserError(
            f"--workdir: expected a folder that all processes share; {file}, which process 0 "
            f"wrote, is not seen by {blind}: theirs is another folder or a copy. Give a path on a "
            "file system that all of them mount."
        )


# Who lives ----------------------------------------------------------------------------------------


def _myself() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "owner": _user(),
        "host": socket.gethostname(),
        "pid": pid,
        "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "started": _start_of(pid),
        "pids_of": _pids_of(),
    }


def _check_dead(file: pathlib.Path) -> None:
    """Raises UserError where the holder of a lock lives."""
    holder = _read(file)
    if not holder:  # it is being written, most often
        time.sleep(LOOK_SECONDS)
        holder = _read(file)
    here = holder.get("pids_of") and holder["pids_of"] == _pids_of()
    if here:
        lives = _start_of(holder.get("pid")) == holder.get("started")
    else:
        lives = _is_touched(file, holder)
    if not lives:
        return
    pid, host = holder.get("pid", "unknown"), holder.get("host", "an unknown host")
    raise UserError(
        f"--workdir: expected a folder that no other run is at work in; {file.parent} is held by "
        f"process {pid} of {holder.get('owner', 'someone')} on {host}, since "
        f"{holder.get('since', 'a moment')}. Wait until it ends, stop it there (kill {pid}; it "
        "saves first), or give another --workdir. If there is no such run, remove "
        f"{file}."
    )


def _is_touched(file: pathlib.Path, holder: dict[str, Any]) -> bool:
    """Whether the holder, which cannot be seen from here, touches the file while it is watched."""
    logging.warning(
        "%s is of process %s on %s, where it cannot be seen from here whether it lives; looking "
        "for %.0f s whether it still touches the file",
        *(file, holder.get("pid"), holder.get("host"), LEASE_SECONDS),
    )
    first = _touched(file)
    # Looks are counted, not seconds: a file system that hangs keeps the holder waiting as well.
    for _ in range(int(LEASE_SECONDS / LOOK_SECONDS)):
        time.sleep(LOOK_SECONDS)
        now = _touched(file)
        if now != first:
            return now is not None
    return False


def _touched(file: pathlib.Path) -> int | None:
    """When it was touched last, by the file system's clock; None where it is gone."""
    try:
        with file.open() as f:  # a network's file system looks anew only where a file is opened
            return os.fstat(f.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _pids_of() -> str | None:
    """What processes must have in common to see one another's pids; None where that is unknown.

    Hosts' names do not tell: pods that are started again keep them.
    """
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {os.getuid()}"
    except OSError:  # not Linux
        return None


def _start_of(pid: Any) -> str | None:
    """When a process started, in the kernel's ticks; None where there is none, or a zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else fields[19]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a name
        return f"uid {os.getuid()}"
