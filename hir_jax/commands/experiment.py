"""A grid of runs (variants x tasks x seeds) with one budget, and what came of it.

Every cell is a run in a workdir of its own, named by its content: a grid that was stopped, extended
or changed goes on with the cells that are new. Processes may share a grid, each doing a part.
"""

import fnmatch
import functools
import hashlib
import importlib.util
import itertools
import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import ml_collections
from absl import logging

import hir_jax
from hir_jax.commands import comparison, curves
from hir_jax.commands.policy import load_policy
from hir_jax.commands.results import Cell, Known, read_result, read_results, write_results
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.model import hub
from hir_jax.run import answering, drawing, loop, models, settings, workdirs
from hir_jax.run.asking import Asking
from hir_jax.run.questions import load_questions

# Fields of `config.data` that may name a file.
FILES = ("path", "dev_path", "test_path")
# What the names of a model's files end with, its tokenizer's among them.
OF_MODELS = (".json", ".safetensors", ".bin", ".model", ".txt")


class Planned(NamedTuple):
    """A cell, its run's config, the digest of what it is made of, and where it lives."""

    cell: Cell
    config: ml_collections.ConfigDict
    content: str
    folder: pathlib.Path

    @property
    def ended(self) -> bool:
        """Whether the run has ended in its folder."""
        return (self.folder / "eval.json").exists()


def run(config: ml_collections.ConfigDict, workdir: str) -> str:
    """Runs the cells of this process's part; writes results.json, table.md and accuracy.png of all
    cells that are done; gives the table.

    What results.json holds already counts as done, without the runs' own folders.

    Raises:
        UserError: a cell's config is at fault, or a cell came to nothing; the others are done then.
        Interrupted: a signal asked to stop; the same call goes on.
    """
    _check(config)
    root = pathlib.Path(workdirs.absolute(workdir, "--workdir"))
    planned = plan(config, root)
    file = root / "results.json"
    known = read_results(file)
    number, parts = config.experiment.get("part", (1, 1))
    mine = [
        each
        for each in chosen(config, planned)[number - 1 :: parts]
        if not each.ended and (each.cell, each.content) not in known
    ]
    for each in mine:  # all of them before the first takes its hours
        _check_cell(config, each)
    faults: list[tuple[Planned, UserError]] = []
    for i, each in enumerate(mine, 1):
        if each.ended:  # by another process, meanwhile
            continue
        logging.info("cell %d of %d: %s", i, len(mine), each.cell)
        try:
            loop.run(each.config, str(each.folder))
        except UserError as e:  # such as a loss that is not finite: no fault of the other cells
            logging.error("cell %d of %d: %s came to nothing: %s", i, len(mine), each.cell, e)
            faults.append((each, e))
            continue
        if not config.experiment.get("keep_checkpoints", True):
            shutil.rmtree(workdirs.checkpoint_folder(str(each.folder)))
    text = _write(config, planned, root)
    # What another process was at work on may have ended since.
    failed = {each.cell: fault for each, fault in faults if not each.ended}
    if failed:
        raise UserError(
            f"{len(failed)} of {len(mine)} cells came to nothing: {', '.join(map(str, failed))}. "
            f"The others are done, in {root}, and the same command tries these again. The first: "
            f"{next(iter(failed.values()))}"
        )
    return text


def _write(
    config: ml_collections.ConfigDict, planned: Sequence[Planned], root: pathlib.Path
) -> str:
    """results.json, table.md and accuracy.png of the cells that are done; gives the table."""
    file = root / "results.json"
    known = _known(file, planned)
    wanted = [(each.cell, each.content) for each in planned]
    results = {key[0]: known[key] for key in wanted if key in known}
    if not results:
        return "No cell is done yet."
    write_results(file, known)  # at once: pass rates take minutes, in which another may write
    text = comparison.tables(
        results,
        first=config.experiment.get("first"),
        planned=[each.cell for each in planned],
        passes=pass_rates(config, [each for each in planned if each.cell in results], root),
        published=config.experiment.get("published"),
        note=config.experiment.get("note", ""),
    )
    workdirs.write_text(root / "table.md", text + "\n", shared=True)
    curves.figure(results, root / "accuracy.png")
    if known.keys() != _known(file, planned).keys():  # another process wrote at the same time
        return _write(config, planned, root)
    return text


