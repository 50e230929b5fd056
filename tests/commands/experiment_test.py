"""Grids: their cells, and that these are run once."""

import dataclasses
import json
import pathlib
import shutil

import jax
import ml_collections
import numpy as np
import pytest

from configs import common, paper, study
from hir_jax.commands import experiment, results
from hir_jax.commands.results import Cell
from hir_jax.errors import UserError
from hir_jax.model import lora, peft
from hir_jax.run import settings, trainers
from tests import tiny
from tests.commands.comparison_test import START
from tests.commands.comparison_test import result as made_result

RESULT = made_result(START, START)


@pytest.mark.parametrize("name", study.GRIDS)
def test_cells_of_the_study_are_sound_and_differ(name):
    config = study.get_config(name)
    experiment._check(config)
    cells = experiment.grid(config)
    made = [experiment.cell_config(config, cell) for cell in cells]
    assert len(set(cells)) == len({each.to_json() for each in made}) == len(cells)
    for each in experiment.plan(config, pathlib.Path()):
        experiment._check_cell(config, each)


def test_tuning_has_other_questions_and_seeds_than_what_it_tunes():
    tuned = {name: study.get_config(name).experiment for name in study.GRIDS}
    tuning = tuned.pop("tuning")
    for each in tuned.values():
        assert not set(each.seeds) & set(tuning.seeds)
    for task in tuning.tasks.values():
        assert task["data__seed"] != study.get_config().data.seed
    assert {len(rates) for rates in study.RATES.values()} == {3}  # as many for everyone


@pytest.mark.parametrize(("name", "count"), [("table2", 96), ("sizes", 96), ("ablation", 24)])
def test_cells_of_the_papers_grids_are_sound_and_differ(name, count):
    config = paper.get_config(name)
    experiment._check(config)
    cells = experiment.grid(config)
    made = [experiment.cell_config(config, cell) for cell in cells]
    assert len(set(cells)) == len({each.to_json() for each in made}) == count
    for planned in experiment.plan(config, pathlib.Path()):
        experiment._check_cell(config, planned)
    for cell, each in zip(cells, made, strict=True):
        assert cell.task.startswith(each.data.task)
        assert each.iterations == 31
    assert set(config.experiment.published) <= set(config.experiment.tasks)


def test_the_papers_protocol_is_its_preset_and_ours_has_our_defaults():
    config = paper.get_config("table2")
    task = "logical_deduction_three_objects"
    theirs, ours = (
        experiment.cell_config(config, Cell("hir", f"{task}-{protocol}", 1))
        for protocol in ("paper", "ours")
    )
    assert theirs == paper.get_config()
    defaults = common.get_config()
    for name in ("data", "replay", "sub_output", "loss", "train", "verifier"):
        expected = defaults[name]
        if name == "data":
            expected.update({"source": "bigbench", "task": task})
        assert ours[name] == expected


def test_each_task_of_the_paper_has_a_buffer_of_its_size():
    config = paper.get_config("table2")
    cell = Cell("hir", "penguins_in_a_table-paper", 1)
    assert experiment.cell_config(config, cell).replay.max_size == 4 * 119  # of 149


def test_sizes_take_the_models_that_are_given_and_split_the_largest():
    config = paper.get_config("sizes")
    config.experiment.models.small = "/models/small"

    def made(size):
        return experiment.cell_config(config, Cell("hir", f"word_sorting-{size}-ours", 1))

    assert made("small").model.path == "/models/small"
    assert made("large").model.path == "google/flan-t5-large"
    largest = made("xl")
    assert (largest.train.optimizer, largest.mesh.fsdp) == ("adafactor", -1)
    assert made("large").train.optimizer == "adamw"


def effective(config):
    """What a shipped grid's variants differ in: of each, the settings that its runs work by."""
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


def test_each_idea_changes_what_its_name_says_and_nothing_else():
    variants = effective(study.get_config("ideas"))
    whole = variants.pop("hir")
    # All that is to be taken away is there.
    parts = ("smoothing", "contrastive_smoothing", "contrastive_weight", "entropy_weight")
    assert all(whole[part] > 0 for part in parts)
    found = {name: differences(each, whole) for name, each in variants.items()}
    of_the_loop = {"5 epochs", "guided by 1", "2e-4"}  # that the method does not see
    assert {name for name, each in found.items() if not each} == of_the_loop
    assert found["no smoothing"] == {"smoothing": 0.0, "contrastive_smoothing": 0.0}
    assert found["no entropy term"] == {"entropy_weight": 0.0}
    assert found["no contrastive term"] == {"contrastive_weight": 0.0}
    assert found["contrast of sums"] == {"score": "sum"}
    assert found["all iterations"] == {"keep_iterations": 0}
    assert found["suffixes"]["sub_output"] == "suffix"


