"""Whole runs of the tiny model; above all, that a run stopped anywhere ends as if it never was."""

import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from hir_jax.decoding import sampler
from hir_jax.devices.interrupts import Interrupted
from hir_jax.errors import UserError
from hir_jax.hindsight import replay
from hir_jax.model import hf
from hir_jax.run import arrays, checkpoint, evaluate, loop, models, trainers, workdirs
from hir_jax.run.outcome import NOTHING, Outcome
from tests import tiny
from tests.run.evaluate_test import evaluation

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = [
    pytest.mark.usefixtures("cache"),
    # Orbax abandons the other reads of a damaged checkpoint, and they complain of it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The workdir of a run that was never stopped."""
    workdir = tmp_path_factory.mktemp("straight")
    ended = []
    loop.run(tiny.config(), str(workdir), ended.append)
    assert ended == [1, 2]
    return workdir


def run(config, workdir):
    return loop.run(config, str(workdir))


def final_state(config, workdir):
    """Every array of the newest checkpoint, as bytes."""
    return newest(config, workdir)[0]


def newest(config, workdir):
    """Every array of the newest checkpoint, as bytes, and the progress that stands beside them."""
    model = models.load_model(config)
    wanted = trainers.make_training(config, model).abstract_state()
    folder = workdirs.checkpoint_folder(str(workdir))
    _, state, progress = checkpoint.Checkpoints(folder).restore_latest(wanted)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)], progress


def newest_steps(workdir):
    """The numbers of the checkpoints that are there."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def records(workdir):
    files = [workdir / "metrics.jsonl", workdir / "eval.json", *workdir.glob("samples/*")]
    return {file.relative_to(workdir): file.read_text() for file in files}


def assert_same(workdir, other):
    assert records(workdir) == records(other)
    assert final_state(tiny.config(), workdir) == final_state(tiny.config(), other)


def lines(workdir, phase):
    every = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in every if line["phase"] == phase]


def samples(workdir, iteration):
    file = workdir / "samples" / f"iter_{iteration:04}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def stopped_run(config, workdir, owner, name, call):
    """Runs until SIGTERM comes, just before the given call of a method."""
    original, calls = getattr(owner, name), itertools.count(1)

    def signalled(*args, **kwargs):
        if next(calls) == call:
            signal.raise_signal(signal.SIGTERM)
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Interrupted) as e:
        monkeypatch.setattr(owner, name, signalled)
        run(config, workdir)
    assert e.value.exit_code == 143


# Promise 1: a run that is stopped and resumed ends bit-identical to one that was not --------------


def test_a_run_is_repeated_bit_for_bit(straight, tmp_path):
    run(tiny.config(), tmp_path)
    assert_same(tmp_path, straight)


def test_a_run_stopped_at_every_kind_of_point(straight, tmp_path):
    steps = len(lines(straight, "train"))
    assert steps >= 8
    points = [
        (loop.Job, "begin", 1),  # in the evaluation of the starting model
        (loop.Job, "_measure", 1),  # the same, on other questions
        (loop.Job, "_draw_samples", 1),  # in sampling, after its first batch
        (replay, "add", 1),  # after it: acts at the first batch of training
        (loop.Job, "_step", 1),  # in training: at the second batch,
        (loop.Job, "_step", 2),  # at the fourth,
        (loop.Job, "close_iteration", 1),  # between training and evaluation: acts in the latter
        (loop.Job, "_measure", 1),
        (evaluate, "best_constant", 1),  # after evaluation: acts in the next sampling
        (loop.Job, "_step", 3),  # and in the second iteration
        (loop.Job, "finish", 1),  # in the closing evaluation
        (Outcome, "from_json", 1),  # and when all is done
    ]
    for point in points:
        stopped_run(tiny.config(), tmp_path, *point)
    run(tiny.config(), tmp_path)
    assert_same(tmp_path, straight)


def test_a_damaged_newest_checkpoint_is_passed_over(straight, tmp_path, caplog):
    stopped_run(tiny.config(), tmp_path, loop.Job, "_step", 6)
    newest = max((tmp_path / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    # All of them: which file holds what, and whether it is still referred to, varies by timing.
    for file in newest.glob("state/**/d/*"):
        os.truncate(file, file.stat().st_size // 2)
    run(tiny.config(), tmp_path)
    assert f"Damaged checkpoint passed over: {newest}" in caplog.text
    assert_same(tmp_path, straight)


KILLED = """
import os, signal, sys
from absl import app
from hir_jax.run import loop, workdirs
from hir_jax import cli

