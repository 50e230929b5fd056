"""What may be done to a run; each function gives a record of what was done, and what differed."""

import json
import random
import shutil
import signal
from typing import Any

from benchmarks.faults import damage, full_disk, phases, runs
from benchmarks.faults.disturbed import Disturbed, forget

TRIES = 3  # runs in which a phase is waited for
EXPECTED = {"KILL": (), "TERM": (143,), "HUP": (129,)}  # beside -n, and 75 of a lost process


def killed(disturbed: Disturbed, kills: int, name: str, rng: random.Random) -> dict[str, Any]:
    """A run that is killed so often; begun anew where it ends before."""
    number = getattr(signal, f"SIG{name}")
    allowed = {-number, *EXPECTED[name], *([75] if disturbed.command.processes > 1 else [])}
    targets = [(0,)] if disturbed.command.processes == 1 else [(1,), (0,), (0, 1)]
    moments = disturbed.moments(rng)
    done, found, codes = [], [], []
    workdir = disturbed.home / "killed_0"
    while sum(done) + len(codes) < kills:
        started = disturbed.command.start(workdir)
        if moments.wait(started, workdir):
            started.send(number, targets[len(codes) % len(targets)])
        ended = started.wait()
        moments.learn(workdir)
        forget(workdir)
        if set(ended) == {0}:  # before its moment came
            found += disturbed.compared(workdir, started.printed())
            done, codes = [*done, len(codes)], []
            workdir = disturbed.home / f"killed_{len(done)}"
        elif not set(ended) <= allowed:
            raise RuntimeError(f"ended with {ended}:\n{started.errors()[-3000:]}")
        else:
            codes.append(ended)
            print(f"kill {sum(done) + len(codes)}: {moments.last:.1f} s, {ended}", flush=True)
    found += disturbed.differences(workdir)
    return {"signal": name, "kills": [*done, len(codes)], "different": found}


def in_phases(disturbed: Disturbed, names: list[str], rng: random.Random) -> dict[str, Any]:
    """A run that is killed once in each phase; more such runs for what was missed."""
    missed, found, tries = list(names), [], 0
    while missed and tries < TRIES:
        workdir = disturbed.home / f"phases_{tries}"
        still = []
        for name in missed:
            hold = rng.uniform(0, 0.3) if phases.PHASES[name] in phases.LASTING else 0.0
            started = disturbed.command.start(workdir)
            hit = phases.kill_in(started, workdir, phases.PHASES[name], hold)
            if not hit and (codes := set(started.wait())) != {0}:
                raise RuntimeError(f"ended with {codes}:\n{started.errors()[-3000:]}")
            print(f"in {name}: {'killed' if hit else 'missed'}", flush=True)
            still += [] if hit else [name]
            forget(workdir)
        found += disturbed.differences(workdir)
        missed, tries = still, tries + 1
    hit = [name for name in names if name not in missed]
    return {"killed_in": hit, "not_hit": missed, "different": found}


def in_export(disturbed: Disturbed) -> dict[str, Any]:
    """--mode=export killed while it writes, and given again."""
    output = disturbed.home / "again_exported"
    started = disturbed.command.export(disturbed.straight, output)
    writes = lambda look: any(output.parent.glob(f"{output.name}*"))  # noqa: E731
    hit = phases.kill_in(started, disturbed.straight, writes, 0.0)
    left = sorted(path.name for path in output.parent.glob(f"{output.name}*"))
    if output.exists():
        return {"killed_in": ["export"] * hit, "different": [f"{output.name} is there in part"]}
    runs.ended_well(disturbed.command.export(disturbed.straight, output))
    found = runs.differing_exports(output, disturbed.exported)
    missed = [] if hit else ["export"]
    return {"killed_in": ["export"] * hit, "not_hit": missed, "left": left, "different": found}


def damaged(disturbed: Disturbed) -> dict[str, Any]:
    """A run that was killed in its last training goes on from each kind of damage."""
    begun = disturbed.home / "begun"
    last = json.loads((disturbed.straight / "config.json").read_text())["iterations"]
    late = lambda look: look.progress.get("iteration") == last and phases.training(look)  # noqa: E731
    if not phases.kill_in(disturbed.command.start(begun), begun, late, 0.0):
        return {"not_hit": ["the last training"], "different": []}
    newest, ways = max(runs.steps(begun)), {}
    for way in damage.WAYS:
        workdir = disturbed.home / f"damaged_{way.__name__}"
        shutil.copytree(begun, workdir)
        forget(workdir)
        way(workdir / "checkpoints" / str(newest))
        started = disturbed.command.start(workdir)
        code = started.wait()[0]
        said = _said(disturbed, started)
        if code == 2 and said.startswith("error: ") and "Traceback" not in started.errors():
            ways[way.__name__] = f"refused: {said}"
        elif code == 0:
            ways[way.__name__] = disturbed.compared(workdir, started.printed()) or "the same"
        else:
            ways[way.__name__] = [f"exit code {code}", said]
        print(f"{way.__doc__} {ways[way.__name__]}", flush=True)
    return {"ways": ways, "different": [k for k, v in ways.items() if isinstance(v, list)]}


def on_full_disks(disturbed: Disturbed, times: int, rng: random.Random) -> dict[str, Any]:
    """A run whose disk is full that often, and large again before it goes on."""
    disk, moments = disturbed.home / "disk", disturbed.moments(rng)
    said: list[str] = []
    found: list[str] = []
    with full_disk.mounted(disk) as done:
        if not done:
            return {"skipped": "only root may mount a disk", "different": []}
        count = 0
        while len(said) < times:
            workdir = disk / f"run_{count}"
            started = disturbed.command.start(workdir)
            if moments.wait(started, workdir):
                full_disk.fill(disk)
            (code,) = started.wait()
            moments.learn(workdir)
            full_disk.enlarge(disk)
            if code == 0:
                found += disturbed.compared(workdir, started.printed())
                count += 1
                continue
            said.append(_said(disturbed, started))
            print(f"full after {moments.last:.1f} s: {code}, {said[-1]}", flush=True)
            if code != 2 or "Traceback" in started.errors():
                found.append(f"exit code {code}: {started.errors()[-2000:]}")
        found += disturbed.differences(disk / f"run_{count}")
    return {"times": times, "runs": count + 1, "said": sorted(set(said)), "different": found}


def _said(disturbed: Disturbed, started: runs.Started) -> str:
    """Its last words, without the folder that all is in."""
    return started.last_words().replace(str(disturbed.home), "HOME")
