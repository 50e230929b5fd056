"""A run is what it reads, not where that lies: a whole run, resumed with changed files."""

import importlib
import json
import linecache
import shutil
import sys

import jax
import numpy as np
import pytest

from hir_jax.commands.eval import evaluate_policy
from hir_jax.errors import UserError
from hir_jax.model import hf
from hir_jax.run import identity, loop, trainers
from tests import tiny

pytestmark = pytest.mark.usefixtures("cache")

QUESTIONS = [
    {"question": f"{a} {op} {b} is", "answer": str(eval(f"{a} {op} {b}"))}
    for a in ("True", "False", "not True", "not False")
    for op in ("and", "or")
    for b in ("True", "False", "not True")
]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of one iteration, its questions and its model: copied for each test."""
    folder = tmp_path_factory.mktemp("begun")
    write(folder / "questions.jsonl", QUESTIONS)
    shutil.copytree(tiny.folder(), folder / "model")
    loop.run(config(folder), str(folder / "run"))
    return folder


@pytest.fixture
def copy(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "copy")


def write(file, records):
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def config(folder, **changes):
    fixed = {"data.source": "jsonl", "data.path": str(folder / "questions.jsonl"), "iterations": 1}
    fixed |= {"model.path": str(folder / "model"), "data.max_train": 0, "data.max_test": 0}
    return tiny.config(**fixed | changes)


def refused(call, *parts):
    with pytest.raises(UserError) as e:
        call()
    for part in parts:
        assert part in str(e.value)


def test_a_moved_model_and_moved_questions_are_the_same_run(copy):
    (copy / "questions.jsonl").rename(copy / "moved.jsonl")
    (copy / "model").rename(copy / "moved")
    changes = {"data.path": str(copy / "moved.jsonl"), "model.path": str(copy / "moved")}
    loop.run(config(copy, iterations=2, **changes), str(copy / "run"))
    assert json.loads((copy / "run" / "eval.json").read_text())["iterations"] == 2


def test_other_questions_are_another_run_and_nothing_is_written(copy):
    write(copy / "questions.jsonl", [{"question": "True is", "answer": "True"}, *QUESTIONS])
    before = (copy / "run" / "config.json").read_bytes()
    refused(
        lambda: loop.run(config(copy, iterations=2), str(copy / "run")),
        "read something else than what is here now",
        "prompts: the questions' tokens under the instructions",
        "another --workdir",
    )
    assert (copy / "run" / "config.json").read_bytes() == before


def test_one_changed_weight_is_another_model(copy, monkeypatch):
    params = jax.tree.map(np.array, tiny.params())
    params["lm_head"][3, 5] += 1e-3
    shutil.rmtree(copy / "model")
    hf.export(copy / "model", params, tiny.shape(), tiny.tokenizer(), tiny.raw_config())
    said = "read something else than what is here now:\n  weights: the model's weights\n"
    changed = config(copy, iterations=2)
    monkeypatch.setattr(trainers, "needs_start", lambda config: True)
    refused(lambda: loop.run(changed, str(copy / "run")), said)
    monkeypatch.undo()
    loop.run(changed, str(copy / "run"))  # which reads none, but for a reference to be held against


def test_another_shape_is_another_model(copy):
    raw = tiny.raw_config() | {"relative_attention_max_distance": 20}
    (copy / "model" / "config.json").write_text(json.dumps(raw))
    said = "read something else than what is here now:\n  model: the model's shape\n"
    refused(lambda: loop.run(config(copy, iterations=2), str(copy / "run")), said)


def test_the_users_verifier_is_held_by_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for body in ("True", "not True"):
        (tmp_path / "held_checks.py").write_text(f"def check(output, example): return {body}\n")
        monkeypatch.delitem(sys.modules, "held_checks", raising=False)
        linecache.clearcache()
        importlib.import_module("held_checks")
        digests.append(identity._source("held_checks:check"))
    assert digests[0] != digests[1]
    assert identity._source("exact") == "exact"


def test_a_run_is_judged_by_its_own_questions_unless_asked_otherwise(copy):
    workdir = str(copy / "run")
    assert evaluate_policy(config(copy), workdir)
    other = config(copy, **{"data.seed": 5})
    refused(lambda: evaluate_policy(other, workdir), "test: the test questions", "--transfer")
    assert evaluate_policy(other, workdir, transfer=True)
    reworded = config(copy, **{"instruction.correct": "right answer"})
    refused(lambda: evaluate_policy(reworded, workdir), "prompts: ")


def test_a_lost_identity_is_told(copy):
    (copy / "run" / identity.FILE).unlink()
    refused(lambda: loop.run(config(copy, iterations=2), str(copy / "run")), "found none")


def test_where_a_source_grades_the_threshold_is_part_of_what_a_run_reads():
    by_threshold = {
        source: {
            repr(identity.judging(tiny.config(**{"data.source": source, "reward.threshold": t})))
            for t in (0.5, 0.9)
        }
        for source in ("generated", "reasoning_gym")
    }
    assert {source: len(found) for source, found in by_threshold.items()} == {
        "generated": 1,
        "reasoning_gym": 2,
    }
