import dataclasses
import json

import pytest

from hir_jax.errors import UserError
from hir_jax.run import outcome
from hir_jax.run.outcome import NOTHING, Outcome
from tests.run.evaluate_test import evaluation

BEFORE, AFTER = evaluation("1100110000", "1100110000"), evaluation("1111110011", "0000000000")
IMPROVED = Outcome(3, 400, 20, 2, "dev", BEFORE, AFTER)
STUCK = dataclasses.replace(IMPROVED, best_step=0, best_iteration=0, after=BEFORE)


def test_json_round_trip():
    record = json.loads(json.dumps(IMPROVED.to_json()))
    assert Outcome.from_json(record) == IMPROVED
    assert (record["best_iteration"], record["beat_the_start"]) == (2, True)
    assert record["change"]["asked_correct"]["value"] == 0.4
    low, high = record["change"]["asked_correct"]["interval"]
    assert -0.1 < low < 0.4 < high < 1
    stuck = STUCK.to_json()
    assert (stuck["beat_the_start"], stuck["change"]) == (False, {})


def test_the_record_of_another_version_is_refused():
    score = {"accuracy": 0.5, "interval": [0, 1], "correct": 1, "unparseable": 0, "n": 2}
    old = {"asked_correct": score, "asked_wrong": score, "gap": 0.0, "majority": 0.5}
    record = IMPROVED.to_json() | {"before": old, "after": old}
    missing = {name: value for name, value in record.items() if name != "best_step"}
    for other in (record, missing, record | {"before": None}):
        with pytest.raises(UserError, match="another version"):
            Outcome.from_json(other)


def test_a_damaged_record_is_told(tmp_path):
    file = tmp_path / "eval.json"
    assert outcome.read(file) == {}
    file.write_text("{")
    with pytest.raises(UserError, match=r"eval\.json: expected the outcome .* Remove the file"):
        outcome.read(file)


def test_table_names_the_best_iteration():
    *_, before, after, change, note = IMPROVED.table().splitlines()
    assert [line.split()[0] for line in (before, after, change)] == ["before", "after", "change"]
    assert change.split()[1] == "+40.0"
    assert note == "after: iteration 2 of 3, the best on the development questions"


def test_table_of_a_run_that_nothing_improved():
    text = STUCK.table()
    assert "change" not in text
    assert "after (the start)" in text
    assert text.splitlines()[-1].startswith(f"{NOTHING}: on the development questions no iteration")
    *_, note = dataclasses.replace(STUCK, iterations=0).table().splitlines()
    assert note == "after: the starting model, since no iteration was asked for"


@pytest.mark.parametrize("after", [BEFORE, evaluation("1000110000", "0000000000")])
def test_without_development_questions_the_newest_may_be_no_better(after):
    newest = dataclasses.replace(IMPROVED, best_iteration=3, chosen_on="test")
    assert newest.beat_the_start
    *_, note = newest.table().splitlines()
    assert note == "after: iteration 3 of 3, the newest, since there are no development questions"
    worse = dataclasses.replace(newest, after=after)
    assert not worse.beat_the_start
    assert worse.table().endswith(f"{note}; {NOTHING}")
