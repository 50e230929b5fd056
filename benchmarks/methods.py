"""The default job by each method: what it learns, and what that costs.

    python -m benchmarks.methods --output=methods.json

Every run is a process of its own with a cache of compiled programs of its own, one after another.
Seconds are of the whole command, compilation included; memory is the process's peak. The best
checkpoint is chosen on the development questions and scored on the test questions.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import machine
from hir_jax.methods import table
from hir_jax.run import evaluation, metrics
from hir_jax.run.outcome import Outcome
from hir_jax.run.statistics import percent, points

FLAGS = flags.FLAGS
flags.DEFINE_list("methods", [name for name in table.METHODS if name != "raft"], "Which to run.")
flags.DEFINE_multi_string("set", [], "A flag for every run, such as --config.seed=1.")
flags.DEFINE_string("output", "", "A JSON file for all figures.")

ROOT = pathlib.Path(__file__).parents[1]


def measure(method: str) -> dict[str, Any]:
    """Runs the default job by one method; what came of it.

    Raises:
        SystemExit: the run failed; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "main.py", f"--workdir={folder}/run"),
            *(f"--config.algorithm={method}", f"--compilation_cache={folder}/cache", *FLAGS.set),
        ]
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        if status:
            sys.exit(f"{method}: the run failed")
        workdir = pathlib.Path(folder) / "run"
        outcome = json.loads((workdir / "eval.json").read_text())
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {
        "method": method,
        "seconds": seconds,
        "peak_memory_gb": usage.ru_maxrss / 1e6,
        "steps": max(json.loads(line)["step"] for line in lines),
        "machine": machine.name(),
        "outcome": outcome,
    }


HEADERS = ("", "accuracy", "gap", "best of", "samples", "steps", "seconds", "memory", "alarms")


def row(found: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    outcome = Outcome.from_json(found["outcome"])
    correct, _, gap = evaluation.estimate([outcome.after]).values()
    return (
        found["method"],
        percent(correct),
        points(gap),
        f"{outcome.best_iteration} of {outcome.iterations}",
        f"{outcome.samples:,}",
        f"{found['steps']:,}",
        f"{found['seconds']:.0f}",
        f"{found['peak_memory_gb']:.2f} GB",
        str(len(outcome.alarms)),
    )


def main(argv: Sequence[str]) -> None:
    """Runs all, prints the table after each."""
    del argv
    found = []
    for method in FLAGS.methods:
        found.append(measure(method))
        print(metrics.format_table(HEADERS, [row(each) for each in found]), flush=True)
        if FLAGS.output:
            pathlib.Path(FLAGS.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
