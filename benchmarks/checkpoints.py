"""What it costs that nothing is lost: the time of checkpoints and logs, the memory of going on.

    scripts/cpu.sh python -m benchmarks.checkpoints --output=benchmarks/results/checkpoints.json

The default job is run. Of its time: the share in which it waits for its checkpoints (copying arrays
off the device, checksums, waiting for the one before) and for its logs. Of each save: when it was
begun, how long the run stood still for it, and how long until it was whole on disk. The same of one
iteration with a checkpoint every `OFTEN` steps, which is for how long steps take while one is being
written, and else. Then a run of no iterations is resumed up to its end, loaded as --mode=eval,
sample and score load it, and exported; of each the peak of the bytes in device buffers, looked at
every millisecond, beside what it has to hold: the train state (and the starting model, where the
config keeps it), or the parameters.
"""

import contextlib
import functools
import gc
import itertools
import pathlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import app, flags

from benchmarks import machine
from configs import tiny
from hir_jax.commands.export import export_policy
from hir_jax.commands.policy import load_policy
from hir_jax.run import arrays, checkpoint, loop, metrics, models, trainers, workdirs

OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
OFTEN = 20

CHECKPOINTS = ("save", "wait", "close")  # of `Checkpoints`; `save` waits, too, which counts once
LOGS = ((metrics.MetricsWriter, ("write", "timing")), (workdirs, ("write_samples",)))


class Clock:
    """Seconds spent in functions, and when each call began and ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, float]] = []
        self._depth = 0

    def around(self, owner: Any, name: str) -> None:
        """Has all calls of a function counted, one within another once."""
        call = getattr(owner, name)

        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            begun = time.monotonic()
            try:
                return call(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.calls.append((begun, time.monotonic()))

        setattr(owner, name, timed)

    def seconds(self) -> float:
        """In all."""
        return sum(end - begun for begun, end in self.calls)


@contextlib.contextmanager
def looking(every: float, look: Callable[[], None]) -> Iterator[None]:
    """Calls `look` on a thread of its own, so often."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def live_bytes() -> int:
    """Of all buffers on devices; several arrays may be views of one."""
    buffers = {}
    for array in jax.live_arrays():
        with contextlib.suppress(RuntimeError):  # deleted meanwhile
            for shard in array.addressable_shards:
                buffers[shard.device, shard.data.unsafe_buffer_pointer()] = shard.data.nbytes
    return sum(buffers.values())


def peak(work: Callable[[], Any]) -> int:
    """The most bytes in live arrays at any time of `work`, beyond those before it."""
    gc.collect()
    before, most = live_bytes(), [0]
    with looking(0.001, lambda: most.append(max(most.pop(), live_bytes()))):
        work()
    return most[0] - before


def timed_run(config: Any, workdir: str) -> dict[str, Any]:
    """Runs the job; where its time went."""
    saves, logs, steps = Clock(), Clock(), Clock()
    for name in CHECKPOINTS:
        saves.around(checkpoint.Checkpoints, name)
    for owner, names in LOGS:
        for name in names:
            logs.around(owner, name)
    steps.around(loop.Job, "_step")
    begun: dict[int, tuple[float, float]] = {}
    whole: dict[int, float] = {}
    write = arrays.write

    def watched(manager: Any, step: int, *rest: Any) -> None:
        started = time.monotonic()
        write(manager, step, *rest)
        begun[step] = started, time.monotonic() - started

    def look() -> None:
        for step in begun.keys() - whole.keys():
            if (pathlib.Path(workdirs.checkpoint_folder(workdir)) / str(step)).exists():
                whole[step] = time.monotonic()

    arrays.write = watched
    started = time.monotonic()
    with looking(0.005, look):
        loop.run(config, workdir)
    total = time.monotonic() - started
    arrays.write = write
    timeline = [
        {
            "checkpoint": step,
            "begun_at": at - started,
            "stands_still": still,
            "whole_after": whole.get(step, at + still) - at,
        }
        for step, (at, still) in begun.items()
    ]
    return {
        "seconds": total,
        "checkpoints_seconds": saves.seconds(),
        "logs_seconds": logs.seconds(),
        "share": (saves.seconds() + logs.seconds()) / total,
        "saves": timeline,
        "step_seconds": step_times(
            [at for at, _ in steps.calls],
            [(at, whole.get(step, at)) for step, (at, _) in begun.items()],
        ),
    }


def step_times(steps: list[float], writing: list[tuple[float, float]]) -> dict[str, Any]:
    """How long steps took while a checkpoint was written, and else: their number and the median.

    Args:
        steps: when each began; what is between two that are not neighbours the median leaves out.
        writing: from when to when a checkpoint was.
    """
    found: dict[str, list[float]] = {"while_writing": [], "else": []}
    for begin, end in itertools.pairwise(steps):
        beside = any(begin < until and end > since for since, until in writing)
        found["while_writing" if beside else "else"].append(end - begin)
    return {
        name: {"steps": len(times), "median": statistics.median(times) if times else None}
        for name, times in found.items()
    }


def memory(config: Any, workdir: str) -> dict[str, Any]:
    """Bytes to hold and at the peak, of what goes on from a run of no iterations."""
    config.iterations = 0
    loop.run(config, workdir)
    (pathlib.Path(workdir) / "eval.json").unlink()  # so that the closing evaluation is done again
    model = models.abstract_model(config)
    params = total_bytes(model.params)
    state = total_bytes(trainers.make_training(config, model).abstract_state())
    works = {
        "resume": (
            state + params * trainers.needs_start(config),
            lambda: loop.run(config, workdir),
        ),
        "load": (params, lambda: load_policy(config, workdir)),
        "export": (params, lambda: export_policy(config, workdir, f"{workdir}/exported")),
    }
    found = {}
    for name, (held, work) in works.items():
        most = peak(work)
        found[name] = {"to_hold": held, "peak": most, "ratio": most / held}
    return found


def main(argv: list[str]) -> None:
    """Runs all; prints a table and writes the JSON."""
    del argv
    config = tiny.get_config()
    config.report.every = 0
    often = config.copy_and_resolve_references()
    often.iterations, often.checkpoint.every_steps = 1, OFTEN
    with tempfile.TemporaryDirectory() as folder:
        record = {
            "machine": machine.name(),
            "run": timed_run(config, f"{folder}/run"),
            f"every_{OFTEN}_steps": timed_run(often, f"{folder}/often"),
            "memory": memory(config, f"{folder}/short"),
        }
    print(f"checkpoints and logs: {record['run']['share']:.1%} of {record['run']['seconds']:.0f} s")
    rows = [
        (name, f"{found['to_hold'] / 1e6:.1f}", f"{found['ratio']:.3f}")
        for name, found in record["memory"].items()
    ]
    print(metrics.format_table(("mode", "MB to hold", "peak"), rows))
    if OUTPUT.value:
        workdirs.write_json(pathlib.Path(OUTPUT.value), record)


def total_bytes(tree: Any) -> int:
    """Of all leaves."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
    app.run(main)
