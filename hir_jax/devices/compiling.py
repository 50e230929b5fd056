"""Compilations as they begin and end: what they are of, and how long such a one took last time.

What compiles says so in tracing, which runs once a compilation. JAX's own events tell of the end.
The times are kept in `compilations.json`, in the folder of the compilation cache.
"""

import contextlib
import json
import os
import pathlib
import re
import time
import zlib
from typing import NamedTuple

import jax
from absl import logging

from hir_jax.devices import processes

ENDED = "/jax/core/compile/backend_compile_duration"
FROM_CACHE = "/jax/compilation_cache/cache_hits"


class Compilation(NamedTuple):
    """One at work.

    Attributes:
        what: is compiled, for people to read.
        function: its name, as JAX's events have it.
        key: equal for equal compilations, of any process.
        started: by `time.monotonic`.
        last: seconds that it took last time; None where that is not known.
    """

    what: str
    function: str
    key: str
    started: float
    last: float | None

    def told(self, since: str = "") -> str:
        """What is compiled, with a forecast where there is one; `since`: " for 12 s"."""
        last = "" if self.last is None else f" ({self.last:.1f} s last time)"
        return f"compiling{since}{last}: {self.what}"


_file: pathlib.Path | None = None
_seconds: dict[str, float] = {}
_at_work: Compilation | None = None
_from_cache = False
_listening = False


def keep(folder: str) -> None:
    """Keeps the times of compilations in `folder`, and takes up those that are there."""
    global _file, _seconds, _listening
    _file, _seconds = pathlib.Path(folder) / "compilations.json", {}
    # A forecast is a comfort: a file that cannot be read is as good as none.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = json.loads(_file.read_text(encoding="utf-8"))
        _seconds = {k: v for k, v in found.items() if isinstance(v, int | float)}
    if not _listening:
        jax.monitoring.register_event_listener(_note_cache)
        jax.monitoring.register_event_duration_secs_listener(_note_end)
        _listening = True


def begin(what: str, function: str, *made_of: object) -> None:
    """Tells of a compilation; to be called in tracing.

    Args:
        what: is compiled, for people to read.
        function: the name of what is jitted.
        made_of: what else decides how long it takes; by its `repr`.
    """
    global _at_work, _from_cache
    device = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    parts = re.sub(r" at 0x[0-9a-f]+", "", repr(made_of))  # functions lie elsewhere each time
    key = f"{device}, {what}, {zlib.crc32(parts.encode()):08x}"
    _at_work = Compilation(what, function, key, time.monotonic(), _seconds.get(key))
    _from_cache = False
    logging.info("%s", _at_work.told())


def at_work() -> Compilation | None:
    """The compilation that has begun and not ended."""
    return _at_work if _listening else None


def _note_cache(event: str, **unused: object) -> None:
    global _from_cache
    _from_cache |= event == FROM_CACHE


def _note_end(event: str, seconds: float, **named: object) -> None:
    """Of the compilation at work; JAX compiles small things of its own meanwhile."""
    global _at_work
    done = _at_work
    if event != ENDED or done is None or named.get("fun_name") != f"jit({done.function})":
        return
    _at_work = None
    if not _from_cache:
        _seconds[done.key] = round(time.monotonic() - done.started, 2)
        _write()


def _write() -> None:
    if _file is None or not processes.is_first():
        return
    with contextlib.suppress(OSError):
        _file.parent.mkdir(parents=True, exist_ok=True)
        whole = _file.with_name(f"{_file.name}.{os.getpid()}")
        whole.write_text(json.dumps(_seconds, indent=1, sort_keys=True), encoding="utf-8")
        whole.replace(_file)