@pytest.mark.parametrize("protocol", ["paper", "ours"])
def test_the_papers_ablation_takes_away_one_part_each(protocol):
    config = paper.get_config("ablation")
    task = f"geometric_shapes-{protocol}"
    config.experiment.tasks = {task: config.experiment.tasks[task]}
    variants = effective(config)
    whole = variants.pop("hir")
    assert whole["sub_output"] == {"paper": "window", "ours": "suffix"}[protocol]
    assert whole["entropy_weight"] == 0.001
    assert whole["smoothing"] == whole["contrastive_smoothing"] == 0.2
    assert {name: differences(found, whole) for name, found in variants.items()} == {
        "no sub-outputs": {"sub_output": "full"},
        "no entropy term": {"entropy_weight": 0.0},
        "no smoothing": {"smoothing": 0.0, "contrastive_smoothing": 0.0},
    }


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


def test_what_another_process_writes_meanwhile_stays(tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    ours = experiment.plan(grid(), tmp_path)[0]
    results.write_results(file, {(ours.cell, ours.content): RESULT})

    def pass_rates(*_):
        known = results.read_results(file)
        results.write_results(file, known | {(ours.cell._replace(variant="theirs"), "x"): RESULT})
        return {}

    monkeypatch.setattr(experiment, "pass_rates", pass_rates)
    experiment.run(grid(cells="hir/*"), str(tmp_path))
    assert {cell.variant for cell, _ in results.read_results(file)} == {"hir", "theirs"}


def test_what_another_process_undoes_at_the_same_moment_is_written_again(tmp_path, monkeypatch):
    planned = experiment.plan(grid(), tmp_path)
    ours, theirs = ((each.cell, each.content) for each in planned)
    end(planned[0].folder)
    file = tmp_path / "results.json"
    monkeypatch.setattr(experiment, "read_result", lambda _: RESULT)
    written = []

    def figure(shown, _):
        written.append([cell.variant for cell in shown])
        if len(written) == 1:
            results.write_results(file, {theirs: RESULT})

    monkeypatch.setattr(experiment.curves, "figure", figure)
    table = experiment.run(grid(cells="hir/*"), str(tmp_path))
    assert written == [["hir"], ["hir", "sft"]]
    assert results.read_results(file).keys() == {ours, theirs}
    assert (tmp_path / "table.md").read_text() == table + "\n"


def test_cells_that_another_process_has_ended_meanwhile_are_done(tmp_path, monkeypatch):
    planned, ran = experiment.plan(grid(), tmp_path), []

    def run(config, unused_folder):
        ran.append(config.algorithm)
        for each in planned:
            end(each.folder)
        raise UserError("another run is at work there")

    monkeypatch.setattr(experiment.loop, "run", run)
    monkeypatch.setattr(experiment, "read_result", lambda _: RESULT)
    experiment.run(grid(), str(tmp_path))
    assert ran == ["hir"]


def end(folder):
    folder.mkdir(parents=True)
    (folder / "eval.json").touch()


def test_cell_config():
    config = experiment.cell_config(grid(), Cell("sft", "boolean", 5))
    assert (config.algorithm, config.data.task, config.seed) == ("sft", "boolean_expressions", 5)
    assert "experiment" not in config


def test_unknown_field_of_a_variant_is_named():
    config = grid(variants={"hir": {"algorithmus": "hir"}})
    with pytest.raises(UserError, match="algorithmus"):
        experiment.cell_config(config, Cell("hir", "boolean", 5))


def test_a_field_that_a_variants_method_does_not_read_is_refused(tmp_path):
    contrast = {"loss__contrastive_weight": 3.0}
    config = grid(
        variants={"hir": {"algorithm": "hir"} | contrast, "sft": contrast | {"algorithm": "sft"}},
        tasks={"boolean": {"data__task": "boolean_expressions", "sample__samples": 2}},
    )
    with pytest.raises(UserError, match=r"boolean with sft: (?s:.)*contrastive_weight: .*'sft'"):
        experiment.run(config, str(tmp_path))
    assert not (tmp_path / "hir").exists()


def test_a_small_grid_runs_once_and_goes_on_with_what_is_new(tmp_path, monkeypatch):
    half = experiment.run(grid(part=(1, 2), pass_samples=2), str(tmp_path))
    assert "hir" in half and "sft" not in half
    first = experiment.run(grid(pass_samples=2, keep_checkpoints=False), str(tmp_path))
    kept = [file.parts[-4] for file in tmp_path.glob("*/*/*/checkpoints")]
    assert kept == ["hir"]  # of the cell that was done before
    records = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert [record["variant"] for record in records] == ["hir", "sft"]
    assert [record["samples"] > 0 for record in records] == [True, False]
    assert all(record["verifier"] for record in records)
    assert all(record["steps"] > 0 and record["seconds"] > 0 for record in records)
    assert (tmp_path / "table.md").read_text() == first + "\n"
    assert "base right in" in first

    ran = []
    monkeypatch.setattr(experiment.loop, "run", lambda config, folder: ran.append(config))
    assert experiment.run(grid(pass_samples=2), str(tmp_path)) == first  # from the finished cells
    assert not ran
    for folder in ("hir", "sft"):  # nor are their folders needed
        shutil.rmtree(tmp_path / folder)
    assert experiment.run(grid(pass_samples=2), str(tmp_path)) == first
    assert not ran
    changed = grid(variants={"sft": {"train__epochs": 3}})
    experiment.run(changed, str(tmp_path))
    assert [(config.algorithm, config.train.epochs) for config in ran] == [("sft", 3)]
    assert experiment.run(grid(pass_samples=2), str(tmp_path)) == first  # nothing was forgotten
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UserError, match=r"results\.json: expected"):
        experiment.run(grid(), str(tmp_path))


