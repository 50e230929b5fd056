"""The phases of a run, as one who looks at its workdir and reads its stderr sees them."""

import json
import pathlib
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.faults import runs

POLL_SECONDS = 0.002


class Look(NamedTuple):
    """What is to be seen at a moment.

    Attributes:
        workdir: the run's.
        began: when the process did, in Unix seconds.
        said: its stderr.
        before: the steps of the checkpoints at the look before; None at the first.
    """

    workdir: pathlib.Path
    began: float
    said: str
    before: frozenset[int] | None

    @property
    def steps(self) -> frozenset[int]:
        """Of the checkpoints."""
        return runs.steps(self.workdir)

    @property
    def progress(self) -> dict[str, Any]:
        """Of the newest one."""
        return runs.progress(self.workdir)

    def last(self, name: str) -> dict[str, Any]:
        """The last line of a file of JSON lines; nothing where there is none."""
        try:
            return json.loads((self.workdir / name).read_bytes().splitlines()[-1])
        except (OSError, ValueError, IndexError):
            return {}

    def config(self) -> dict[str, Any]:
        """The run's."""
        return json.loads((self.workdir / "config.json").read_text())

    def is_new(self, file: pathlib.Path) -> bool:
        """Whether this process made it."""
        try:
            return file.stat().st_mtime >= self.began
        except OSError:
            return False

    def has_samples(self) -> bool:
        """Of the iteration that is at work."""
        iteration = self.progress.get("iteration", 0)
        return (self.workdir / "samples" / f"iter_{iteration:04}.jsonl").exists()

    def ahead(self) -> str:
        """Which phase's line metrics.jsonl has beyond what the newest checkpoint knows of; ''."""
        known, file = self.progress.get("metrics_bytes"), self.workdir / "metrics.jsonl"
        is_ahead = known is not None and file.stat().st_size > known
        return self.last("metrics.jsonl").get("phase", "") if is_ahead else ""


def opening_evaluation(look: Look) -> bool:
    """The starting model is measured."""
    return not look.steps and "devices: " in look.said and (look.workdir / "metrics.jsonl").exists()


def save(look: Look) -> bool:
    """A checkpoint is being written."""
    return any(map(look.is_new, look.workdir.glob("checkpoints/*.orbax-checkpoint-tmp")))


def rename(look: Look) -> bool:
    """A checkpoint's folder has appeared since the look before."""
    return look.before is not None and bool(look.steps - look.before)


def progress_alone(look: Look) -> bool:
    """progress.json of a checkpoint is being replaced: the new one lies beside it."""
    return any(map(look.is_new, look.workdir.glob("checkpoints/*/progress/*.part")))


def sampling(look: Look) -> bool:
    """Outputs are drawn."""
    progress = look.progress
    at_work = 0 < progress.get("iteration", 0) <= look.config()["iterations"]
    return at_work and not progress["sampled"] and not look.has_samples()


def samples_without_progress(look: Look) -> bool:
    """The samples' file is there, and no checkpoint knows of it."""
    return look.has_samples() and not look.progress.get("sampled", True)


def training(look: Look) -> bool:
    """Steps are made."""
    return bool(look.progress.get("sampled")) and look.ahead() in ("pairs", "train")


def evaluation(look: Look) -> bool:
    """The training of an iteration has ended, and what came of it is not known yet."""
    last, done = look.last("timings.jsonl"), look.progress
    of_now = last.get("phase") == "train" and last["iteration"] == done.get("iteration")
    return of_now and look.last("metrics.jsonl").get("phase") != "evaluate"


def metrics_without_save(look: Look) -> bool:
    """An evaluation's line is in metrics.jsonl, and no checkpoint knows of it."""
    return look.ahead() == "evaluate"


def closing_evaluation(look: Look) -> bool:
    """The last checkpoint is whole, and the table is not known yet."""
    over = look.progress.get("iteration", 0) > look.config()["iterations"]
    return over and not (look.workdir / "eval.json").exists()


def report(look: Look) -> bool:
    """All is done but the closing report and its pictures."""
    ended = (look.workdir / "eval.json").exists() and look.config()["report"]["every"]
    return bool(ended) and "report: " not in look.said.rpartition("at the end: ")[2]


# In the order in which one run can be stopped in all of them.
PHASES = {
    "opening evaluation": opening_evaluation,
    "save": save,
    "rename": rename,
    "sampling": sampling,
    "samples without progress": samples_without_progress,
    "progress alone": progress_alone,
    "training": training,
    "evaluation": evaluation,
    "metrics without save": metrics_without_save,
    "closing evaluation": closing_evaluation,
    "report": report,
}
# They go on for a while, of which any moment will do.
LASTING = {
    *(opening_evaluation, sampling, training, evaluation, closing_evaluation, report),
}


def kill_in(
    started: runs.Started, workdir: pathlib.Path, phase: Callable[[Look], bool], hold: float
) -> bool:
    """Kills a run in a phase, once it has been in it for `hold` seconds; False where it ends first.

    It is held where it is and looked at again before it is killed, so it is in the phase still.
    """
    before, since = None, None

    def there() -> bool:
        try:
            return phase(Look(workdir, started.began, started.errors(), before))
        except OSError:  # removed between two looks at it
            return False

    while not started.ended():
        since = (since or time.monotonic()) if there() else None
        if since is not None and time.monotonic() >= since + hold:
            if started.freeze() and there():
                started.send(signal.SIGKILL)
                started.wait()
                return True
            started.send(signal.SIGCONT)
        before = runs.steps(workdir)
        time.sleep(POLL_SECONDS)
    return False
