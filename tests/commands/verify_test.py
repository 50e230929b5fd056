import json

import pytest

from hir_jax.commands.verify import verify_file
from hir_jax.errors import UserError
from tests import tiny


def judged(folder, *records, verifier="final"):
    source = folder / "outputs.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    verify_file(tiny.config(verifier=verifier), str(source), str(folder / "verdicts.jsonl"))
    lines = (folder / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_lines_come_back_with_verdicts_in_order(tmp_path):
    records = [
        {"question": "1 + 1?", "answers": [2, "two"], "output": "The answer is two.", "id": "a"},
        {"question": "Which?", "options": ["tea", "café"], "answer": "café", "output": "(A)"},
        {"question": "Which?", "options": ["tea", "café"], "answer": "B", "output": "A or B"},
        {"question": "1 + 1?", "answer": 2, "output": ""},
    ]
    found = judged(tmp_path, *records)
    assert [
        {k: line[k] for k in record} for line, record in zip(found, records, strict=True)
    ] == records
    assert [(line["correct"], line["parsed"], line["read"]) for line in found] == [
        (True, True, "two"),
        (False, True, "(A) tea"),
        (False, False, "A or B"),
        (False, False, ""),
    ]
    (tmp_path / "again").mkdir()
    assert judged(tmp_path / "again", *found) == found


def test_the_configs_verifier_judges(tmp_path):
    record = {"question": "Half of 3?", "answer": 1.50, "output": "three halves"}
    assert judged(tmp_path, record, verifier="number")[0]["correct"]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"question": "a", "answer": "b"}, "line 1: expected question and output"),
        ({"question": "a", "answer": "b", "output": "b", "optoins": []}, "unknown field 'optoins'"),
        ({"question": "a", "output": "b"}, 'line 1: missing "answer"'),
        (
            {"question": "a", "answer": "b", "options": ["c"], "output": "b"},
            "not among the options",
        ),
    ],
)
def test_faulty_lines(tmp_path, record, says):
    with pytest.raises(UserError, match=says):
        judged(tmp_path, record)
    assert not (tmp_path / "verdicts.jsonl").exists()
