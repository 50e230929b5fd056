"""A short run that is killed while it trains, resumed, and compared byte by byte with one that was
not: see `benchmarks.chaos`.
"""

import shutil

from benchmarks.faults import phases, runs
from benchmarks.faults.disturbed import Disturbed
from benchmarks.visits.stages import Note, Visit

FLAGS = (
    *("--config.iterations=1", "--config.data.size=240", "--config.sample.samples=2"),
    *("--config.sample.kl_to_start=false", "--config.checkpoint.every_steps=4"),
    *("--config.report.every=0", "--config.trackers="),
)


def run(visit: Visit, note: Note) -> None:
    """This process leaves the device alone: each run needs it."""
    home = visit.scratch / "resumption"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    cache = f"--compilation_cache={visit.scratch / 'cache'}"
    kill(Disturbed(runs.Command([*FLAGS, cache], home)), note)


def kill(disturbed: Disturbed, note: Note) -> None:
    """Makes the other run.

    Raises:
        RuntimeError: it ended before it was killed.
    """
    note(undisturbed_seconds=disturbed.seconds)
    workdir = disturbed.home / "killed_in_training"
    started = disturbed.command.start(workdir)
    if not phases.kill_in(started, workdir, phases.training, hold=0.0):
        raise RuntimeError(f"expected to kill a run in training; it ended with {started.wait()}")
    note(killed_in="training", different=disturbed.differences(workdir))
