"""One visit to a device: all that is worth knowing of hir_jax on it, in under eight minutes.

    benchmarks/visit.sh --out=visit                 # on one GPU, or on a TPU VM
    benchmarks/visit.sh --out=visit --sizes=small   # on a CPU, which does less of each

Each stage (`benchmarks.visits.stages`) is a process of its own with a time of its own. What it
finds is written down at once, and `visit.json` and the page `visit.md` after every stage, so that a
crash, an out-of-memory or a lack of time takes nothing else away; both say what did not run, and
why. With more `--seconds` each stage has more, too.

Weights are random, made on the device. Nothing is fetched. Compiled programs, traces and what
stages say are in `--scratch`.
"""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from benchmarks.visits import page, stages
from hir_jax.model import shapes

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 450.0
SIZES = ("tiny", *shapes.FLAN_T5)

flags.DEFINE_string("out", None, "Folder for visit.json and visit.md.")
flags.DEFINE_string("scratch", None, "Folder for all else (default: OUT/scratch).")
flags.DEFINE_float("seconds", SECONDS, "For all stages together.", lower_bound=0.0)
flags.DEFINE_list("sizes", ["small", "base", "large", "xl"], "Of FLAN-T5; or tiny, to try this.")
flags.register_validator(
    "sizes", lambda sizes: sizes and set(sizes) <= set(SIZES), f"expected some of {SIZES}"
)
flags.DEFINE_list("stages", [], "Names, or what names begin with (default: all stages).")
FLAGS = flags.FLAGS


def main(argv: Sequence[str]) -> None:
    """Does all stages; prints a line for each, and the page."""
    del argv
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(128 + signal.SIGTERM))
    out = pathlib.Path(FLAGS.out)
    scratch = pathlib.Path(FLAGS.scratch or out / "scratch").absolute()
    for folder in (out, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        stage
        for stage in stages.table(FLAGS.sizes)
        if not FLAGS.stages or stage.name.startswith(tuple(FLAGS.stages))
    ]
    command = (sys.executable, "-m", "benchmarks.visits", str(scratch), ",".join(FLAGS.sizes))
    found = visit(wanted, FLAGS.seconds, Processes(scratch, command), out)
    print(page.page(found))


def visit(
    wanted: Sequence[stages.Stage],
    seconds: float,
    run: "Callable[[stages.Stage, float], Outcome]",
    out: pathlib.Path,
) -> dict[str, Any]:
    """All stages, one after another, as long as there is time; what `visit.json` holds.

    Args:
        wanted: the stages.
        seconds: for all of them.
        run: does one in so many seconds at most.
        out: folder of `visit.json` and `visit.md`.
    """
    began, more = time.monotonic(), max(1.0, seconds / SECONDS)
    outcomes = {stage.name: Outcome({}, 0.0, "not reached") for stage in wanted}
    found: dict[str, Any] = {}
    for stage in wanted:
        left = seconds - (time.monotonic() - began)
        if left < stage.least:
            fault = f"not begun: {max(0.0, left):.0f} s were left, and it takes {stage.least:.0f}"
            outcomes[stage.name] = Outcome({}, 0.0, fault)
        else:
            outcomes[stage.name] = run(stage, min(left, more * stage.seconds))
        done = outcomes[stage.name]
        print(f"{stage.name}: {done.fault or 'done'} ({done.seconds:.0f} s)", flush=True)
        found = {
            "seconds": time.monotonic() - began,
            "stages": {name: dataclasses.asdict(outcome) for name, outcome in outcomes.items()},
        }
        write(out / "visit.json", json.dumps(found, indent=1) + "\n")
        write(out / "visit.md", page.page(found))
    return found


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of a stage.

    Attributes:
        found: what it noted.
        seconds: that it took.
        fault: why it is not whole; "" where it is.
    """

    found: dict[str, Any]
    seconds: float
    fault: str


@dataclasses.dataclass(frozen=True)
class Processes:
    """Runs stages in processes.

    Attributes:
        scratch: see `stages.Visit`.
        command: of each, before its name.
    """

    scratch: pathlib.Path
    command: Sequence[str]

    def __call__(self, stage: stages.Stage, seconds: float) -> Outcome:
        """One stage, killed with all that it began when its time is over."""
        said = stages.file_of(self.scratch, stage.name).with_suffix(".log")
        began = time.monotonic()
        with said.open("w") as log:
            process = subprocess.Popen(
                [*self.command, stage.name],
                cwd=ROOT,
                env=self._environment(stage),
                stdout=log,
                stderr=log,
                process_group=0,
            )
        try:
            code = process.wait(seconds)
            fault = "" if code == 0 else f"{_ended(code)}: {_last_words(said)}"
        except subprocess.TimeoutExpired:
            fault = f"stopped after {seconds:.0f} s, which was all its time"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        found = stages.found(self.scratch, stage.name)
        return Outcome(found, time.monotonic() - began, fault)

    def _environment(self, stage: stages.Stage) -> dict[str, str]:
        kept = {
            "JAX_COMPILATION_CACHE_DIR": str(self.scratch / stage.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        # Of a GPU's memory JAX takes three quarters otherwise.
        return {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"} | os.environ | kept


def _ended(code: int) -> str:
    return f"ended with {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"


def _last_words(file: pathlib.Path) -> str:
    """The last line that says something, such as the exception's."""
    lines = [line.strip() for line in file.read_text(errors="replace").splitlines()]
    spoken = [line for line in lines if line and not set(line) <= {*"-=~^ "}]
    return spoken[-1][:300] if spoken else "it said nothing"


def write(file: pathlib.Path, text: str) -> None:
    """Replaces a file in one go."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


if __name__ == "__main__":
    flags.mark_flag_as_required("out")  # only here: these flags are defined where tests import it
    app.run(main)
