import json
import os

import pytest

from hir_jax.commands.verify import verify_file
from hir_jax.errors import UserError
from hir_jax.hindsight.verify import Verdict
from tests import tiny


def judged(folder, *records, verifier="final", **changes):
    source = folder / "outputs.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = tiny.config(verifier=verifier, **changes)
    verify_file(config, str(source), str(folder / "verdicts.jsonl"))
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


def test_right_and_wrong_have_rewards_too(tmp_path):
    found = judged(tmp_path, *({"question": "?", "answer": 2, "output": o} for o in ("2", "3")))
    assert [line["reward"] for line in found] == [1.0, 0.0]
    assert not any(line.keys() & {"facts", "rewards"} for line in found)


def test_rewards_facts_and_each_verifiers_own_reward(tmp_path):
    name = "tests.commands.verify_test:graded"
    records = [{"question": "Who?", "answer": "Ada", "output": o} for o in ("Ada", "Eve", "")]
    changes = {"reward.weights": (1, 3), "reward.threshold": 0.75}
    found = judged(tmp_path, *records, verifier=f"exact,{name}", **changes)
    keys = ("correct", "parsed", "read", "reward", "facts", "rewards")
    assert [{key: line[key] for key in keys} for line in found] == [
        {
            "correct": right,
            "parsed": output != "",
            "read": output,
            "reward": reward,
            "facts": {"short": True},
            "rewards": {"exact": exact, name: own},
        }
        for output, right, reward, exact, own in (
            ("Ada", True, 1.0, 1.0, 1.0),
            ("Eve", True, 0.75, 0.0, 1.0),
            ("", False, 0.375, 0.0, 0.5),
        )
    ]
    # Judged again otherwise, nothing of the former verdict stays.
    (tmp_path / "again").mkdir()
    again = judged(tmp_path / "again", *found, verifier="exact")
    assert [line.keys() & {"facts", "rewards"} for line in again] == [set()] * 3
    assert [(line["correct"], line["reward"]) for line in again] == [
        (True, 1.0),
        (False, 0.0),
        (False, 0.0),
    ]


def graded(output, example):
    return Verdict(reward=1.0 if output else 0.5, facts={"short": len(output) < 9})


def test_what_was_cut_short_goes_on(tmp_path, monkeypatch):
    records = [{"question": "?", "answer": "a", "output": output} for output in "aba"]
    outage, asked = "b", []

    def service(output, example):
        if output == outage:
            raise ConnectionError
        asked.append(output)
        return output in example.answers

    monkeypatch.setitem(globals(), "service", service)
    name = f"{__name__}:service"
    with pytest.raises(UserError, match="raised ConnectionError"):
        judged(tmp_path, *records, verifier=name)
    assert len((tmp_path / "verdicts.jsonl").read_text().splitlines()) == 1
    with pytest.raises(UserError, match=f"config.verifier: '{name}' then, 'exact' now"):
        judged(tmp_path, *records, verifier="exact")
    outage = ""
    found = judged(tmp_path, *records, verifier=name)
    assert ([line["correct"] for line in found], asked) == ([True, False, True], list("aba"))
    with pytest.raises(UserError, match="is there already"):
        judged(tmp_path, *records, verifier=name)
    assert not (tmp_path / "verdicts.jsonl.unfinished").exists()


def test_where_nothing_was_judged_another_verifier_may_begin(tmp_path):
    record = {"question": "?", "answer": "a", "output": "a"}
    with pytest.raises(UserError, match="returned None"):
        judged(tmp_path, record, verifier=f"{__name__}:silent")
    assert judged(tmp_path, record, verifier="exact")[0]["correct"]


def silent(output, example):
    pass


@pytest.mark.parametrize(
    ("fields", "record"),
    [
        ({"after": "####"}, {"question": "1 + 1?", "answer": "One more.\n#### 2"}),
        (
            {"question": "stem", "options": "choices.text", "labels": "choices.label"}
            | {"answer": "key", "id": "n"},
            {"stem": "?", "choices": {"text": ["2", "3"], "label": ["P", "Q"]}, "key": "P", "n": 1},
        ),
        (
            {"options": "A,B", "index": "right", "premise": "story"},
            {"question": "?", "A": "3", "B": "2", "right": 1, "story": "s", "else": {"left": None}},
        ),
    ],
)
def test_fields_of_other_names_are_read_as_for_a_run(tmp_path, fields, record):
    changes = {f"data.fields.{name}": path for name, path in fields.items()}
    records = [record | {"output": output} for output in ("2", "3")]
    found = judged(tmp_path, *records, verifier="auto", **changes)
    assert [line["correct"] for line in found] == [True, False]
    assert [{k: line[k] for k in records[0]} for line in found] == records


def test_faults_of_other_names_say_who_gave_them(tmp_path):
    given = {"question": "a", "answer": "b", "output": "b"}
    wants = r'line 1: missing "prompt" \(so named by config.data.fields.question\)$'
    with pytest.raises(UserError, match=wants):
        judged(tmp_path, given, **{"data.fields.question": "prompt"})
    for path in ("output", "question,output.text", "x, correct"):
        with pytest.raises(UserError, match=f"name none of output, .*found answer={path}. Give"):
            judged(tmp_path, given, **{"data.fields.answer": path})
    assert judged(tmp_path, given | {"answer": "output b"}, **{"data.fields.after": "output"})


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"question": "a", "answer": "b"}, "line 1: expected output, as text; found answer"),
        ({"answer": "b", "output": "b"}, 'line 1: missing "question"$'),
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


def test_an_output_that_is_a_device_is_told_so(tmp_path):
    with pytest.raises(UserError, match="a new file, found the device or pipe '/dev/stdout'"):
        verify_file(tiny.config(), str(tmp_path / "in.jsonl"), "/dev/stdout")


def test_what_is_judged_may_come_through_a_pipe(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, b'{"question": "1 + 1?", "answer": 2, "output": "2"}\n')
    os.close(writer)
    verify_file(tiny.config(), f"/dev/fd/{reader}", str(tmp_path / "out.jsonl"))
    os.close(reader)
    assert json.loads((tmp_path / "out.jsonl").read_text())["correct"]
