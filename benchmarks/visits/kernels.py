"""What a device ran, read off a trace of JAX's profiler: kernels a step, and the longest ones.

An operation of a decode step runs once in each step, so that those of encoding and of handing out,
which run at other times, are told from it by how often they ran.
"""

import collections
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax

LONGEST = 10
# Events that hold others.
HOLDS_OTHERS = re.compile(r"(while|call|conditional|tuple|fori_loop|jit_)")


def traced(folder: pathlib.Path, work: Callable[[], Any]) -> Any:
    """Does it, and has the profiler write to `folder` what devices run; not what Python does."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(folder, profiler_options=options):
        return work()


def read(folder: pathlib.Path, steps: int) -> dict[str, Any]:
    """Kernels and milliseconds of one of `steps` steps, and the longest of all kernels.

    Raises:
        RuntimeError: the profiler wrote nothing, or no kernel is in what it wrote.
    """
    files = sorted(folder.rglob("*.xplane.pb"))
    if not files:
        raise RuntimeError(f"expected a trace of the profiler below {folder}, found none")
    return summed(jax.profiler.ProfileData.from_file(str(files[-1])), steps)


def summed(profile: Any, steps: int) -> dict[str, Any]:
    """The same of a `ProfileData`."""
    nanoseconds: collections.Counter[tuple[str, str]] = collections.Counter()
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    for operation, name, duration in _kernels(profile):
        nanoseconds[operation, name] += duration
        count[operation, name] += 1
    if not count:
        lines = [f"{p.name}: {line.name}" for p in profile.planes for line in p.lines]
        raise RuntimeError(f"expected kernels in the trace, found none in its lines {lines}")
    of_steps = [each for each in count if count[each] % steps == 0]
    whole = sum(nanoseconds.values())
    return {
        "kernels_a_step": sum(count[each] for each in of_steps) // steps,
        "ms_a_step": sum(nanoseconds[each] for each in of_steps) / steps / 1e6,
        "kernels": sum(count.values()),
        "ms": whole / 1e6,
        "longest": [
            {
                "operation": operation,
                "kernel": name,
                "count": count[operation, name],
                "ms": duration / 1e6,
                "share": duration / whole,
            }
            for (operation, name), duration in nanoseconds.most_common(LONGEST)
        ],
    }


def _kernels(profile: Any) -> Iterator[tuple[str, str, float]]:
    """(Operation of the compiled program, kernel, nanoseconds) of the first device.

    A GPU's are in the lines of its streams, a TPU's in one. A CPU has no lines of its own: what its
    threads did of compiled programs is among the host's.
    """
    lines = _lines(profile, "/device:", "Stream") or _lines(profile, "/device:", "XLA Ops")
    for line in lines or _lines(profile, "/host:CPU", ""):
        for event in line.events:
            told = dict(event.stats)
            operation = str(told.get("hlo_op", ""))
            if not lines and not (operation and told.get("device_ordinal", 0) == 0):
                continue
            if not HOLDS_OTHERS.match(operation or event.name):
                yield operation or event.name, event.name, event.duration_ns


def _lines(profile: Any, plane: str, line: str) -> list[Any]:
    """Those whose names begin so, of the first plane that has any; others repeat their kernels."""
    found = (
        [each for each in whole.lines if each.name.startswith(line)]
        for whole in profile.planes
        if whole.name.startswith(plane)
    )
    return next(filter(None, found), [])
