"""Grids: their cells, their table, their figure."""

import dataclasses
import json

import ml_collections
import numpy as np
import pytest

from configs import experiment as experiment_config
from hir_jax.commands import experiment
from hir_jax.commands.experiment import Cell, Result
from hir_jax.errors import UserError
from hir_jax.run import evaluate, settings, statistics, trainers
from hir_jax.run.outcome import Outcome
from tests import tiny
from tests.run.evaluate_test import evaluation


def result(before, after, samples=100, best=1, **changes):
    """Of strings of digits: right or wrong under p_correct, before as after; none under p_wrong."""
    first, last = evaluation(before, before), evaluation(after, "0" * len(after))
    first, last = (dataclasses.replace(e, **changes) for e in (first, last))
    outcome = Outcome(1, samples, best, best, "dev", first, last if best else first)
    curve = ((0, first.asked_correct.accuracy, 0.0), (samples, last.asked_correct.accuracy, 0.5))
    return Result(outcome, curve)


START = "1100000000"
RESULTS = {
    Cell("sft", "sorting", 0): result(START, "1111111100", samples=0),
    Cell("hir", "sorting", 0): result(START, "1111110000"),
    Cell("hir", "sorting", 1): result(START, "1111111010"),
}


def test_spread():
    assert experiment.spread([60.0, 80.0]) == "70.0 ± 14.1"  # deviations of 10, over n - 1 = 1
    assert experiment.spread([100.0, 100.0]) == "100.0 ± 0.0"
    assert experiment.spread([5.0]) == "5.0"  # one value says nothing of spread


def cells(results):
    """The only task's cell of each row of both tables; the rest of the text."""
    lines = experiment.table(results, first="hir").splitlines()
    rows = [line.split("|")[1:3] for line in lines if line.startswith("|")]
    text = "\n".join(line for line in lines if not line.startswith("|"))
    return {name.strip(): value.strip() for name, value in rows}, text


def test_table():
    found, caption = cells(RESULTS)
    assert found["best constant"] == '60.0% "four"'
    assert found["base"] == "20.0 [5.7, 51.0] (gap 0.0 [-23.1, 23.1])"
    assert found["sft"].startswith("80.0 [49.0, 94.3] (gap 80.0 [")
    # The interval is of the mean of both seeds: Wilson's of 7 in 10.
    assert found["hir"].startswith("70.0 ± 14.1 [39.7, 89.2] (gap 70.0 ± 14.1 [")
    assert "standard deviation over seeds" in caption
    assert "Test questions (stories): sorting 10 (10)." in caption


def test_differences_between_variants_are_paired():
    found, caption = cells(RESULTS)
    # Of ten questions one is lost, one lost in one seed of two, and one won in one.
    change = np.array([0] * 6 + [-0.5, -1, 0.5, 0])
    expected = statistics.difference(change, np.arange(10))
    assert found["hir - sft"].startswith(f"{evaluate.points(expected)} (gap ")
    assert expected.value == pytest.approx(-0.1)
    assert "paired" in caption


def test_the_size_counts_stories():
    stories = (0,) * 5 + (1,) * 5
    _, caption = cells({Cell("hir", "sorting", 0): result(START, START, stories=stories)})
    assert "sorting 10 (2)" in caption


def test_runs_that_nothing_improved_are_marked():
    results = {
        Cell("hir", "sorting", 0): result(START, "1111110000"),
        Cell("hir", "sorting", 1): result(START, START, best=0),
        Cell("farl", "sorting", 0): result(START, "1111110000"),
    }
    found, _ = cells(results)
    assert found["hir"].endswith("; nothing beat the start: 1 of 2")
    assert "nothing" not in found["farl"]


def test_variants_on_other_questions_are_not_compared():
    results = RESULTS | {Cell("farl", "sorting", 0): result(START, "1111110000", digest="other")}
    found, _ = cells(results)
    assert found["hir - farl"] == "other questions"
    assert found["base"] == "20.0 ± 0.0 (gap 0.0 ± 0.0)"  # no interval: there is no one set
    assert found["hir - sft"] != "other questions"


