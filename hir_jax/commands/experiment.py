"""A grid of runs (variants x tasks x seeds) with one budget, and what came of it.

Every cell is a run in a workdir of its own, so a grid that was stopped goes on where it was.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import logging

from hir_jax.errors import UserError
from hir_jax.run import evaluate, loop, metrics, outcome, workdirs
from hir_jax.run.evaluate import Evaluation
from hir_jax.run.outcome import Outcome
from hir_jax.run.statistics import Estimate

BASE, CONSTANT = "base", "best constant"  # the rows of the starting model and of no model


class Cell(NamedTuple):
    """One run of the grid."""

    variant: str
    task: str
    seed: int


class Result(NamedTuple):
    """What a run gave."""

    outcome: Outcome  # on the test questions
    curve: tuple[tuple[int, float, float], ...]  # (samples drawn, accuracy, gap), development


Results = dict[Cell, Result]


def run(config: ml_collections.ConfigDict, workdir: str) -> str:
    """Runs every cell; writes results.json, table.md and accuracy.png; gives the table.

    Raises:
        UserError: a cell's config is at fault.
        Interrupted: a signal asked to stop; the same call goes on.
    """
    root = pathlib.Path(workdir)
    results: Results = {}
    cells = grid(config)
    for number, cell in enumerate(cells, 1):
        logging.info("cell %d of %d: %s", number, len(cells), cell)
        folder = root / cell.variant / cell.task / str(cell.seed)
        loop.run(cell_config(config, cell), str(folder))
        results[cell] = read_result(folder)
    text = table(results, config.experiment.get("first"))
    workdirs.write_json(root / "results.json", [to_json(*item) for item in results.items()])
    (root / "table.md").write_text(text + "\n", encoding="utf-8")
    figure(results, root / "accuracy.png")
    return text


def grid(config: ml_collections.ConfigDict) -> list[Cell]:
    """All cells, a seed of every variant and task before the next seed."""
    settings = config.experiment
    return [
        Cell(variant, task, seed)
        for seed in settings.seeds
        for task in settings.tasks
        for variant in settings.variants
    ]


def cell_config(config: ml_collections.ConfigDict, cell: Cell) -> ml_collections.ConfigDict:
    """The config of one run: the grid's, changed by the cell's task, variant and seed."""
    settings = config.experiment
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        del changed.experiment
    changes = settings.tasks[cell.task].to_dict() | settings.variants[cell.variant].to_dict()
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    try:
        changed.update_from_flattened_dict(changes | {"seed": cell.seed})
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"config.experiment: {cell.task} with {cell.variant}: {e}") from e
    return changed


def read_result(folder: pathlib.Path) -> Result:
    """What a finished run left in its workdir."""
    record = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["phase"] == "evaluate"]
    return Result(
        outcome=Outcome.from_json(record),
        curve=tuple((row["samples_drawn"], row["accuracy"], row["gap"]) for row in rows),
    )


def table(results: Results, first: str | None = None) -> str:
    """Test accuracy and gap of every variant and task, their differences, and what ± and [] are.

    `first` is the variant that the others are compared with; by default the first of all.
    """
    tasks = list(dict.fromkeys(cell.task for cell in results))
    variants = list(dict.fromkeys(cell.variant for cell in results))

    def outcomes(variant: str, task: str) -> list[Outcome]:
        return [r.outcome for c, r in results.items() if (c.variant, c.task) == (variant, task)]

    # Each starting model once: mostly it is the same for all.
    starts = {
        task: list(dict.fromkeys(o.before for v in variants for o in outcomes(v, task)))
        for task in tasks
    }
    rows = [
        (CONSTANT, *(_constants(starts[task]) for task in tasks)),
        (BASE, *(_measures(starts[task]) for task in tasks)),
        *((variant, *(_cell(outcomes(variant, task)) for task in tasks)) for variant in variants),
    ]
    parts = [metrics.format_markdown(("", *tasks), rows), _caption(starts)]
    if len(variants) > 1:
        first = first or variants[0]
        rows = [
            (
                f"{first} - {other}",
                *(_differences(outcomes(first, task), outcomes(other, task)) for task in tasks),
            )
            for other in variants
            if other != first
        ]
        parts += [metrics.format_markdown(("difference", *tasks), rows), DIFFERENCES]
    return "\n\n".join(parts)


DIFFERENCES = (
    "Differences in points of the means over seeds, with 95% intervals over test questions: paired "
    "by question, clustered by story."
)


def _caption(starts: Mapping[str, Sequence[Evaluation]]) -> str:
    def size(evaluation: Evaluation) -> str:
        return f"{evaluation.asked_correct.n} ({len(set(evaluation.stories))})"

    sizes = {task: " or ".join(dict.fromkeys(map(size, found))) for task, found in starts.items()}
    return (
        "Test accuracy in % and gap in points: mean over seeds ± standard deviation over seeds "
        "(what another training run would change), [95% interval of the mean over test questions, "
        "clustered by story] (what other questions would change). Test questions (stories): "
        + ", ".join(f"{task} {text}" for task, text in sizes.items())
        + "."
    )


def _cell(outcomes: Sequence[Outcome]) -> str:
    text = _measures([o.after for o in outcomes])
    failed = sum(not o.beat_the_start for o in outcomes)
    return f"{text}; {outcome.NOTHING}: {failed} of {len(outcomes)}" if failed else text


def _measures(runs: Sequence[Evaluation]) -> str:
    """Accuracy and gap: "89.6 ± 1.3 [84.0, 93.4] (gap 73.5 ± 4.0 [66.0, 79.8])"."""
    found = evaluate.estimate(runs) if evaluate.same_questions(runs) else {}

    def measure(name: str, values: Sequence[float]) -> str:
        text = spread([100 * value for value in values])
        return f"{text} {_interval(found[name])}" if found else text

    accuracy = measure("asked_correct", [run.asked_correct.accuracy for run in runs])
    return f"{accuracy} (gap {measure('gap', [run.gap for run in runs])})"


def _differences(first: Sequence[Outcome], other: Sequence[Outcome]) -> str:
    ours, theirs = [o.after for o in first], [o.after for o in other]
    if not evaluate.same_questions([*ours, *theirs]):
        return "other questions"
    found = evaluate.compare(ours, theirs)
    return f"{evaluate.points(found['asked_correct'])} (gap {evaluate.points(found['gap'])})"


def _constants(runs: Sequence[Evaluation]) -> str:
    return " or ".join(dict.fromkeys(evaluate.constant(run.constant) for run in runs))


def _interval(found: Estimate) -> str:
    return f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation; a single value has none."""
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.1f}"


