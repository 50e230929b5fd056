import collections
import functools
import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest

from hir_jax import data
from hir_jax.data.bigbench import reader
from hir_jax.data.bigbench.tasks import RAW_FOLDER
from hir_jax.data.example import letter
from hir_jax.data.stories import story_of
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from tests.data.config import ROOT, SHARED_DATA, data_config, needs_shared_data

BIGBENCH = SHARED_DATA / "bigbench"
# Task: examples; different texts before the last sentence (in three tasks the instruction, with or
# without what a table gains); premises: stories or questions that are not nearly the same.
COUNTS = {
    "logical_deduction_three_objects": (300, 100, 87),
    "logical_deduction_five_objects": (500, 100, 92),
    "logical_deduction_seven_objects": (700, 100, 98),
    "tracking_shuffled_objects_three_objects": (750, 250, 180),
    "tracking_shuffled_objects_five_objects": (1250, 250, 206),
    "tracking_shuffled_objects_seven_objects": (1750, 250, 246),
    "date_understanding": (369, 41, 38),
    "object_counting": (1000, 1000, 923),
    "geometric_shapes": (360, 359, 344),
    "penguins_in_a_table": (149, 6, 62),
    "reasoning_about_colored_objects": (2000, 2000, 1989),
    "word_sorting": (1900, 1, 1900),
}


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """One folder of prepared data for the whole file."""
    return str(tmp_path_factory.mktemp("tfds"))


def load(task, tfds_dir, **changes):
    fields = {"source": "bigbench", "task": task, "bigbench_dir": str(BIGBENCH)}
    return data.load(data_config(**fields | {"tfds_dir": tfds_dir} | changes))


cached_load = functools.cache(load)


def raw(task):
    return json.loads((BIGBENCH / RAW_FOLDER[task] / "task.json").read_text())


def by_id(splits):
    return {example.id: example for side in splits for example in side}


def by_question(splits):
    return {example.question: example for side in splits for example in side}


def right_places(splits):
    return collections.Counter(
        (len(example.options), place)
        for side in splits
        for example in side
        for place, option in enumerate(example.options)
        if option in example.answers
    )


@needs_shared_data
@pytest.mark.parametrize("task", RAW_FOLDER)
def test_every_task_loads_whole_and_is_split_by_premise(task, tfds_dir):
    splits = load(task, tfds_dir)
    count, story_count, premise_count = COUNTS[task]
    assert len(by_id(splits)) == count
    assert len({story_of(example.question) for side in splits for example in side}) == story_count
    premises = [{example.premise for example in side} for side in splits]
    assert sum(map(len, premises)) == len(set.union(*premises)) == premise_count
    assert [len(side) for side in premises] == [
        premise_count - round(0.1 * premise_count) - round(0.2 * premise_count),
        round(0.1 * premise_count),
        round(0.2 * premise_count),
    ]
    assert load(task, tfds_dir) == splits  # now from the prepared data


@needs_shared_data
@pytest.mark.parametrize("task", RAW_FOLDER)
def test_texts_and_right_answers_are_those_of_the_file(task, tfds_dir):
    content = raw(task)
    prefix = content.get("task_prefix", "") + content.get("example_input_prefix", "")
    expected = collections.Counter()
    for entry in content["examples"]:
        scores = entry.get("target_scores", {})
        targets = entry.get("target")
        targets = targets if isinstance(targets, list) else [targets]
        right = {o for o, s in scores.items() if s == 1} or set(targets)
        expected[prefix + entry["input"], frozenset(scores), frozenset(right)] += 1
    found = collections.Counter(
        (example.question, frozenset(example.options), frozenset(example.answers))
        for example in by_id(cached_load(task, tfds_dir)).values()
    )
    assert found == expected


@needs_shared_data
def test_oddities_of_the_files(tfds_dir):
    shapes = by_id(cached_load("geometric_shapes", tfds_dir)).values()
    assert sum(len(example.answers) == 2 for example in shapes) == 72
    colors = by_id(cached_load("reasoning_about_colored_objects", tfds_dir)).values()
    assert sum(len(example.answers) == 2 for example in colors) == 816
    counting = by_question(cached_load("object_counting", tfds_dir))
    first = "I have a clarinet, a violin, and a flute. How many musical instruments do I have?"
    assert counting[first].answers == ("three", "3")
    sorting = by_question(cached_load("word_sorting", tfds_dir))
    assert "Sort the following words alphabetically:\nList: stick gelatine" in sorting