def step(job, batch, original=loop.Job._step):
    if job.progress.iteration == 2 and job.progress.batches == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(job, batch)

def write(file, text, *how, original=workdirs.write_text):
    if POINT == "progress" and file.name == "progress.json":  # written, but not renamed
        file.with_name(file.name + ".part").write_text(text)
        os.kill(os.getpid(), signal.SIGKILL)
    original(file, text, *how)

workdirs.write_text = write
loop.Job._step = step
app.run(cli.main, flags_parser=cli.parse_flags)
"""


def test_a_killed_process_is_resumed_by_another(straight, tmp_path, cache):
    environment = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    for point in ("progress", "step"):
        program = KILLED.replace("POINT", repr(point))
        command = [sys.executable, "-c", program, "--config=tests/tiny.py"]
        command += [f"--config.model.path={tiny.folder()}", "--config.checkpoint.every_steps=2"]
        command += [f"--compilation_cache={cache}", f"--workdir={tmp_path}"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert (tmp_path / "samples" / "iter_0001.jsonl").exists()
        assert json.loads((tmp_path / "attempts.json").read_text())["failed"] == 1
    assert not (tmp_path / "eval.json").exists()
    run(tiny.config(), tmp_path)
    assert not (tmp_path / "attempts.json").exists()
    assert_same(tmp_path, straight)


def test_a_finished_run_is_not_computed_again(straight, tmp_path, monkeypatch, caplog):
    workdir = shutil.copytree(straight, tmp_path / "copy")
    monkeypatch.setattr(sampler.Sampler, "__call__", None)
    monkeypatch.setattr(loop.Job, "_step", None)
    # Checkpoints restore onto any mesh.
    again = run(tiny.config(**{"mesh.data": 2, "mesh.fsdp": 4}), workdir)
    assert again == Outcome.from_json(json.loads(records(straight)[EVAL]))
    assert records(workdir) == records(straight)
    assert (
        "from here on sums are rounded otherwise: machine.mesh: 'cpu, data=8 x fsdp=1 x tensor=1' "
        "in the workdir, 'cpu, data=2 x fsdp=4 x tensor=1' now"
    ) in caplog.messages


def test_a_run_without_its_best_parameters_goes_no_further(straight, tmp_path):
    workdir = shutil.copytree(straight, tmp_path / "copy")
    best, *_, last = newest_steps(workdir)
    assert best < last
    shutil.rmtree(workdir / "checkpoints" / str(best))
    run(tiny.config(), workdir)  # its table is still there
    with pytest.raises(UserError, match=rf"Expected the run's best .*/{best}, found none"):
        run(tiny.config(iterations=3), workdir)
    (workdir / "eval.json").unlink()
    with pytest.raises(UserError, match=rf"Expected the run's best .*/{best}, found none"):
        run(tiny.config(), workdir)


def test_a_run_that_has_no_room_for_its_checkpoints_is_not_begun(tmp_path, monkeypatch):
    full = lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", full)
    monkeypatch.setattr(loop.Job, "begin", None)
    with pytest.raises(UserError) as e:
        run(tiny.config(**{"checkpoint.keep": 3}), tmp_path)
    needed = re.search(r"checkpoints: expected ([\d,]+) bytes free for 5 chec", str(e.value))[1]
    weights = sum(leaf.size for leaf in jax.tree.leaves(tiny.params())) * 4
    # Weights and the two moments of AdamW: of those kept, the next, and that of the best weights.
    assert int(needed.replace(",", "")) == pytest.approx(15 * weights, rel=0.01)


def test_each_state_is_written_once(tmp_path, monkeypatch):
    written, write = [], arrays.write

    def watched(manager, step, *rest):
        written.append(step)
        write(manager, step, *rest)

    monkeypatch.setattr(arrays, "write", watched)
    run(tiny.config(), tmp_path)
    assert written == [line["step"] for line in lines(tmp_path, "evaluate")]
    assert len(written) == 3  # the start, and each iteration


def test_where_a_checkpoint_has_them_the_weights_are_not_read(straight, tmp_path, monkeypatch):
    workdir = shutil.copytree(straight, tmp_path / "copy")
    (workdir / "eval.json").unlink()
    monkeypatch.setattr(hf, "load_params", None)
    run(tiny.config(), workdir)
    assert records(workdir) == records(straight)


def test_the_closing_evaluation_has_the_memory_of_the_state(tmp_path, monkeypatch):
    held, evaluated = [], loop.Job._evaluate

    def watched(job, split, params):
        held.append(job.state is not None)
        return evaluated(job, split, params)

    monkeypatch.setattr(loop.Job, "_evaluate", watched)
    short_run(tmp_path)
    assert held == [True, True, True, False]


EVAL = pathlib.Path("eval.json")


def test_more_iterations_go_on_where_fewer_ended(straight, tmp_path):
    shorter = run(tiny.config(iterations=0), tmp_path)
    assert shorter.after == shorter.before
    assert shorter.best_iteration == 0
    assert not (tmp_path / "samples").exists()
    run(tiny.config(iterations=1), tmp_path)
    run(tiny.config(iterations=2), tmp_path)
    assert_same(tmp_path, straight)


def test_fewer_iterations_than_were_begun_are_refused(straight, tmp_path):
    workdir = shutil.copytree(straight, tmp_path / "copy")
    with pytest.raises(UserError, match=r"config\.iterations: expected at least 2, .* found 1"):
        run(tiny.config(iterations=1), workdir)
    assert records(workdir) == records(straight)


# What a run records -------------------------------------------------------------------------------


def test_each_sample_is_relabeled_by_what_it_achieved(straight):
    instruction = tiny.config().instruction
    verdicts = []
    for record in [*samples(straight, 1), *samples(straight, 2)]:
        # Python reads the questions as they are.
        truth = str(eval(record["question"].removesuffix(" is")))
        is_right = record["text"].strip(" .()").lower() == truth.lower()
        assert record["correct"] == is_right
        expected = instruction.correct if is_right else instruction.wrong
        assert record["relabeled_instruction"] == expected
        verdicts.append(is_right)
    assert len(set(verdicts)) == 2


def test_samples_come_in_full_and_in_order(straight):
    config = tiny.config()
    for iteration in (1, 2):
        found = samples(straight, iteration)
        assert len(found) == config.data.max_train * config.sample.samples
        assert [r["index"] for r in found] == [0, 1] * config.data.max_train
        assert {r["iteration"] for r in found} == {iteration}
        (line,) = (r for r in lines(straight, "sample") if r["iteration"] == iteration)
        assert line["correct"] == sum(r["correct"] for r in found) / len(found)
        assert line["samples_drawn"] == iteration * len(found)


def test_samples_depend_on_no_batch_no_padding_and_no_kind_of_key(straight, tmp_path, monkeypatch):
    changes = {"sample.rows": 16, "buckets.source": 2, "iterations": 1, "train.epochs": 0}
    # No other shapes to compile.
    monkeypatch.setattr(loop.Job, "_evaluate", lambda *_: evaluation("0", "0"))
    with jax.default_prng_impl("rbg"):  # as on many TPUs
        run(tiny.config(**changes), tmp_path)
    for record, other in zip(samples(straight, 1), samples(tmp_path, 1), strict=True):
        assert record.pop("logprob") == pytest.approx(other.pop("logprob"), abs=1e-5)
        assert record == other


def test_every_step_has_its_metrics(straight):
    trained = lines(straight, "train")
    assert [line["step"] for line in trained] == list(range(1, len(trained) + 1))
    for line in trained:
        assert np.isfinite(line["loss"])
        terms = line["supervised"] + line["contrastive"] + 0.001 * line["negative_entropy"]
        assert line["loss"] == pytest.approx(terms, rel=1e-5)


def test_training_raises_the_probability_of_what_it_trains_on(straight):
    first, *_, last = lines(straight, "train")
    assert last["supervised"] < first["supervised"]


def test_what_is_trained_on_is_recorded_beside_what_was_drawn(straight):
    keep, seen = tiny.config().replay.keep_iterations, {}
    assert keep > 2
    for iteration in (1, 2):
        seen |= {(r["example_id"], r["text"]): r["correct"] for r in samples(straight, iteration)}
        (line,) = (r for r in lines(straight, "pairs") if r["iteration"] == iteration)
        assert line["pairs"] == len(seen)
        assert line["correct"] == pytest.approx(sum(seen.values()) / len(seen))
    (drawn,) = (r for r in lines(straight, "sample") if r["iteration"] == 2)
    assert drawn["correct"] != line["correct"]


def test_counted_repeats_are_trained_on_once_and_weigh_as_often_as_drawn(tmp_path):
    changes = {"replay.dedup": "count", "iterations": 2, "train.epochs": 1}
    stopped_run(tiny.config(**changes), tmp_path, loop.Job, "_step", 2)
    short_run(tmp_path, **changes)
    every = [*samples(tmp_path, 1), *samples(tmp_path, 2)]
    _, line = lines(tmp_path, "pairs")
    distinct = {(r["example_id"], r["text"]) for r in every}
    assert line["pairs"] == len(distinct) < len(every)
    assert line["correct"] == pytest.approx(sum(r["correct"] for r in every) / len(every))


@pytest.mark.parametrize("mode", ["full", "window"])
def test_a_set_share_of_right_pairs(tmp_path, mode):
    assert short_run(tmp_path, **{"hir.share_right": 0.7, "sub_output.mode": mode})
    (line,) = lines(tmp_path, "pairs")
    assert line["correct"] == pytest.approx(0.7)


# Settings -----------------------------------------------------------------------------------------


def short_run(workdir, **changes):
    """One iteration of one epoch; its lines of training metrics."""
    changes = {"iterations": 1, "train.epochs": 1, **changes}
    run(tiny.config(**changes), workdir)
    found = lines(workdir, "train")
    assert all(np.isfinite(line["loss"]) for line in found)
    return found


def test_hir_with_the_in_batch_loss_adafactor_and_bfloat16(tmp_path):
    changes = {"train.optimizer": "adafactor", "model.dtype": "bfloat16", "train.epochs": 4}
    changes |= {"loss.contrastive": "in_batch"}
    first, *_, last = short_run(tmp_path, **changes)
    assert first["contrastive"] > 0.1
    assert last["supervised"] < first["supervised"]


def test_farl_imitates_right_outputs_alone(tmp_path):
    found = short_run(tmp_path, algorithm="farl")
    right = {(r["example_id"], r["text"]) for r in samples(tmp_path, 1) if r["correct"]}
    assert len(found) == -(-len(right) // 8)
    assert "contrastive" not in found[0]


def test_farl_without_a_right_sample_trains_on_nothing(tmp_path, caplog):
    changes = {"algorithm": "farl", "verifier": "tests.run.loop_test:never_right"}
    assert short_run(tmp_path, **changes) == []
    assert "ALARM: an iteration had nothing to train on" in caplog.text


def never_right(output, example):
    return False


def test_accumulation_with_a_kl_term(tmp_path):
    changes = {"train.accumulation": 2, "train.batch_size": 16, "loss.kl_weight": 0.1}
    first, *_, last = short_run(tmp_path, **changes)
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)  # the policy begins as the reference
    assert last["kl"] > 1e-4


def test_the_last_iteration_is_always_evaluated(tmp_path):
    short_run(tmp_path, **{"evaluate.every": 9, "train.epochs": 0})
    assert [line["iteration"] for line in lines(tmp_path, "evaluate")] == [0, 1]


def write_questions(file, count):
    tail = " or False" * 3  # as long as the generated ones, so that no other shape is compiled
    questions = [{"question": f"True or w{i}{tail} is", "answer": "True"} for i in range(count)]
    file.write_text("".join(json.dumps(question) + "\n" for question in questions))


def test_without_development_questions_the_newest_parameters_are_the_best(tmp_path):
    write_questions(tmp_path / "questions.jsonl", 10)
    changes = {"data.source": "jsonl", "data.path": str(tmp_path / "questions.jsonl")}
    changes |= {"data.dev_fraction": 0.0, "data.test_fraction": 0.4, "data.task": ""}
    found = short_run(tmp_path / "run", **changes)
    evaluated = lines(tmp_path / "run", "evaluate")
    assert [(line["iteration"], line["split"]) for line in evaluated] == [(0, "test"), (1, "test")]
    best = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert (best["best_step"], best["best_iteration"]) == (len(found), 1)
    assert best["chosen_on"] == "test"
    assert best["after"]["asked_correct"]["accuracy"] == evaluated[-1]["accuracy"]


def test_without_test_questions_a_run_is_refused(tmp_path):
    write_questions(tmp_path / "questions.jsonl", 10)
    changes = {"data.source": "jsonl", "data.path": str(tmp_path / "questions.jsonl")}
    changes |= {"data.test_fraction": 0.0, "data.dev_fraction": 0.2, "data.task": ""}
    with pytest.raises(UserError, match="'train': 8, 'dev': 2, 'test': 0"):
        run(tiny.config(**changes), tmp_path / "run")


def scripted_run(workdir, monkeypatch, scripted):
    """A run whose evaluations of (iteration, split) are given; what it came to."""
    monkeypatch.setattr(
        loop.Job,
        "_evaluate",
        lambda job, split, params: evaluation(
            *scripted.get((job.progress.iteration, split), ("0000", "0000"))
        ),
    )
    return run(tiny.config(**{"iterations": 3, "train.epochs": 1}), workdir)


def test_the_best_checkpoint_is_chosen_on_development_questions(tmp_path, monkeypatch):
    # Iteration 2 is as accurate as 1 and has the larger gap; 3 is no better.
    first, second, third = ("1110", "1110"), ("1110", "1100"), ("1011", "1100")
    scripted = {(0, "dev"): ("1100", "1000")}
    scripted |= {(1, "dev"): first, (2, "dev"): second, (3, "dev"): third}
    outcome = scripted_run(tmp_path, monkeypatch, scripted)
    assert (outcome.best_iteration, outcome.beat_the_start) == (2, True)
    steps = [line["step"] for line in lines(tmp_path, "evaluate")]
    assert json.loads((tmp_path / "eval.json").read_text())["best_step"] == steps[2]


def test_a_run_that_nothing_improved_says_so(tmp_path, monkeypatch):
    same, wider = ("1100", "1000"), ("1000", "0000")
    scripted = {(0, "dev"): same, (1, "dev"): same, (2, "dev"): wider, (3, "dev"): wider}
    outcome = scripted_run(tmp_path, monkeypatch, scripted)
    assert (outcome.best_iteration, outcome.best_step) == (0, 0)
    assert NOTHING in outcome.table()
    assert json.loads((tmp_path / "eval.json").read_text())["beat_the_start"] is False


def test_a_verifier_that_does_not_suit_the_questions_says_so_before_any_work(tmp_path):
    with pytest.raises(UserError, match="Verifier 'choice' expects options"):
        run(tiny.config(verifier="choice"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
