"""Whether a run that is disturbed ends as one that is not, byte for byte.

    python -m benchmarks.chaos --kills=30 --signal=KILL -- --config.iterations=2
    python -m benchmarks.chaos --phases --damage --elsewhere -- --config.data.size=300
    python -m benchmarks.chaos --processes=2 --kills=9 --output=benchmarks/results/chaos.json

What stands behind `--` are flags of main.py, for any config. A run is made that nothing disturbs;
then one that is disturbed as the flags say, and given its command again until it ends. Compared are
`runs.PROMISED`, the table on stdout, and the weights that both export; `runs.LEFT_OUT` says what is
not, and why. Nothing in hir_jax helps: phases are found by looking at the workdir and at stderr.

A run that is killed three times before it saves anything is refused on purpose: after each kill its
attempts.json is removed.
"""

import contextlib
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from absl import app, flags

from benchmarks import machine
from benchmarks.faults import elsewhere, modes, nursery, phases, runs
from benchmarks.faults.disturbed import Disturbed

KILLS = flags.DEFINE_integer("kills", 0, "Kill a run so often in a row, at random moments.")
SIGNAL = flags.DEFINE_enum("signal", "KILL", ["KILL", "TERM", "HUP"], "By which signal.")
PHASES = flags.DEFINE_bool("phases", False, "Kill it once in each phase.")
DAMAGE = flags.DEFINE_bool("damage", False, "Damage the newest checkpoint in each way.")
FULL_DISK = flags.DEFINE_integer("full_disk", 0, "So often, fill its disk at random moments.")
ELSEWHERE = flags.DEFINE_bool("elsewhere", False, "Move it, raise iterations, give more devices.")
PROCESSES = flags.DEFINE_integer("processes", 1, "Of each run; kills hit one, the other, or both.")
SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
FORKED = flags.DEFINE_bool("forked", False, "Fork all runs from a process that has imported.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file to add the results to.")


def main(argv: list[str]) -> None:
    """Does what the flags ask for; prints a line for each, and adds it to the JSON."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, runs would ignore it as well
    with contextlib.ExitStack() as stack:
        home = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        forked = FORKED.value and stack.enter_context(nursery.Nursery(runs.ROOT))
        command = runs.Command(argv[1:], home, PROCESSES.value, forked or subprocess.Popen)
        disturbed = Disturbed(command)
        about = {
            "machine": machine.name(),
            "flags": argv[1:],
            "processes": PROCESSES.value,
            "forked": FORKED.value,
            "seed": SEED.value,
            "undisturbed_seconds": round(disturbed.seconds, 1),
        }
        is_same = True
        for name, mode in asked().items():
            found = mode(disturbed)
            print(f"{name}: {_verdict(found)}", flush=True)
            is_same = is_same and not found["different"]
            _add(f"{name}, processes: {PROCESSES.value}", about | found)

    if not is_same:
        sys.exit(1)


def _verdict(found: dict[str, Any]) -> str:
    """In words, with what was not tried."""
    if "skipped" in found:
        return f"skipped: {found['skipped']}"
    missed = "".join(f"; not hit: {name}" for name in found.get("not_hit", ()))
    return f"different: {found['different']}{missed}" if found["different"] else f"the same{missed}"


def asked() -> dict[str, Callable[[Disturbed], dict[str, Any]]]:
    """What the flags ask for, by name."""
    rng = random.Random(SEED.value)
    every = {
        f"kills by SIG{SIGNAL.value}": (
            KILLS.value,
            lambda run: modes.killed(run, KILLS.value, SIGNAL.value, rng),
        ),
        "phases": (PHASES.value, lambda run: modes.in_phases(run, list(phases.PHASES), rng)),
        "export": (PHASES.value, modes.in_export),
        "damage": (DAMAGE.value, modes.damaged),
        "full disk": (FULL_DISK.value, lambda run: modes.on_full_disks(run, FULL_DISK.value, rng)),
        "elsewhere": (ELSEWHERE.value, elsewhere.all_of),
    }
    return {name: mode for name, (is_asked, mode) in every.items() if is_asked}


def _add(name: str, found: dict[str, Any]) -> None:
    if OUTPUT.value:
        file = pathlib.Path(OUTPUT.value)
        known = json.loads(file.read_text()) if file.exists() else {"not_compared": runs.LEFT_OUT}
        file.write_text(json.dumps(known | {name: found}, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