def test_a_cell_that_comes_to_nothing_does_not_stop_the_others(tmp_path, monkeypatch):
    ran = []

    def run(config, folder):
        ran.append(config.algorithm)
        if config.algorithm == "hir":
            raise UserError("a loss of nan in step 3")
        shutil.copytree(done, folder)

    made = next(each for each in experiment.plan(grid(), tmp_path) if each.cell.variant == "sft")
    real_run, done = experiment.loop.run, tmp_path / "done"
    real_run(made.config, str(done))
    monkeypatch.setattr(experiment.loop, "run", run)
    for tried in (["hir", "sft"], ["hir"]):  # that which is done is not run again
        with pytest.raises(UserError, match=r"hir/boolean/5.*a loss of nan") as told:
            experiment.run(grid(), str(tmp_path / "grid"))
        assert f"1 of {len(tried)} cells" in str(told.value)
        assert ran == tried
        ran.clear()
        assert "sft" in (tmp_path / "grid" / "table.md").read_text()


def test_a_grid_stays_where_it_is_when_a_verifier_goes_to_another_folder(tmp_path, monkeypatch):
    ran = []

    def run(config, folder):
        ran.append(folder)
        monkeypatch.chdir(tmp_path)

    monkeypatch.setattr(experiment.loop, "run", run)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    experiment.run(grid(), "grid")
    assert len(ran) == 2
    assert all(folder.startswith(str(tmp_path / "here" / "grid")) for folder in ran)


def test_pass_rates_are_of_what_runs_begin_with(tmp_path, monkeypatch):
    made = lora.Lora(2, 32.0, ("all",))
    own = lora.init_params(made, tiny.shape(), jax.random.key(0))
    own = jax.tree.map(lambda x: x + 1, own)
    peft.write(tmp_path, own, made, tiny.shape(), "")
    policies = []

    def draw_from(asking, **unused):
        policies.append(asking.params)
        return []

    monkeypatch.setattr(experiment.drawing, "draw_from", draw_from)
    config = experiment.cell_config(grid(), Cell("hir", "boolean", 5))
    experiment._pass_rates(config)
    config.lora.update({"rank": 2, "path": str(tmp_path)})
    experiment._pass_rates(config)
    model, begun = policies
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), model, begun)
    assert any(jax.tree.leaves(moved))


