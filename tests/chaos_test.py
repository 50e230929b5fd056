"""Runs that are killed end as if nothing had been; the long form is benchmarks/chaos.py."""

import random
import shutil

import pytest

from benchmarks.faults import modes, nursery, runs
from benchmarks.faults.disturbed import Disturbed
from benchmarks.visits import resumption
from tests import tiny


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """A run of the tiny model in processes of its own, undisturbed."""
    changes = {"iterations": 1, "checkpoint.every_steps": 2, "model.path": tiny.folder()}
    given = ["--config=tests/tiny.py"]
    given += [f"--config.{name}={value}" for name, value in changes.items()]
    home = tmp_path_factory.mktemp("chaos")
    with tiny.compiled_once() as cache, nursery.Nursery(runs.ROOT) as forked:
        given.append(f"--compilation_cache={cache}")
        yield Disturbed(runs.Command(given, home, starter=forked))


def test_killed_in_phases_by_name(disturbed):
    names = ["save", "sampling", "training"]
    found = modes.in_phases(disturbed, names, random.Random(0))
    assert not found["different"]
    # So short a run may be through with one before it is looked at; not with all.
    assert found["killed_in"] and {*found["killed_in"], *found["not_hit"]} == {*names}


def test_killed_at_random_moments(disturbed):
    found = modes.killed(disturbed, 3, "KILL", random.Random(0))
    assert sum(found["kills"]) == 3
    assert not found["different"]


def test_killed_once_in_training_in_a_visit(disturbed):
    found = {}
    resumption.kill(disturbed, lambda **more: found.update(more))
    assert found == {
        "undisturbed_seconds": disturbed.seconds,
        "killed_in": "training",
        "different": [],
    }


def test_what_differs_is_named(disturbed, tmp_path):
    other = shutil.copytree(disturbed.straight, tmp_path / "other")
    assert runs.differences(other, disturbed.straight) == []
    with (other / "metrics.jsonl").open("ab") as file:
        file.write(b"\n")
    (other / "samples" / "iter_0001.jsonl").unlink()
    (other / "timings.jsonl").unlink()
    expected = ["metrics.jsonl", "samples/iter_0001.jsonl"]
    assert runs.differences(other, disturbed.straight) == expected