def _known(file: pathlib.Path, planned: Sequence[Planned]) -> Known:
    """What any process has written, and what has ended in the folders."""
    ended = {(each.cell, each.content): read_result(each.folder) for each in planned if each.ended}
    return read_results(file) | ended


def _check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError with all that is wrong with the grid itself."""
    if "experiment" not in config:
        raise UserError(
            "--mode=experiment: expected a config with a section `experiment`, such as "
            "--config=configs/study.py:methods; found none."
        )
    asked = config.experiment
    variants, tasks, only = asked.variants, asked.tasks, asked.get("only", {})
    faults = [
        f"{name}: expected some, found none"
        for name in ("variants", "tasks", "seeds")
        if not asked[name]
    ]

    def expect(name: str, given: Iterable[str], known: Iterable[str]) -> None:
        if unknown := sorted(set(given) - set(known)):
            faults.append(f"{name}: expected some of {', '.join(known)}; found {unknown[0]!r}")

    expect("first", {asked.get("first")} - {None}, variants)
    expect("only", only, variants)
    expect("only", itertools.chain(*only.values()), tasks)
    expect("published", asked.get("published", {}), tasks)
    number, parts = asked.get("part", (1, 1))
    if not 1 <= number <= parts:
        faults.append(f"part: expected (1, {parts}) to ({parts}, {parts}); found {number, parts}")
    if faults:
        raise UserError("Faulty config.experiment:\n  " + "\n  ".join(faults))


def _check_cell(config: ml_collections.ConfigDict, planned: Planned) -> None:
    """Raises UserError with what is wrong with a cell's config, fields of its variant that its
    method does not read among it. Those of a task are for all variants."""
    cell, own = planned.cell, config.experiment.variants[planned.cell.variant]
    try:
        settings.check_given(planned.config, [_field(name) for name in own])
    except UserError as e:
        raise UserError(f"config.experiment: {cell.task} with {cell.variant}: {e}") from e


def plan(config: ml_collections.ConfigDict, root: pathlib.Path) -> list[Planned]:
    """All cells with their configs and folders."""

    def planned(cell: Cell) -> Planned:
        made = cell_config(config, cell)
        digest = content(made)
        folder = root / cell.variant / cell.task / f"{cell.seed}-{digest}"
        return Planned(cell, made, digest, folder)

    return [planned(cell) for cell in grid(config)]


def chosen(config: ml_collections.ConfigDict, planned: Sequence[Planned]) -> list[Planned]:
    """Those that `experiment.cells` names: VARIANT/TASK/SEED, with * for anything; several patterns
    have commas between, which names may have too.

    Raises:
        UserError: a pattern names none.
    """
    names = [str(each.cell) for each in planned]
    found: set[str] = set()
    left = ""
    for part in config.experiment.get("cells", "*").split(","):
        left = f"{left},{part}" if left else part.strip()
        if named := fnmatch.filter(names, left.rstrip()):
            found.update(named)
            left = ""
    if left or not found:
        raise UserError(
            f"config.experiment.cells: expected VARIANT/TASK/SEED of some of the {len(names)} "
            f"cells such as {names[0]}, with * for anything; found {left!r}."
        )
    return [each for each, name in zip(planned, names, strict=True) if name in found]


def grid(config: ml_collections.ConfigDict) -> list[Cell]:
    """All cells, a seed of every variant and task before the next seed.

    A variant that `experiment.only` names has the tasks that it says there, and no others.
    """
    asked = config.experiment
    only = asked.get("only", {})
    return [
        Cell(variant, task, seed)
        for seed in asked.seeds
        for task in asked.tasks
        for variant in asked.variants
        if task in only.get(variant, asked.tasks)
    ]


def cell_config(config: ml_collections.ConfigDict, cell: Cell) -> ml_collections.ConfigDict:
    """The config of one run: the grid's, changed by the cell's task, variant and seed."""
    asked = config.experiment
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        del changed.experiment
    changes = asked.tasks[cell.task].to_dict() | asked.variants[cell.variant].to_dict()
    changes = {_field(name): value for name, value in changes.items()}
    try:
        changed.update_from_flattened_dict(changes | {"seed": cell.seed})
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"config.experiment: {cell.task} with {cell.variant}: {e}") from e
    return changed


def _field(name: str) -> str:
    """A config's name of what a grid calls "data__task"."""
    return name.replace("__", ".")