def test_content_is_of_settings_model_and_data(tmp_path):
    def content(path="", **changes):
        made = experiment.cell_config(grid(**changes), Cell("hir", "boolean", 5))
        with made.unlocked():
            made.data.path = path
        return experiment.content(made)

    file = tmp_path / "questions.jsonl"
    file.write_text("one")
    found = [content(), content(str(file)), content(variants={"hir": {"loss__smoothing": 0.3}})]
    assert len(set(found)) == 3
    file.write_text("other")
    assert content(str(file)) != found[1]
    silent = {"diagnose__samples": 3, "checkpoint__keep": 7, "train__log_every": 1}
    assert content() == content(tasks={"boolean": silent}) == found[0]
    assert content(tasks={"boolean": {"iterations": 7}}) not in found
    model = tmp_path / "model"
    shutil.copytree(tiny.folder(), model)
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    assert content(tasks={"boolean": {"model__path": str(model)}}) not in found


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"lora.rank": 2, "lora.path": "~/given"}, "adapter_model.safetensors"),
        ({"sample.among": "~/given/outputs"}, "outputs"),
        ({"evaluate.among": "~/given/outputs"}, "outputs"),
        ({"data.path": "~/given"}, "task.json"),
        ({"data.test_path": "~/given/task.jsonl"}, "task.jsonl"),
        ({"model.path": "~/given"}, "spiece.model"),
    ],
)
def test_content_is_of_all_that_a_run_reads(tmp_path, monkeypatch, changes, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "given" / name
    file.parent.mkdir()
    (file.parent / "config.json").write_text("{}")
    config = experiment.cell_config(grid(), Cell("hir", "boolean", 5))
    config.update_from_flattened_dict(changes)
    found = set()
    for text in ("one", "other"):
        file.write_text(text)
        found.add(experiment.content(config))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"first": "hri"}, "first: expected some of hir, sft; found 'hri'"),
        ({"only": {"stf": ("boolean",)}}, "only: expected some of hir, sft; found 'stf'"),
        ({"only": {"sft": ("bool",)}}, "only: expected some of boolean; found 'bool'"),
        ({"published": {"bool": {"hir": 1.0}}}, "published: expected some of boolean"),
        ({"part": (0, 2)}, "part: expected (1, 2) to (2, 2); found (0, 2)"),
        ({"part": (3, 2)}, "part: expected (1, 2) to (2, 2); found (3, 2)"),
        ({"seeds": ()}, "seeds: expected some, found none"),
        (
            {"variants": {"hir": {}, "sft": {"loss__smoothing": 2.0}}},
            "boolean with sft: Faulty config:\n  config.loss.smoothing: expected 0 to 1; found 2.0",
        ),
    ],
)
def test_a_faulty_grid_is_refused_before_any_cell_runs(tmp_path, monkeypatch, changes, says):
    monkeypatch.setattr(experiment.loop, "run", lambda *_: pytest.fail("a cell was run"))
    with pytest.raises(UserError) as e:
        experiment.run(grid(**changes), str(tmp_path))
    assert says in str(e.value)


def test_a_config_without_a_grid_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a config with a section `experiment`"):
        experiment.run(tiny.config(), str(tmp_path))


def test_a_variant_may_be_of_some_tasks_only():
    tasks = {"boolean": {}, "sorting": {"data__task": "word_sorting"}}
    cells = experiment.grid(grid(tasks=tasks, only={"sft": ("sorting",)}))
    assert [cell[:2] for cell in cells] == [
        ("hir", "boolean"),
        ("hir", "sorting"),
        ("sft", "sorting"),
    ]


def test_cells_may_be_chosen(tmp_path):
    config = grid(cells="sft/*, */sorting/*", tasks={"boolean": {}, "sorting": {}})
    planned = experiment.plan(config, tmp_path)
    found = [each.cell[:2] for each in experiment.chosen(config, planned)]
    assert found == [("sft", "boolean"), ("hir", "sorting"), ("sft", "sorting")]
    with pytest.raises(UserError, match=r"4 cells such as hir/boolean/5,.*found 'ppo/"):
        experiment.chosen(grid(cells="ppo/*"), planned)
    with pytest.raises(UserError, match="found 'stf/'"):  # though others name some
        experiment.chosen(grid(cells="hir/*, stf/"), planned)


def test_cells_whose_names_have_commas_may_be_chosen(tmp_path):
    config = study.get_config("ideas")
    planned = experiment.plan(config, tmp_path)
    name = "nine tenths right, 2e-4, contrast 1"
    config.experiment.cells = f"hir/sorting/200, {name}/sorting/*,no smoothing/*/200"
    found = {each.cell for each in experiment.chosen(config, planned)}
    assert {Cell("hir", "sorting", 200), Cell(name, "sorting", 200)} < found
    assert {cell.variant for cell in found} == {"hir", name, "no smoothing"}


def test_a_model_that_is_not_here_counts_by_its_name(tmp_path):
    config = grid(tasks={"boolean": {"model__path": "nobody/t5"}})
    assert len(experiment.plan(config, tmp_path)) == 2  # asks no network