def figure(results: Results, file: pathlib.Path) -> None:
    """Accuracy and gap on the development questions against samples drawn; the mean over seeds.

    A variant that draws no samples is a dashed line at the height where it ended.
    """
    import matplotlib  # here, since only this needs it and it is slow to import

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = list(dict.fromkeys(cell.task for cell in results))
    fig, axes = pyplot.subplots(
        2, len(tasks), figsize=(4.2 * len(tasks), 6), sharex="col", sharey="row", squeeze=False
    )
    for column, task in enumerate(tasks):
        for color, variant in enumerate(dict.fromkeys(cell.variant for cell in results)):
            curves = [r.curve for c, r in results.items() if (c.variant, c.task) == (variant, task)]
            length = min(map(len, curves))
            drawn, *quantities = np.array([curve[:length] for curve in curves]).transpose(2, 0, 1)
            for axis, values in zip(axes[:, column], quantities, strict=True):
                _curve(axis, drawn[0], 100 * values, color=f"C{color}", label=variant)
        axes[0, column].set(title=task, ylim=(0, 102))
        axes[1, column].set(xlabel="samples drawn")
    axes[0, 0].set_ylabel("asked correct: accuracy, %")
    axes[1, 0].set_ylabel("gap, points")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    axes[0, -1].legend(frameon=False)
    fig.tight_layout()
    fig.savefig(file, dpi=150)
    pyplot.close(fig)


def _curve(axis: Any, drawn: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    mean = values.mean(axis=0)
    if drawn[-1] == 0:
        axis.axhline(mean[-1], linestyle="--", color=color, label=label)
        return
    axis.plot(drawn, mean, marker=".", color=color, label=label)
    axis.fill_between(
        drawn, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0
    )


def to_json(cell: Cell, result: Result) -> Mapping[str, Any]:
    """One record of results.json."""
    return cell._asdict() | result.outcome.to_json() | {"curve": result.curve}