@needs_shared_data
@pytest.mark.parametrize("task", sorted(set(RAW_FOLDER) - {"object_counting", "word_sorting"}))
def test_right_options_are_uniform_in_place(task, tfds_dir):
    places = right_places(cached_load(task, tfds_dir))
    totals = collections.Counter()
    for (options, _), count in places.items():
        totals[options] += count
    chi_squared = sum(
        (places[options, place] - total / options) ** 2 / (total / options)
        for options, total in totals.items()
        for place in range(options)
    )
    freedom = sum(options - 1 for options in totals)
    # Mean and standard deviation of chi-squared; unshuffled date_understanding gives over 1,000.
    assert chi_squared <= freedom + 3.5 * (2 * freedom) ** 0.5


@needs_shared_data
def test_date_understanding_no_longer_rewards_the_first_letter(tfds_dir):
    def first_share(**changes):
        places = right_places(cached_load("date_understanding", tfds_dir, **changes))
        return sum(n for (_, place), n in places.items() if place == 0) / places.total()

    assert first_share(shuffle_options=False) > 0.985
    assert 0.11 < first_share() < 0.23


@needs_shared_data
@pytest.mark.parametrize("task", RAW_FOLDER)
def test_paper_protocol_is_the_reference_codes_data(task, tfds_dir):
    content = raw(task)
    prefix = content.get("task_prefix", "") + content.get("example_input_prefix", "")
    expected = []
    for entry in content["examples"]:
        text = prefix.replace("\n\n", "\n")
        if "target_scores" in entry:
            scores = entry["target_scores"]
            text += entry["input"].replace("\n\n", "")
            expected.append((text, tuple(scores), letter(list(scores.values()).index(1))))
        else:
            text += entry["input"].replace("\n\n", "\n")
            target = entry["target"]
            expected.append((text, (), target[1] if isinstance(target, list) else target))
    np.random.seed(1)
    expected = [expected[i] for i in np.random.permutation(len(expected))]

    splits = load(task, tfds_dir, protocol="paper", seed=1)
    found = [(e.question, e.options, *e.targets) for e in splits.train + splits.test]
    assert found == expected
    assert len(splits.train) == int(0.8 * len(expected))
    assert splits.dev == ()


@needs_shared_data
def test_several_tasks_are_split_each_and_joined(tfds_dir):
    first, second = "penguins_in_a_table", "geometric_shapes"
    joined = load(f"{first}, {second}", tfds_dir, max_train=50)
    alone = [load(task, tfds_dir, max_train=50) for task in (first, second)]
    assert joined == data.Splits(*(a + b for a, b in zip(*alone, strict=True)))


def write_task(folder, answers):
    """A small object_counting file; returns the folder laid out like BIG-bench's."""
    path = folder / "object_counting" / "task.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    examples = [{"input": f"Count {i}.", "target": answer} for i, answer in enumerate(answers)]
    path.write_text(json.dumps({"examples": examples}))
    return str(folder)


def answers_of(splits):
    return [example.answers[0] for _, example in sorted(by_question(splits).items())]


def load_small(tmp_path, bigbench_dir):
    return load(
        "object_counting",
        str(tmp_path / "tfds"),
        bigbench_dir=bigbench_dir,
        dev_fraction=0.2,
    )


def test_a_changed_raw_file_is_prepared_again(tmp_path):
    old, new = list("abcdefghij"), list("ABCDEFGHIJ")
    folder = tmp_path / "raw"
    assert answers_of(load_small(tmp_path, write_task(folder, old))) == old
    assert answers_of(load_small(tmp_path, write_task(folder, new))) == new
    assert answers_of(load_small(tmp_path, write_task(folder, old))) == old


def test_prepared_data_is_reused(tmp_path, monkeypatch):
    folder = write_task(tmp_path / "raw", list("abcdefghij"))
    first = load_small(tmp_path, folder)

    def never(*_):
        raise AssertionError("prepared again")

    monkeypatch.setattr(reader.Builder, "_generate_examples", never)
    assert load_small(tmp_path, folder) == first


