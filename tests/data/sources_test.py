import dataclasses
import json
import subprocess
import sys
import time
import unicodedata

import pytest

from hir_jax import data
from hir_jax.data import generators, sources
from hir_jax.errors import UserError
from tests.data.config import ROOT, SHARED_DATA, data_config, needs_shared_data


def write_jsonl(path, count, start=0):
    lines = [
        {"question": f"{n} + 1?", "answer": "yes", "options": ["yes", "no", "maybe"]}
        for n in range(start, start + count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def questions(examples):
    return {example.question for example in examples}


def test_jsonl_is_split_and_shuffled_the_same_way_twice(tmp_path):
    config = data_config(path=write_jsonl(tmp_path / "a.jsonl", 50))
    splits = data.load(config)
    assert [len(side) for side in splits] == [35, 5, 10]
    assert len({example.options for example in splits.train}) > 3
    assert data.load(config) == splits
    assert data.load(data_config(path=config.path, seed=1)) != splits


def test_options_stay_where_no_shuffle_is_wanted(tmp_path):
    config = data_config(path=write_jsonl(tmp_path / "a.jsonl", 50), shuffle_options=False)
    assert {e.options for side in data.load(config) for e in side} == {("yes", "no", "maybe")}


def test_maxima_take_the_first_of_the_order(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", 50)
    whole = data.load(data_config(path=path))
    cut = data.load(data_config(path=path, max_train=7, max_dev=2, max_test=99))
    assert cut == data.Splits(whole.train[:7], whole.dev[:2], whole.test)


def test_further_files_give_whole_splits(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", 50)
    test_path = write_jsonl(tmp_path / "t.jsonl", 8, start=100)
    dev_path = write_jsonl(tmp_path / "d.jsonl", 6, start=200)
    both = data.load(data_config(path=path, dev_path=dev_path, test_path=test_path))
    assert [len(side) for side in both] == [50, 6, 8]
    one = data.load(data_config(path=path, test_path=test_path))
    assert [len(side) for side in one] == [45, 5, 8]
    alone = data.load(data_config(test_path=test_path))
    assert [len(side) for side in alone] == [0, 0, 8]
    assert questions(alone.test) == {f"{n} + 1?" for n in range(100, 108)}


def test_a_premise_of_both_files_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", 50)
    test_path = write_jsonl(tmp_path / "t.jsonl", 8, start=48)
    with pytest.raises(UserError, match=r"2 premises are in both train and test.*'48 \+ 1'"):
        data.load(data_config(path=path, dev_fraction=0.0, test_path=test_path))


def put_otherwise(text):
    """The same question: with a space more, in capitals, of wide characters, without its end."""
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    return [text.replace(" ", "  ", 1), text.upper(), wide, text.rstrip("?"), f"“{text}”", text]


@pytest.mark.parametrize("way", range(6))
@pytest.mark.parametrize("seed", range(3))
def test_a_question_written_twice_stays_on_one_side(tmp_path, way, seed):
    texts = [f"What is {n} plus {n * n}?" for n in range(100)]
    twice = [*texts, *(put_otherwise(text)[way] for text in texts)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"question": q, "answer": "a"}) for q in twice))
    sides = data.load(data_config(path=str(path), seed=seed))
    assert [len(side) for side in sides] == [140, 20, 40]
    number = [
        {text.casefold().replace("？", "?").split()[2] for text in questions(s)} for s in sides
    ]
    numbers = [{unicodedata.normalize("NFKC", n) for n in side} for side in number]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == 100


def test_questions_of_two_premises_that_ask_the_same_stay_together(tmp_path):
    lines = [
        {"question": f"Who {n % 20}?", "answer": "a", "premise": f"story {n}"} for n in range(40)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    sides = [questions(side) for side in data.load(data_config(path=str(path)))]
    assert sum(map(len, sides)) == 20


def test_a_question_of_two_files_is_refused_whatever_its_premises(tmp_path):
    for name, premise in (("a", "one"), ("t", "two")):
        lines = [
            {"question": f"{n}?", "answer": "a", "premise": f"{premise} {n}"} for n in range(9)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    paths = {"path": str(tmp_path / "a.jsonl"), "test_path": str(tmp_path / "t.jsonl")}
    with pytest.raises(UserError, match="9 premises are in both train and test"):
        data.load(data_config(**paths, dev_fraction=0.0))


def test_the_check_of_the_sides_sees_a_split_that_lets_questions_part(tmp_path, monkeypatch):
    def parted(examples):
        return [dataclasses.replace(e, premise=e.question) for e in examples]

    lines = [{"question": f"Who{' ' * (n % 2)} {n // 2}?", "answer": "a"} for n in range(100)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert data.load(data_config(path=str(path)))
    monkeypatch.setattr(sources, "unite", parted)
    with pytest.raises(UserError, match=r"\d questions are in both train and"):
        data.load(data_config(path=str(path)))


def test_ids_do_not_move_when_a_line_is_put_in(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, 50)
    before = {
        e.question: (e.id, e.options)
        for side in data.load(data_config(path=str(path)))
        for e in side
    }
    path.write_text('{"question": "new", "answer": "a"}\n' + path.read_text())
    after = {
        e.question: (e.id, e.options)
        for side in data.load(data_config(path=str(path)))
        for e in side
    }
    assert after.items() >= before.items()


def test_options_that_speak_of_places_are_told_and_stay(tmp_path, caplog):
    options = ["one", "two", "Both (A) and (B)"]
    lines = [{"question": f"{n}?", "answer": options[2], "options": options} for n in range(20)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, [*lines, {"question": "q", "answer": "a"}])))
    with caplog.at_level("INFO"):
        splits = data.load(data_config(path=str(path)))
    assert {e.options for side in splits for e in side if e.options} == {tuple(options)}
    assert "20 of 20 questions have options that speak of letters or places" in caplog.text


def test_many_lines_load_in_seconds(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        {"question": f"Café {n}?", "answer": "a", "options": ["a", "b"]} for n in range(30_000)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    start = time.process_time()
    data.load(data_config(path=str(path)))
    assert time.process_time() - start < 10


@pytest.mark.parametrize("task", generators.FAMILIES)
def test_no_premise_of_generated_questions_is_on_two_sides(task):
    sides = data.load(data_config(source="generated", task=task, size=600, difficulty=4))
    premises = [{e.premise for e in side} for side in sides]
    assert sum(map(len, premises)) == len(set.union(*premises))


@pytest.mark.parametrize("field", ["dev_fraction", "test_fraction"])
def test_generated_questions_have_fixed_sides(field):
    config = data_config(source="generated", task="object_counting", size=200, difficulty=3)
    config[field] = 0.3
    with pytest.raises(
        UserError, match=r"dev_fraction=0\.1 and data\.test_fraction=0\.2.*found .*0\.3"
    ):
        data.load(config)


def test_generated_tasks_keep_their_fixed_split():
    tasks = "tracking_shuffled_objects,object_counting"
    config = data_config(source="generated", task=tasks, size=200, difficulty=3)
    splits = data.load(config)
    assert data.load(config) == splits
    assert sum(map(len, splits)) == 400
    assert {e.task for e in splits.test} == {"tracking_shuffled_objects", "object_counting"}
    for name, side in zip(data.Splits._fields, splits, strict=True):
        assert {generators.split_of(example) for example in side} == {name}
    config.shuffle_options = False
    unshuffled = data.load(config)
    assert [e.options for e in unshuffled.train] != [e.options for e in splits.train]


def test_too_small_a_generated_task():
    config = data_config(source="generated", task="object_counting", size=2, difficulty=3)
    with pytest.raises(UserError, match=r"data\.size=2 leaves .* empty"):
        data.load(config)


@needs_shared_data
def test_bbh_tasks_of_a_folder():
    path = str(SHARED_DATA / "bbh")
    config = data_config(source="bbh", path=path, task="web_of_lies, boolean_expressions")
    splits = data.load(config)
    assert sum(map(len, splits)) == 500
    assert [sum(e.task == "web_of_lies" for e in side) for side in splits] == [175, 25, 50]
    one = data.load(data_config(source="bbh", path=f"{path}/web_of_lies.json"))
    assert {example.task for example in one.train} == {"web_of_lies"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source": "csv"},
            "source: expected one of generated, bigbench, bbh, jsonl, reasoning_gym; found 'csv'",
        ),
        ({"protocol": "papers"}, "protocol: expected one of premise, paper; found 'papers'"),
        ({"protocol": "paper"}, "use 'premise' with source 'jsonl'"),
        ({"dev_fraction": -0.1}, "found -0.1 and 0.2"),
        ({"dev_fraction": 0.8}, "less than 1 together; found 0.8 and 0.2"),
        ({"test_fraction": float("nan")}, "found 0.1 and nan"),
        ({"max_dev": -1}, "max_dev: expected 0 (all) or more; found -1"),
        ({"seed": -1}, "seed: expected 0 to 2**32 - 1; found -1"),
        (
            {"source": "generated", "test_path": "t"},
            "test_path: it is for source jsonl, not 'generated'",
        ),
        ({"source": "generated", "path": "p"}, "path: it is for source bbh or jsonl, not"),
        ({"source": "bigbench", "path": "p"}, "path: it is for source bbh or jsonl, not"),
        ({"source": "bbh", "tfds_dir": "d"}, "tfds_dir: it is for source bigbench, not 'bbh'"),
        ({"bigbench_dir": "d"}, "bigbench_dir: it is for source bigbench, not 'jsonl'"),
        ({}, "data.source='jsonl' needs --config.data.path"),
        ({"source": "bbh", "path": ".", "task": " ,"}, "to name one task"),
        ({"source": "generated", "task": "a,b,a"}, "each once; found 'a,b,a'"),
    ],
)
def test_faulty_configs(changes, message):
    with pytest.raises(UserError) as error:
        data.load(data_config(**changes))
    assert message in str(error.value)


def test_all_faults_of_a_config_are_told():
    with pytest.raises(UserError) as error:
        data.load(data_config(source="csv", seed=-1, max_train=-1))
    assert all(field in str(error.value) for field in ("source:", "seed:", "max_train:"))


def test_importing_the_package_is_light():
    heavy = "('tensorflow', 'tensorflow_datasets', 'jax', 'torch', 'transformers')"
    code = f"import sys, hir_jax.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
