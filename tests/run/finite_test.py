"""Runs that leave the finite numbers: they stop, say where, and save nothing of it."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hir_jax.errors import UserError
from hir_jax.run import checkpoint, finite, loop, models, trainers, workdirs
from tests import tiny

pytestmark = pytest.mark.usefixtures("cache")

MANY_STEPS = {"train.epochs": 6, "iterations": 1, "train.log_every": 50}


# The metrics of steps ---------------------------------------------------------------------------


class Stop(Exception):
    pass


class Log:
    """What `StepMetrics` writes, and with what it stops."""

    def __init__(self, every):
        self.lines = []
        self.steps = finite.StepMetrics(every, lambda *line: self.lines.append(line), self.stop)

    def stop(self, fault):
        raise Stop(fault)

    def add(self, step, loss=1.0, grad_norm=2.0):
        self.steps.add(step, {"loss": jnp.array(loss), "grad_norm": jnp.array(grad_norm)})


GOOD = {"w": jnp.ones(3), "count": jnp.int32(4)}


def test_a_logged_step_is_read_once_the_next_is_begun():
    log = Log(every=2)
    for step in (1, 2):
        log.add(step, loss=step)
        assert log.lines == []
    log.add(3)
    assert log.lines == [(2, {"loss": 2.0, "grad_norm": 2.0})]
    log.add(4, loss=4.0)
    log.steps.settle(GOOD)
    assert [step for step, _ in log.lines] == [2, 4]
    log.steps.settle(GOOD)
    assert len(log.lines) == 2


def stopped(log, *calls):
    with pytest.raises(Stop) as e:
        for call in calls:
            call()
    return e.value.args[0]


@pytest.mark.parametrize(
    "values, what",
    [
        ({"loss": math.nan}, "a loss nan"),
        ({"loss": -math.inf, "grad_norm": math.nan}, "a loss -inf"),
        ({"grad_norm": math.inf}, "a gradient of norm inf"),
    ],
)
def test_a_step_between_two_logged_ones_is_looked_at_as_well(values, what):
    log = Log(every=10)
    log.add(10, loss=0.5)
    log.add(11)
    log.add(12, **values)
    log.add(13, loss=math.nan)
    assert stopped(log, lambda: log.steps.settle(GOOD)) == (12, what)
    assert log.lines == [(10, {"loss": 0.5, "grad_norm": 2.0})]


def test_a_logged_step_that_is_not_finite_is_logged_too():
    log = Log(every=1)
    log.add(1, loss=math.nan)
    assert stopped(log, lambda: log.add(2)) == (1, "a loss nan")
    assert [step for step, _ in log.lines] == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_state_is_looked_through_before_it_is_saved(value):
    log = Log(every=10)
    log.add(7)
    bad = GOOD | {"w": jnp.array([1.0, value, 1.0])}
    fault = stopped(log, lambda: log.steps.settle(bad))
    assert fault == (7, "parameters or moments that are not")


# Whole runs -------------------------------------------------------------------------------------


def run(workdir, **changes):
    return loop.run(tiny.config(**changes), str(workdir))


def newest(workdir, **changes):
    """The newest checkpoint's state and progress."""
    config = tiny.config(**changes)
    model = models.load_model(config)
    wanted = trainers.make_training(config, model).abstract_state()
    folder = workdirs.checkpoint_folder(str(workdir))
    _, state, progress = checkpoint.Checkpoints(folder).restore_latest(wanted)
    return jax.device_get(state), progress


def batch_file(workdir):
    text = (workdir / "nonfinite_batch.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_rate_too_large_stops_the_run(tmp_path):
    changes = MANY_STEPS | {"train.learning_rate": 1e30}
    with pytest.raises(UserError) as e:
        run(tmp_path, **changes)
    message = str(e.value)
    assert "step 2, in iteration 1, gave a " in message
    assert "config.train.learning_rate" in message and "nonfinite_batch.jsonl" in message
    rows = batch_file(tmp_path)
    assert 0 < len(rows) <= 8
    for row in rows:
        asked = "correct answer" if row["correct"] else "wrong answer"
        assert row["source"].startswith(asked) and "target" in row
        assert len(row["source_tokens"]) > 3 and row["target_tokens"]
    state, progress = newest(tmp_path, **changes)
    assert (progress["steps"], progress["sampled"]) == (0, True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert not (tmp_path / "eval.json").exists()
    # It goes on from there, to the same end.
    with pytest.raises(UserError, match="step 2, in iteration 1, gave a "):
        run(tmp_path, **changes)
    assert batch_file(tmp_path) == rows


def spoil(monkeypatch, step, change):
    """Changes what a training step gives, once."""
    original = loop.Job._step
    batches = []

    def spoiled(job, batch):
        values = original(job, batch)
        if job.progress.steps == step and not batches:
            batches.append(batch)
            values = change(job, values)
        return values

    monkeypatch.setattr(loop.Job, "_step", spoiled)
    return batches


def metric(name, value):
    return lambda job, values: values | {name: jnp.float32(value)}


def weight(job, values):
    shared = job.state.params["shared"].at[0, 0].set(jnp.inf)
    job.state = job.state.replace(params=job.state.params | {"shared": shared})
    return values


PASSING = MANY_STEPS | {"checkpoint.every_steps": 4}


@pytest.fixture(scope="module")
def straight(cache, tmp_path_factory):
    """The workdir of a run without a fault."""
    workdir = tmp_path_factory.mktemp("straight")
    run(workdir, **PASSING)
    return workdir


@pytest.mark.parametrize(
    "change, what",
    [
        (metric("loss", math.nan), "gave a loss nan"),
        (metric("grad_norm", math.inf), "gave a gradient of norm inf"),
        (weight, "gave parameters or moments that are not"),
    ],
    ids=["loss", "gradient", "weight"],
)
def test_a_passing_fault_is_not_saved_and_a_resumed_run_ends_as_if_it_had_not_been(
    tmp_path, monkeypatch, straight, change, what
):
    with monkeypatch.context() as patch:
        batches = spoil(patch, 8, change)  # a checkpoint is due just after it
        with pytest.raises(UserError, match=f"step 8, in iteration 1, {what}"):
            run(tmp_path, **PASSING)
    rows = batch_file(tmp_path)
    targets = [
        tokens[mask].tolist()
        for tokens, mask in zip(batches[0].targets_BxT, batches[0].target_mask_BxT, strict=True)
        if mask.any()
    ]
    assert [row["target_tokens"] for row in rows] == targets
    state, progress = newest(tmp_path, **PASSING)
    assert progress["steps"] == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    run(tmp_path, **PASSING)
    for name in ("metrics.jsonl", "eval.json"):
        assert (tmp_path / name).read_text() == (straight / name).read_text()


def test_a_model_that_is_not_finite_is_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny.folder(), folder)
    (file,) = folder.glob("*.safetensors")
    arrays = load_file(file)
    name = next(name for name in arrays if name.endswith("shared.weight"))
    arrays[name][3, 3] = np.inf
    save_file(arrays, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"finite weights, found NaN or infinity in {folder}"):
        run(tmp_path / "run", **{"model.path": str(folder)})
