import json

import pytest

from hir_jax.data import bbh
from hir_jax.errors import UserError
from tests.data.config import SHARED_DATA, needs_shared_data


def write(folder, *pairs, name="task"):
    path = folder / f"{name}.json"
    examples = [{"input": question, "target": target} for question, target in pairs]
    path.write_text(json.dumps({"canary": "x", "examples": examples}))
    return path


def test_lettered_options_are_parsed(tmp_path):
    text = "Which one?\nOptions:\n(A) a red ball\n(B) a (blue) ball"
    [example] = bbh.read(write(tmp_path, (text, "(B)")))
    assert example.id.startswith("task/")
    assert example.question == "Which one?"
    assert example.options == ("a red ball", "a (blue) ball")
    assert example.answers == ("a (blue) ball",)
    assert example.targets == ("(B)",)
    assert example.premise == "which one"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("not True is", "False"),
        ("Is it so?\nOptions:\n- Yes\n- No", "Yes"),
        ("Which one?\nOptions:\n(A) red\n(B) blue", "blue whale"),
        ("Which one?\nOptions:\n(A) red\n(B) blue", "(C)"),
        ("Which one?\nOptions:\n(A) red\n(C) blue", "(A)"),
        ("Which one?\nOptions:\n(A) red\n(B) blue\nThink first.", "(A)"),
    ],
)
def test_anything_else_is_free_form(tmp_path, text, target):
    [example] = bbh.read(write(tmp_path, (text, target)))
    assert (example.question, example.options, example.answers) == (text, (), (target,))


def test_questions_of_one_story_share_a_premise(tmp_path):
    story = "A gray book is left of a red book."
    path = write(
        tmp_path,
        (f"{story}\nOptions:\n(A) gray is first\n(B) red is first", "(A)"),
        (f"{story}\nOptions:\n(A) gray is last\n(B) red is last", "(B)"),
        name="logical_deduction_three_objects",
    )
    assert {example.premise for example in bbh.read(path)} == {story.lower().rstrip(".")}


def test_files_are_found_by_task(tmp_path):
    write(tmp_path, ("1 is", "1"), name="one")
    assert bbh.files(tmp_path, ["one"]) == [tmp_path / "one.json"]
    with pytest.raises(UserError, match=r"found two\. It has: one"):
        bbh.files(tmp_path, ["one", "two"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", 'non-empty list "examples"'),
        ('{"examples": []}', 'non-empty list "examples"'),
        ('{"examples": [1]}', "example 0: not an object"),
        (
            '{"examples": [{"input": "a", "target": "b"}, {"input": 3}]}',
            '(?s)2 faults.*example 1: "t',
        ),
    ],
)
def test_faulty_files(tmp_path, text, message):
    path = tmp_path / "task.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        bbh.read(path)


@needs_shared_data
@pytest.mark.parametrize("task", ["boolean_expressions", "web_of_lies"])
def test_real_files(task):
    examples = bbh.read(SHARED_DATA / "bbh" / f"{task}.json")
    assert len(examples) == len({example.id for example in examples}) == 250
    assert len({example.answers for example in examples}) == 2
