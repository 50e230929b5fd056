"""Grids: their cells, their table, their figure."""

import json

import ml_collections
import pytest

from configs import experiment as experiment_config
from hir_jax.commands import experiment
from hir_jax.commands.experiment import Cell, Result
from hir_jax.errors import UserError
from hir_jax.run.evaluate import Evaluation, Score
from tests import tiny


def evaluation(correct, asked_wrong=0):
    return Evaluation(Score(correct, 0, 10), Score(asked_wrong, 0, 10), majority=0.2)


def result(before, after, samples=100):
    curve = ((0, before / 10, 0.0), (samples, after / 10, 0.5))
    return Result(evaluation(before, before), evaluation(after), samples, curve)


RESULTS = {
    Cell("sft", "sorting", 0): result(2, 8, samples=0),
    Cell("hir", "sorting", 0): result(2, 6),
    Cell("hir", "sorting", 1): result(4, 8),
}


def test_spread():
    assert experiment.spread([60.0, 80.0]) == "70.0 ± 14.1"  # deviations of 10, over n - 1 = 1
    assert experiment.spread([5.0]) == "5.0 ± 0.0"


def test_table():
    rows = [line.split("|")[1:3] for line in experiment.table(RESULTS).splitlines()]
    cells = {name.strip(): value.strip() for name, value in rows}
    assert cells["sft"] == "80.0 ± 0.0 (gap 80.0 ± 0.0)"
    assert cells["hir"] == "70.0 ± 14.1 (gap 70.0 ± 14.1)"
    assert cells["base"] == "26.7 ± 11.5 (gap 0.0 ± 0.0)"


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
