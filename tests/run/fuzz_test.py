"""Files of a workdir with anything in them: what a run wrote, or a sentence."""

import json
import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from configs import workdir as of_workdir
from hir_jax.run import identity, metrics, outcome, workdirs
from hir_jax.run.constant import Constant
from hir_jax.run.evaluation import Evaluation, Score
from hir_jax.run.outcome import Outcome
from hir_jax.run.progress import Progress
from tests import fuzz, tiny
from tests.hindsight.sample_test import WHOLE as SAMPLE

SCORE = Score((True, False, True), 1)
EVALUATION = Evaluation(SCORE, SCORE, Constant("a", 0.5, 2, 2), (0, 1, 1), "digest")
OUTCOME = Outcome(2, 8, 3, 1, "dev", EVALUATION, EVALUATION, {"kind": 2})
PROGRESS = Progress(1, True, 2, 3, (SAMPLE,), {"beta": 0.1}, 4, EVALUATION.to_json(), [0.5, 0.1])
LINES = [{"phase": "evaluate", "step": i, "iteration": 1, "accuracy": 0.5} for i in range(3)]


def as_json(record):
    return json.loads(json.dumps(record))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "checkpoints").mkdir()
    return folder


@fuzz.cases()
@hypothesis.given(record=fuzz.changed(as_json(PROGRESS.to_json())))
def test_progress(record):
    found = fuzz.outcome(Progress.from_json, record)
    if found is not None:
        assert type(found.iteration) is int and type(found.alarms) is dict
        fuzz.outcome(Evaluation.from_json, found.before)


@fuzz.cases()
@hypothesis.given(record=fuzz.changed(as_json(OUTCOME.to_json())))
def test_outcome(folder, record):
    workdirs_file = folder / "eval.json"
    workdirs_file.write_text(json.dumps(record))
    known = fuzz.outcome(outcome.read, workdirs_file)
    found = known and fuzz.outcome(Outcome.from_json, known)
    if found:
        fuzz.outcome(found.table)
    workdirs_file.unlink()


@fuzz.cases()
@hypothesis.given(content=fuzz.files(json.loads(tiny.get_config().to_json_best_effort())))
def test_config(folder, content):
    claimed(folder, content)


def claimed(folder, content):
    (folder / "config.json").write_bytes(content)
    fuzz.outcome(workdirs.claim, str(folder), tiny.get_config())
    assert (folder / "config.json").read_bytes() == content
    try:
        of_workdir.get_config(str(folder))
    except ValueError as e:  # which the command line makes a sentence of
        assert str(e).startswith("--workdir: expected a run's config in ")


@fuzz.cases()
@hypothesis.given(content=fuzz.line_files(LINES), position=st.integers(0, 300))
def test_metrics(folder, content, position):
    file = folder / "metrics.jsonl"
    file.write_bytes(content)
    fuzz.outcome(workdirs.read_lines, file)

    def resumed():
        writer = metrics.MetricsWriter(folder, position)
        writer.close()
        return True

    if fuzz.outcome(resumed) is None:
        assert file.read_bytes() == content
    else:
        assert file.read_bytes() == content[:position]


@fuzz.cases()
@hypothesis.given(content=fuzz.files(dict.fromkeys(identity.MEANING, "0")))
def test_identity(folder, content):
    (folder / identity.FILE).write_bytes(content)
    fuzz.outcome(identity.check, pathlib.Path(folder), {"weights": "0", "test": "0"}, "Mend it.")
