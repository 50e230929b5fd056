import pathlib
import shutil
import sys
import threading

import numpy as np
import pytest

import hir_jax
from hir_jax import cli
from tests import tiny
from tests.commands.cli_test import ROOT, reset_flags

pytestmark = pytest.mark.usefixtures("cache")


def refused(function, *args, says):
    with pytest.raises(hir_jax.UserError) as found:
        function(*args)
    for part in [says] if isinstance(says, str) else says:
        assert part in str(found.value)


# Configs and questions ----------------------------------------------------------------------------


def test_a_config_takes_what_flags_take(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = hir_jax.config("configs/tiny.py", {"loss.smoothing": 0, "evaluate.samples": [2, 4]})
    assert (made.loss.smoothing, made.evaluate.samples, made.iterations) == (0.0, (2, 4), 3)
    assert made.is_locked
    assert hir_jax.config("configs/flan_t5.py:small").model.path == "google/flan-t5-small"
    assert (
        repr(hir_jax.config("configs/tiny.py", {"loss.entropy_weight": 1}).loss.entropy_weight)
        == "1.0"
    )
    reset = {"train.learning_rate": None, "sample.top_k": None}
    assert hir_jax.config("configs/tiny.py", reset).train.learning_rate is None
    mine = tmp_path / "mine.py"
    mine.write_text("from configs import tiny\n\ndef get_config():\n    return tiny.get_config()\n")
    assert hir_jax.config(mine).to_dict() == hir_jax.config("configs/tiny.py").to_dict()
    given = {"data.path": mine, "loss.smoothing": np.float32(0.1), "iterations": np.int64(2)}
    made = hir_jax.config("configs/jsonl.py", given)
    assert (made.data.path, made.loss.smoothing, made.iterations) == (str(mine), 0.1, 2)


def test_faulty_configs():
    refused(
        hir_jax.config,
        "configs/tiny.py",
        {"data.siz": 1, "zzz": 1, "data.seed": "x", "seed": None, "data": {}}
        | {"train.learning_rate": "x", "sample.top_k": 1.5},
        says=[
            "data.siz: there is no such field; did you mean 'data.size'?",
            "zzz: there is no such field; configs/common.py lists them all",
            "data.seed: expected int; found 'x'",
            "seed: expected int; found None",
            "train.learning_rate: expected float; found 'x'",
            "sample.top_k: expected int; found 1.5",
            "data: there is no such field",
        ],
    )
    refused(hir_jax.config, "tiny", says=["none at 'tiny'", "configs/tiny.py, "])
    refused(hir_jax.config, "configs/flan_t5.py:huge", says="expected a size of small, ")
    refused(hir_jax.config, "configs/workdir.py:nowhere", says="a run's config in nowhere")
    unread = {"algorithm": "farl", "hir.flip": "all"}
    refused(hir_jax.config, "configs/tiny.py", unread, says="hir.flip: algorithm 'farl' does not")
    refused(hir_jax.config, "configs/tiny.py", {"data.path": "x"}, says="path: it is for source")
    refused(hir_jax.config, "configs/tiny.py", {"seed": -1}, says="seed: expected 0 or more")
    bucket = {"model.path": "gs://models/t5"}
    refused(hir_jax.config, "configs/tiny.py", bucket, says="model.path: expected a path of a file")


def test_questions_of_ones_own():
    plain, chosen, own, again = hir_jax.examples(
        [
            {"question": "What is 1 + 2?", "answers": [3, "three"]},
            {"question": "Which?", "options": ("tea", "soap"), "answer": "(B)"},
            {"question": "Who?", "answer": "I", "premise": "A Story", "id": "a"},
            {"question": "What is 1 + 2?", "answers": [3, "three"]},
        ]
    )
    assert (plain.answers, plain.premise) == (("3", "three"), "what is 1 + 2")
    assert (chosen.options, chosen.answers) == (("tea", "soap"), ("soap",))
    assert (own.id, own.premise) == ("a", "a story")
    assert again.id == f"{plain.id}-2"


def test_faulty_questions_are_all_told():
    refused(
        hir_jax.examples,
        [
            {"question": "?"},
            {"question": "?", "answer": {1}},
            {"question": "?", "answer": "1", "anwser": "2"},
            {"question": "?", "answer": "1", "id": "a"},
            {"question": "?", "answer": "1", "id": "a"},
        ],
        says=[
            'record 0: missing "answer"',
            "record 1: expected what JSON can hold: found {1} of type set",
            "record 2: unknown field 'anwser'",
            "record 4: the \"id\" 'a' is taken",
        ],
    )


# Runs ---------------------------------------------------------------------------------------------


def test_a_run_is_that_of_the_command(tmp_path, monkeypatch, capsys, cache):
    monkeypatch.chdir(ROOT)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    argv = ["main.py", "--config=tests/tiny.py", f"--config.model.path={tiny.folder()}"]
    argv += ["--config.data.size=50", f"--workdir={theirs}", f"--compilation_cache={cache}"]
    monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for fields
    reset_flags()
    try:
        cli.main(cli.parse_flags(argv))
    finally:
        reset_flags()
    changes = {"model.path": str(tiny.folder()), "data.size": 50}
    config = hir_jax.config("tests/tiny.py", changes)
    outcome = hir_jax.train(config, ours)
    assert f"{outcome.table()}\n" == capsys.readouterr().out
    for name in ("config.json", "identity.json", "metrics.jsonl", "eval.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    samples = pathlib.Path("samples", "iter_0002.jsonl")
    assert (ours / samples).read_bytes() == (theirs / samples).read_bytes()

    policy = hir_jax.load(ours)
    assert f"step {outcome.best_step}" in policy.name
    assert hir_jax.config(f"configs/workdir.py:{ours}").to_dict() == config.to_dict()
    assert len(hir_jax.questions(policy.config).train) == 12

    assert hir_jax.write_report([ours]) == ours / "report.html"
    both = hir_jax.write_report([ours, theirs], tmp_path / "both.html")
    assert both.stat().st_size > 50_000


def test_what_cannot_be_run(tmp_path):
    config = tiny.config()
    refused(hir_jax.train, config, "gs://bucket/run", says="workdir: expected a path of a file")
    refused(hir_jax.train, config, "", says="workdir: expected the folder of a run, found ''")
    refused(hir_jax.train, "configs/tiny.py", "w", says="of `hir_jax.config`, found 'configs/tiny")
    refused(hir_jax.questions, "configs/tiny.py", says="Expected a config, of `hir_jax.config`")
    found = []

    def elsewhere():
        try:
            hir_jax.train(config, tmp_path / "run")
        except hir_jax.UserError as e:
            found.append(str(e))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found[0].startswith("Expected `train` in the main thread")
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_reported(tmp_path):
    refused(hir_jax.write_report, str(tmp_path), says="expected a list, such as [workdir]; found")
    refused(hir_jax.write_report, tmp_path, says="expected a list, such as [workdir]; found")
    refused(hir_jax.write_report, [], says="expected runs, found none")
    refused(hir_jax.write_report, [tmp_path], says="expected a run's folder")
    model = shutil.copytree(tiny.folder(), tmp_path / "model")
    refused(hir_jax.write_report, [model], says="found something else, as in a model's folder")
    assert not (model / "report.html").exists()


def test_a_home_is_meant_by_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(hir_jax.UserError, match=f"cannot write to {tmp_path / 'file'}"):
        (tmp_path / "file").touch()
        hir_jax.train(tiny.config(), "~/file")


def test_a_run_stays_where_it_is_when_a_verifier_goes_to_another_folder(tmp_path, monkeypatch):
    asked = []

    def run(config, workdir, after):
        asked.append(workdir)
        raise KeyboardInterrupt

    monkeypatch.setattr("hir_jax.library.runs.loop.run", run)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        hir_jax.train(tiny.config(), "run")
    assert asked == [str(tmp_path / "run")]