def content(config: ml_collections.ConfigDict) -> str:
    """A short digest of a run's settings, of the files that it reads and of hir_jax's version.

    Settings that change nothing of what a run computes do not count. Data and models that are
    downloaded, and BIG-bench's own folder, count by their names alone.
    """
    digests = [_digest(file, file.stat().st_mtime_ns) for file in _files(config)]
    fields = workdirs.flatten(json.loads(config.to_json_best_effort()))
    counted = {k: v for k, v in fields.items() if not k.startswith(workdirs.SILENT)}
    read = [hir_jax.__version__, sorted(counted.items()), digests]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()[:8]


def _files(config: ml_collections.ConfigDict) -> Iterator[pathlib.Path]:
    if folder := hub.local(config.model.path):
        yield from _of_model(folder)
    for path in (_path(config.data[name]) for name in FILES if config.data[name]):
        yield from sorted(path.glob("*.json")) if path.is_dir() else [path]  # of bbh a folder
    method, colon, _ = config.algorithm.partition(":")
    own = [method if colon else "", *map(verify.module_of, verify.names(config.verifier))]
    for module in filter(None, own):  # the user's
        spec = importlib.util.find_spec(module)
        if spec and spec.origin:
            yield pathlib.Path(spec.origin)
    if config.lora.rank and config.lora.path:
        yield from _of_model(_path(config.lora.path))
    outputs = {config.sample.among, config.evaluate.among} - {"", answering.OPTIONS}
    yield from map(_path, sorted(outputs))


def _path(name: str) -> pathlib.Path:
    return pathlib.Path(name).expanduser()


def _of_model(folder: pathlib.Path) -> list[pathlib.Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(file for file in files if file.suffix in OF_MODELS)


@functools.cache
def _digest(file: pathlib.Path, unused_changed: int) -> str:
    if not file.is_file():
        return ""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def pass_rates(
    config: ml_collections.ConfigDict, planned: Sequence[Planned], root: pathlib.Path
) -> dict[str, list[float]]:
    """Of each task the share of right samples that the starting model draws for each test question,
    of `experiment.pass_samples`; nothing where that is 0. Kept in `root`, by content."""
    samples = config.experiment.get("pass_samples", 0)
    if not samples:
        return {}
    found = {}
    for each in planned:
        if each.cell.task in found:
            continue
        made = each.config.copy_and_resolve_references()
        made.update({"seed": 0, "algorithm": "hir"})  # the same for all variants and seeds
        made.sample.update(samples=samples, guidance=0.0, among="")
        file = root / "pass_rates" / f"{each.cell.task}-{content(made)}.json"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            workdirs.write_json(file, _pass_rates(made), shared=True)
        found[each.cell.task] = json.loads(file.read_text())
    return found


def _pass_rates(config: ml_collections.ConfigDict) -> list[float]:
    model, _ = load_policy(config, None)  # with the adapters that runs begin with, if any
    questions = load_questions(config, model.codec)
    sampler = models.make_sampler(config, model, questions.buckets.source)
    count = config.sample.samples
    asking = Asking(config, sampler, model.params, questions, questions.splits.test)
    samples = drawing.draw_from(asking, samples=count, iteration=0, title="the starting model")
    right = [sample.correct for sample in samples]
    return [sum(right[i : i + count]) / count for i in range(0, len(right), count)]
