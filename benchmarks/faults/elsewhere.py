"""A run that goes on elsewhere: in a folder that was moved, further, on more devices."""

import json
import pathlib
from typing import Any

from benchmarks.faults import phases, runs
from benchmarks.faults.disturbed import Disturbed, forget


def moved(disturbed: Disturbed) -> dict[str, Any]:
    """It is killed in training, and its workdir is another."""
    begun, workdir = disturbed.home / "here", disturbed.home / "there"
    hit = phases.kill_in(disturbed.command.start(begun), begun, phases.training, 0.0)
    begun.rename(workdir)
    return {"killed": hit, "different": disturbed.differences(workdir)}


def raised(disturbed: Disturbed) -> dict[str, Any]:
    """It ends after one iteration, and then is to have more."""
    workdir = disturbed.home / "raised"
    runs.ended_well(disturbed.command.start(workdir, "--config.iterations=1"))
    return {"different": disturbed.differences(workdir)}


def on_more_devices(disturbed: Disturbed) -> dict[str, Any]:
    """It is killed in its first training, and goes on on two devices, where sums are rounded
    otherwise: what was before is the same, and so are the questions and their order after."""
    workdir, straight = disturbed.home / "two_devices", disturbed.straight
    hit = phases.kill_in(disturbed.command.start(workdir), workdir, phases.training, 0.0)
    forget(workdir)
    known = runs.progress(workdir)["metrics_bytes"]
    runs.ended_well(disturbed.command.start(workdir, devices=2))
    found = [
        name
        for name in runs.differences(workdir, straight)
        if name in ("config.json", "identity.json", "samples/iter_0001.jsonl")
    ]
    first, other = ((each / "metrics.jsonl").read_bytes() for each in (workdir, straight))
    found += ["metrics.jsonl, of before"] * (first[:known] != other[:known])
    same = total = 0
    for file in sorted(straight.glob("samples/*")):
        pairs = list(zip(_records(workdir / "samples" / file.name), _records(file), strict=False))
        asked = [
            all(ours[k] == theirs[k] for k in ("example_id", "index")) for ours, theirs in pairs
        ]
        found += [f"{file.name}, what is asked"] * (not all(asked))
        same += sum(ours["text"] == theirs["text"] for ours, theirs in pairs)
        total += len(pairs)
    return {"killed": hit, "samples": total, "with_the_same_text": same, "different": found}


def all_of(disturbed: Disturbed) -> dict[str, Any]:
    """What came of each."""
    found = {each.__name__: each(disturbed) for each in (moved, raised, on_more_devices)}
    different = [f"{name}: {what}" for name, each in found.items() for what in each["different"]]
    return found | {"different": different}


def _records(file: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]]
