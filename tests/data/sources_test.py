import json
import subprocess
import sys

import pytest

from hir_jax import data
from hir_jax.data import generators
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
    with pytest.raises(UserError, match=r"2 premises are in both train and test.*'48 \+ 1\?'"):
        data.load(data_config(path=path, dev_fraction=0.0, test_path=test_path))


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
    assert [len(side) for side in data.load(config)] == [350, 50, 100]
    one = data.load(data_config(source="bbh", path=f"{path}/web_of_lies.json", task="unused"))
    assert {example.task for example in one.train} == {"web_of_lies"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "csv"}, "source: expected one of generated, bigbench, bbh, jsonl; found 'csv'"),
        ({"protocol": "papers"}, "protocol: expected one of premise, paper; found 'papers'"),
        ({"protocol": "paper"}, "use 'premise' with source 'jsonl'"),
        ({"dev_fraction": -0.1}, "found -0.1 and 0.2"),
        ({"dev_fraction": 0.8}, "less than 1 together; found 0.8 and 0.2"),
        ({"test_fraction": float("nan")}, "found 0.1 and nan"),
        ({"max_dev": -1}, "max_dev: expected 0 (all) or more; found -1"),
        ({"seed": -1}, "seed: expected 0 to 2**32 - 1; found -1"),
        ({"source": "generated", "test_path": "t"}, "dev_path, test_path: they are for"),
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