def test_a_run_killed_while_preparing_leaves_nothing_that_looks_prepared(tmp_path):
    folder = write_task(tmp_path / "raw", list("abcdefghij"))
    code = f"""
import os, signal
from hir_jax.data.bigbench import reader
whole = reader.Builder._generate_examples
def killed(self, records):
    yield from whole(self, records[:5])
    os.kill(os.getpid(), signal.SIGKILL)
reader.Builder._generate_examples = killed
reader.read("object_counting", "premise", {folder!r}, {str(tmp_path / "tfds")!r})
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "tfds").rglob("incomplete*"))
    assert answers_of(load_small(tmp_path, folder)) == list("abcdefghij")


def test_a_copy_that_another_process_made_meanwhile_serves(tmp_path, monkeypatch):
    folder = write_task(tmp_path / "raw", list("abcdefghij"))
    prepared = load_small(tmp_path, folder)
    [done] = (tmp_path / "tfds").rglob(str(reader.Builder.VERSION))
    shutil.move(done, tmp_path / "aside")
    whole = reader.Builder._generate_examples

    def overtaken(self, records):
        yield from whole(self, records)
        shutil.move(tmp_path / "aside", done)

    monkeypatch.setattr(reader.Builder, "_generate_examples", overtaken)
    assert load_small(tmp_path, folder) == prepared


def test_damaged_prepared_data_is_told(tmp_path):
    folder = write_task(tmp_path / "raw", list("abcdefghij"))
    load_small(tmp_path, folder)
    [records] = (tmp_path / "tfds").rglob("*array_record*")
    records.write_bytes(records.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"is damaged: .*Delete that folder"):
        load_small(tmp_path, folder)


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_a_damaged_description_of_prepared_data_is_told(tmp_path, text):
    folder = write_task(tmp_path / "raw", list("abcdefghij"))
    load_small(tmp_path, folder)
    [info] = (tmp_path / "tfds").rglob("dataset_info.json")
    info.unlink() if text is None else info.write_text(text)
    with pytest.raises(UserError, match=r"is damaged: .*Delete that folder"):
        load_small(tmp_path, folder)


def test_the_manual_dir_comes_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", None)
    write_task(tmp_path / "tfds" / "downloads" / "manual", list("abcdefghij"))
    assert answers_of(load_small(tmp_path, "")) == list("abcdefghij")


def test_a_download_is_kept(tmp_path, monkeypatch):
    source = tmp_path / "site"
    write_task(source, list("abcdefghij"))
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        return open(source / "object_counting" / "task.json", "rb")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert answers_of(load_small(tmp_path, "")) == list("abcdefghij")
    assert answers_of(load_small(tmp_path, "")) == list("abcdefghij")
    [url] = asked
    assert url.endswith("/google/BIG-bench/main/bigbench/benchmark_tasks/object_counting/task.json")


def test_a_failed_download_says_what_to_set(tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(UserError, match=r"no network\. Set --config\.data\.bigbench_dir"):
        load_small(tmp_path, "")


def test_what_is_not_there_to_download_is_told(tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise urllib.error.HTTPError(url, 404, "Not Found", None, None)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(UserError, match=r"There is no http.*/none/task.json. Expected data\.task"):
        load("none", str(tmp_path / "tfds"), bigbench_dir="")


def write_raw(folder, task, content):
    path = folder / task / "task.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


FREE = [{"input": f"Count {i}.", "target": [str(i), "many"]} for i in range(10)]
CHOICE = [{"input": f"Bird {i}?", "target_scores": {"red": 1, "blue": 0}} for i in range(10)]


@pytest.mark.parametrize("task", ["birds", "birds/at_sea"])
def test_any_task_is_known_by_its_folder(tmp_path, task, caplog):
    write_raw(tmp_path, task, {"task_prefix": "Look. ", "examples": CHOICE + FREE})
    splits = load(task, str(tmp_path / "tfds"), bigbench_dir=str(tmp_path))
    examples = by_question(splits)
    assert len(examples) == 20 and {e.task for e in examples.values()} == {task}
    assert examples["Look. Bird 3?"].answers == ("red",)
    assert examples["Look. Count 3."].answers == ("3", "many")
    assert load(task, str(tmp_path / "tfds"), bigbench_dir=str(tmp_path)) == splits
    paper = load(task, str(tmp_path / "tfds"), bigbench_dir=str(tmp_path), protocol="paper")
    assert sum(map(len, paper)) == 20
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_of_graded_options_those_of_the_highest_score_are_right(tmp_path):
    moods = [
        {"input": f"Face {i}?", "target_scores": {"joy": 0.69, "fear": 0.1, "trust": 0.69}}
        for i in range(9)
    ]
    write_raw(tmp_path, "faces", {"examples": moods})
    for protocol, answers in (("premise", ("joy", "trust")), ("paper", ("joy",))):
        splits = load("faces", str(tmp_path), bigbench_dir=str(tmp_path), protocol=protocol)
        assert {e.answers for side in splits for e in side} == {answers}
    moods[4]["target_scores"] = {"joy": 0.0, "fear": 0}
    write_raw(tmp_path, "faces", {"examples": moods})
    with pytest.raises(UserError, match=r"1 fault.*\n  example 4: .* an option scored above 0"):
        load("faces", str(tmp_path), bigbench_dir=str(tmp_path))


def test_tasks_that_cannot_be_read_are_told(tmp_path):
    write_raw(tmp_path, "birds", {"name": "birds"})
    write_raw(tmp_path, "birds/at_sea", {"examples": FREE})
    (tmp_path / "flight").mkdir()
    (tmp_path / "flight" / "task.py").write_text("")
    for task, message in (
        ("bird", r"No BIG-bench task file .*There are 2 others, such as birds"),
        ("birds", r"no questions of its own\..*name subtasks of birds: birds/at_sea\."),
        ("flight", r"flight is a program \(task\.py\)"),
        ("../birds", r"Expected data\.task to name a folder .*found '\.\./birds'"),
        ("birds/at_sea/x", r"found 'birds/at_sea/x'"),
    ):
        with pytest.raises(UserError, match=message):
            load(task, str(tmp_path / "tfds"), bigbench_dir=str(tmp_path))


@pytest.mark.parametrize("metric", ["", "exact_str_match", "rougeLsum"])
def test_auto_asks_for_equal_answers_only_where_the_task_does(tmp_path, metric):
    content = {"examples": FREE + CHOICE} | ({"preferred_score": metric} if metric else {})
    write_raw(tmp_path, "birds", content)
    splits = load("birds", str(tmp_path / "tfds"), bigbench_dir=str(tmp_path))
    every = [example for side in splits for example in side]
    verify.check_suits("exact", every)
    verify.check_suits("auto", [example for example in every if example.options])
    if metric != "rougeLsum":
        verify.check_suits("auto", every)
        return
    with pytest.raises(UserError, match=r"birds is scored by rougeLsum.*Set config\.verifier"):
        verify.check_suits("auto", every)


@needs_shared_data
@pytest.mark.parametrize("task", ["navigate", "cs_algorithms/valid_parentheses", "strategyqa"])
def test_tasks_besides_the_twelve(task, tfds_dir):
    splits = load(task, tfds_dir)
    content = json.loads((BIGBENCH / task / "task.json").read_text())
    assert sum(map(len, splits)) == len(content["examples"])
    verify.check_suits("auto", splits.train)


def test_faulty_raw_files(tmp_path):
    folder = tmp_path / "raw"
    with pytest.raises(
        UserError, match=r"No BIG-bench task file .*Set --config\.data\.bigbench_dir"
    ):
        load_small(tmp_path, str(folder))
    write_task(folder, ["a", None, [], "b"])
    with pytest.raises(
        UserError, match=r"2 faults.*\n  example 1: .*\n  example 2: expected a text"
    ):
        load_small(tmp_path, str(folder))
    (folder / "object_counting" / "task.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        load_small(tmp_path, str(folder))


def test_a_tfds_dir_that_cannot_be_written(tmp_path):
    folder = write_task(tmp_path / "raw", list("abcdefghij"))
    (tmp_path / "tfds").write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"--config\.data\.tfds_dir"):
        load_small(tmp_path, folder)


def test_reading_never_imports_tensorflow(tmp_path):
    folder = write_task(tmp_path / "raw", list("abcdefghij"))
    code = f"""
import sys
from hir_jax.data.bigbench import reader
assert len(reader.read("object_counting", "paper", {folder!r}, {str(tmp_path / "tfds")!r})) == 10
assert "tensorflow_datasets" in sys.modules
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
