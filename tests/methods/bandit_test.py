"""Whole runs of each method: a bandit is learned, a stopped run ends as if it never was."""

import json

import pytest

from hir_jax.methods import table
from hir_jax.run import loop
from tests import tiny

METHODS = [name for name in table.METHODS if name != "raft"]  # which is farl


@pytest.fixture(scope="module", autouse=True)
def cache():
    with tiny.compiled_once() as folder:
        yield folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Forty questions of one word: what is asked is no matter."""
    file = tmp_path_factory.mktemp("bandit") / "questions.jsonl"
    lines = [json.dumps({"question": f"w{i}", "answer": "True"}) for i in range(40)]
    file.write_text("\n".join(lines))
    return str(file)


def pulls(output, example):
    """One arm of many pays."""
    return output.split()[:1] == ["True"]


def bandit(questions, name, **changes):
    settings = {
        "algorithm": name,
        "verifier": "tests.methods.bandit_test:pulls",
        "data.source": "jsonl",
        "data.path": questions,
        "data.max_train": 16,
        "iterations": 6,
        "evaluate.every": 6,
        "sample.samples": 1 if name == "sft" else 8,
        "sample.top_k": None,
        "sample.max_new_tokens": 2,
        "sample.rows": 32,
        "sample.kl_to_start": name != "sft",
        "train.batch_size": 32,
        "train.epochs": 3,
        "loss.entropy_weight": 0.0,
        "loss.smoothing": 0.0,
        # Where one of ten is right, a small weight has it learn what not to do, and nothing else.
        "w_reinforce.right_weight": 1.0,
        **changes,
    }
    return tiny.config(**settings)


def lines(workdir, phase):
    every = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in every if line["phase"] == phase]


@pytest.mark.parametrize("name", METHODS)
def test_a_bandit_is_learned(name, questions, tmp_path):
    config = bandit(questions, name)
    outcome = loop.run(config, str(tmp_path))
    drawn = [line["correct"] for line in lines(tmp_path, "sample")]
    print(name, drawn, outcome.after.asked_correct.accuracy)
    if name == "sft":
        assert outcome.after.asked_correct.accuracy >= 0.9
        return
    assert drawn[0] < 0.6 and drawn[-1] >= 0.9