def test_figure(tmp_path):
    experiment.figure(RESULTS, tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", experiment_config.GRIDS)
def test_shipped_grids_are_sound(name):
    config = experiment_config.get_config(name)
    cells = experiment.grid(config)
    assert len(set(cells)) == len(cells) == 3 * len(config.experiment.variants) * 3
    made = [experiment.cell_config(config, cell).to_json() for cell in cells]
    assert len(set(made)) == len(made)


def effective(name):
    """What a shipped grid's variants differ in: of each, the settings that its runs work by."""
    config = experiment_config.get_config(name)
    seed, task = config.experiment.seeds[0], next(iter(config.experiment.tasks))
    found = {}
    for variant in config.experiment.variants:
        made = experiment.cell_config(config, Cell(variant, task, seed))
        method = settings.method_of(made)
        objective = trainers.make_objective(made, method, tiny.one_device())
        shared = {"average": objective.average, "entropy_weight": objective.entropy_weight}
        found[variant] = dataclasses.asdict(method) | shared | {"algorithm": made.algorithm}
    return found


def differences(found, whole):
    return {name: value for name, value in found.items() if value != whole[name]}


def test_each_ablation_takes_away_what_its_name_says_and_nothing_else():
    variants = effective("ablation")
    whole = variants.pop("hir")
    # All that is to be taken away is there.
    assert whole["sub_output"] == "suffix" and whole["prob"] > 0
    parts = ("smoothing", "contrastive_smoothing", "contrastive_weight", "entropy_weight")
    assert all(whole[part] > 0 for part in parts)
    assert {name: differences(found, whole) for name, found in variants.items()} == {
        "no sub-outputs": {"sub_output": "full"},
        "no entropy term": {"entropy_weight": 0.0},
        "no smoothing": {"smoothing": 0.0, "contrastive_smoothing": 0.0},
        "no contrastive term": {"contrastive_weight": 0.0},
        "repeats counted": {"dedup": "count"},
        "half of it right": {"share_right": 0.5},
    }


def test_baselines_of_the_grid_differ_in_the_method_alone():
    variants = effective("grid")
    whole = variants.pop("hir")
    for name, found in variants.items():
        shared = {key: value for key, value in found.items() if key in whole}
        assert differences(shared, whole) == {"algorithm": name}


def grid(**changes):
    config = tiny.get_config()
    config.model.path = str(tiny.folder())
    config.iterations = 1
    config.experiment = ml_collections.ConfigDict(
        {
            "variants": {"hir": {"algorithm": "hir"}, "sft": {"algorithm": "sft"}},
            "tasks": {"boolean": {"data__task": "boolean_expressions"}},
            "seeds": (5,),
        }
    )
    config.experiment.update(changes)
    return config.lock()


def test_cell_config():
    config = experiment.cell_config(grid(), Cell("sft", "boolean", 5))
    assert (config.algorithm, config.data.task, config.seed) == ("sft", "boolean_expressions", 5)
    assert "experiment" not in config


def test_unknown_field_of_a_variant_is_named():
    config = grid(variants={"hir": {"algorithmus": "hir"}})
    with pytest.raises(UserError, match="algorithmus"):
        experiment.cell_config(config, Cell("hir", "boolean", 5))


def test_a_small_grid_runs_and_repeats_itself(tmp_path):
    first = experiment.run(grid(), str(tmp_path))
    records = json.loads((tmp_path / "results.json").read_text())
    assert [record["variant"] for record in records] == ["hir", "sft"]
    assert [record["samples"] > 0 for record in records] == [True, False]
    assert (tmp_path / "table.md").read_text() == first + "\n"
    assert experiment.run(grid(), str(tmp_path)) == first  # from the finished cells
