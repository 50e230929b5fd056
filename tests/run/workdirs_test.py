import json
import os

import pytest

from hir_jax.data import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.relabel import Instructions
from hir_jax.hindsight.sample import Sample
from hir_jax.run.workdirs import claim, record, write_json, write_samples, write_text
from tests import tiny


@pytest.fixture
def config():
    return tiny.get_config()


def begin_run(workdir, config):
    claim(str(workdir), config)
    (workdir / "checkpoints" / "1").mkdir(parents=True)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_claim_makes_the_folder_and_writes_the_config(tmp_path, config):
    claim(str(tmp_path / "runs" / "a"), config)
    (file,) = (tmp_path / "runs" / "a").iterdir()
    assert file.name == "config.json"
    assert json.loads(file.read_text()) == json.loads(config.to_json())


def test_a_run_is_resumed_with_its_own_config(tmp_path, config):
    begin_run(tmp_path, config)
    claim(str(tmp_path), config)


def test_fields_that_change_nothing_computed_so_far_are_free(tmp_path, config):
    begin_run(tmp_path, config)
    config.iterations = 7
    config.mesh.fsdp = 2
    config.checkpoint.keep = 9
    config.checkpoint.every_steps = 9
    config.evaluate.split = "dev"
    config.data.tfds_dir = "elsewhere"
    config.model.path = "moved"
    config.data.path = "moved.jsonl"
    config.train.log_every = 9
    claim(str(tmp_path), config)
    assert json.loads((tmp_path / "config.json").read_text())["iterations"] == 2  # until all fits
    record(str(tmp_path), config)
    assert json.loads((tmp_path / "config.json").read_text())["iterations"] == 7


def test_fields_that_change_the_rounding_are_free_and_told(tmp_path, config, caplog):
    begin_run(tmp_path, config)
    config.sample.rows = 16
    config.train.remat = True
    claim(str(tmp_path), config)
    (told,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert told == (
        "from here on sums are rounded otherwise: sample.rows: 8 in the workdir, 16 now; "
        "train.remat: False in the workdir, True now"
    )


def test_another_machine_than_the_checkpoint_is_of_is_told(tmp_path, config, caplog):
    begin_run(tmp_path, config)
    saved = {"mesh": "cpu, data=8", "processes": 1}
    claim(str(tmp_path), config, saved, saved)
    claim(str(tmp_path), config, saved, None)  # of a checkpoint that does not say
    assert not caplog.records
    config.mesh.data, config.train.remat = 4, True
    claim(str(tmp_path), config, saved | {"mesh": "cpu, data=4"}, saved)
    (told,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert told == (
        "from here on sums are rounded otherwise: machine.mesh: 'cpu, data=8' in the workdir, "
        "'cpu, data=4' now; train.remat: False in the workdir, True now"
    )


def test_all_differing_fields_are_listed_and_nothing_is_changed(tmp_path, config):
    begin_run(tmp_path, config)
    before = contents(tmp_path)
    config.seed = 3
    config.data.task = "word_sorting"
    config.evaluate.every = 2
    config.iterations = 7
    with pytest.raises(UserError) as e:
        claim(str(tmp_path), config)
    message = str(e.value)
    assert "seed: 4 in the workdir, 3 now" in message
    assert "data.task: 'boolean_expressions' in the workdir, 'word_sorting' now" in message
    assert "evaluate.every: 1 in the workdir, 2 now" in message
    assert "iterations" not in message
    assert contents(tmp_path) == before


def test_fields_of_another_version_are_listed(tmp_path, config):
    begin_run(tmp_path, config)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"gone": 1, "loss": {}}))
    with pytest.raises(UserError) as e:
        claim(str(tmp_path), config)
    assert "gone: 1 in the workdir, 'absent' now" in str(e.value)
    assert "loss.smoothing: 'absent' in the workdir, 0.2 now" in str(e.value)


def test_a_run_that_failed_before_its_first_checkpoint_is_begun_anew(tmp_path, config):
    claim(str(tmp_path), config)
    config.model.path = "the right path this time"
    claim(str(tmp_path), config)
    assert "the right path" in (tmp_path / "config.json").read_text()


def test_a_model_folder_is_no_workdir(tmp_path, config):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(tiny.raw_config()))
    before = contents(tmp_path)
    with pytest.raises(UserError, match="expected the config of a run"):
        claim(str(tmp_path), config)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_config_is_named(tmp_path, config, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: expected a JSON object .* Put the"):
        claim(str(tmp_path), config)


def test_a_run_whose_checkpoints_are_not_mounted_is_not_begun_anew(tmp_path, config):
    claim(str(tmp_path), config)
    (tmp_path / "checkpoints").mkdir()
    claim(str(tmp_path), config)  # it was killed in its first save
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "iter_0001.jsonl").touch()
    with pytest.raises(UserError, match=r"checkpoints: .*, found an empty folder\. Mount"):
        claim(str(tmp_path), config)
    (tmp_path / "checkpoints").rmdir()
    claim(str(tmp_path), config)


def test_checkpoints_without_a_config_are_left_alone(tmp_path, config):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"checkpoints but no config\.json"):
        claim(str(tmp_path), config)


def test_a_workdir_that_cannot_be_written(tmp_path, config):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--workdir: cannot write to"):
        claim(str(tmp_path / "file" / "run"), config)


def test_a_file_keeps_its_content_if_writing_fails(tmp_path, monkeypatch):
    file = tmp_path / "eval.json"
    write_json(file, {"a": 1})

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 1}


def test_samples_are_written_with_question_and_relabeled_instruction(tmp_path):
    example = Example("t/1", "Is “it”?", ("yes", "no"), ("no",), "t", "p")
    samples = [
        Sample("t/1", 0, (5, 1), "(B)", True, True, -0.5, 3, "(B) no"),
        Sample("t/1", 1, (6, 1), "café", False, False, -1.5, 3),
    ]
    advantages = {("t/1", (6, 1)): -0.5}
    write_samples(
        tmp_path, 3, samples, {"t/1": example}, Instructions("right", "wrong"), advantages
    )
    text = (tmp_path / "samples" / "iter_0003.jsonl").read_text(encoding="utf-8")
    assert "café" in text  # not escaped: people read it
    records = [json.loads(line) for line in text.splitlines()]
    assert [r["relabeled_instruction"] for r in records] == ["right", "wrong"]
    assert records[0] | {"relabeled_instruction": ""} == {
        **samples[0].to_json(),
        "question": "Is “it”?",
        "options": ["yes", "no"],
        "targets": ["(B)"],
        "relabeled_instruction": "",
    }
    assert records[1]["advantage"] == -0.5


def test_a_shared_file_is_whole_where_two_write_it_at_the_same_moment(tmp_path, monkeypatch):
    file = tmp_path / "file"

    def fsync(_):
        monkeypatch.undo()
        write_text(file, "theirs", shared=True)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(file, "ours", shared=True)
    assert contents(tmp_path) == {file: b"ours"}


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UserError, match=r"a\.json: expected finite numbers to write"):
        write_json(tmp_path / "a.json", {"a": [float("nan")]})
    assert (tmp_path / "a.json").read_text() == "{}"
    sample = Sample("q", 0, (5, 1), "w2", False, True, float("-inf"), 3)
    examples = {"q": Example("q", "w", (), ("w1",), "t", "w")}
    with pytest.raises(UserError, match="a sample of iteration 3: expected finite"):
        write_samples(tmp_path, 3, [sample], examples, Instructions("c", "w"), {})
