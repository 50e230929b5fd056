"""Whole runs of each method: a bandit is learned, a stopped run ends as if it never was."""

import json

import numpy as np
import pytest

from hir_jax.methods import table
from hir_jax.report.samples import read_samples
from hir_jax.run import loop
from tests import tiny
from tests.run import loop_test
from tests.run.loop_test import lines

pytestmark = pytest.mark.usefixtures("cache")

WITH_RATIOS = ("grpo", "ppo", "nft", "topr")
# Of those a run is stopped, too: with a state, values and log-probabilities; with groups.
RESUMED = ("ppo", "nft")
METHODS = [name for name in table.METHODS if name != "raft"]  # which is farl


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Forty questions of one word: what is asked is no matter."""
    file = tmp_path_factory.mktemp("bandit") / "questions.jsonl"
    lines = [json.dumps({"question": f"w{i}", "answer": "True"}) for i in range(40)]
    file.write_text("\n".join(lines))
    return str(file)


def pulls(output, example):
    """Two arms of many pay."""
    return output.split()[:1] in ([], ["True"])


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def config(method, questions):
    return tiny.config(
        **{
            "algorithm": method,
            "verifier": "tests.methods.runs_test:pulls",
            "data.source": "jsonl",
            "data.path": questions,
            "data.max_train": 16,
            "iterations": 5,
            "evaluate.every": 5,
            "sample.samples": 8,
            "sample.top_k": None,
            "sample.max_new_tokens": 2,
            "sample.rows": 32,
            "sample.kl_to_start": method in ("hir", "ppo"),
            "sample.opposite": method == "hir",
            "ppo.kl_coefficient": 0.01,
            "ppo.kl_target": 1.0,
            "train.batch_size": 32,
            "train.epochs": 4,
            "replay.keep_iterations": 1,
            "sub_output.mode": "full",
            "train.log_every": 5,
            "loss.entropy_weight": 0.0,
            "loss.smoothing": 0.0,
        }
    )


@pytest.fixture(scope="module")
def straight(config, method, tmp_path_factory):
    """The workdir of a run that was never stopped, and its outcome."""
    workdir = tmp_path_factory.mktemp(method)
    return workdir, loop.run(config, str(workdir))


def test_a_bandit_is_learned(method, straight):
    workdir, _ = straight
    if method == "sft":  # draws nothing: it is to give the answers that it was given
        loss = [line["supervised"] for line in lines(workdir, "train")]
        assert loss[0] > 2 and np.exp(-loss[-1]) >= 0.9
        assert not (workdir / "samples").exists()
        return
    drawn = [line["correct"] for line in lines(workdir, "sample")]
    assert drawn[0] < 0.6 and drawn[-1] >= 0.9


@pytest.mark.parametrize("method", RESUMED, indirect=True)
def test_a_run_stopped_in_training_ends_as_if_it_never_was(config, method, straight, tmp_path):
    workdir, _ = straight
    steps = lines(workdir, "train")[-1]["step"]
    loop_test.stopped_run(config, tmp_path, loop.Job, "_step", steps // 2 + 1)
    loop.run(config, str(tmp_path))
    assert loop_test.records(tmp_path) == loop_test.records(workdir)
    (arrays, progress), (straight_arrays, straight_progress) = (
        loop_test.newest(config, run) for run in (tmp_path, workdir)
    )
    assert arrays == straight_arrays
    assert progress | {"saves": 0} == straight_progress | {"saves": 0}


@pytest.mark.parametrize("method", WITH_RATIOS, indirect=True)
def test_ratios_begin_at_one(method, straight):
    first = {line["iteration"]: line for line in reversed(lines(straight[0], "train"))}
    assert 1 in first  # nft has nothing to learn once all is right
    for line in first.values():
        assert line["ratio_off"] < 1e-4 and line["ratio"] == pytest.approx(1, abs=1e-4)
        assert line["clip_share"] == 0 if "clip_share" in line else method == "topr"


def test_what_is_logged(config, method, straight):
    train = lines(straight[0], "train")[-1]
    assert {"loss", "grad_norm", "entropy"} <= train.keys()
    sample = lines(straight[0], "sample")
    if method == "sft":
        assert not sample
        return
    wanted = {"reward", "reward_std", "all_right", "all_wrong", "pass@8", "tokens_mean"}
    assert wanted <= sample[-1].keys()
    if config.sample.kl_to_start:
        distances = [line["kl_to_start"] for line in sample]
        assert abs(distances[0]) < 1e-5 and distances[-1] > 0.1
    if config.sample.opposite:
        told = [line["told_apart"] for line in sample]
        assert told[0] < 0.7 and told[-1] > 0.9
    drawn = read_samples(straight[0] / "samples" / "iter_0001.jsonl")
    advantages = {(line["text"], line["correct"]): line.get("advantage") for line in drawn}
    with_advantages = any(known is not None for known in advantages.values())
    assert with_advantages == (method not in ("hir", "farl", "topr", "nft"))
    if method == "reinforce":  # r - mean
        mean = np.mean([line["reward"] for line in drawn])
        assert all(a == pytest.approx(right - mean) for (_, right), a in advantages.items())
    if method == "ppo":
        assert {"explained_variance", "kl_coefficient", "kl"} <= sample[-1].keys()
        assert len({line["kl_coefficient"] for line in sample}) > 1  # it adapts
