"""The tables that compare a grid's variants on each of its tasks."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hir_jax.commands.results import Cell, Result
from hir_jax.run import evaluation, identity, metrics, outcome, statistics
from hir_jax.run.evaluation import Evaluation
from hir_jax.run.outcome import Outcome
from hir_jax.run.statistics import Estimate

BASE, CONSTANT = "base", "best constant"  # the rows of the starting model and of no model
MISSING = "–"  # of a cell that is not done, or is none of the grid's
OTHERS = "other questions"  # where there is nothing to compare with

Results = Mapping[Cell, Result]


class Band(NamedTuple):
    """Questions by how often the starting model's samples are right: from `low` to below `high`."""

    low: float
    high: float
    name: str


BANDS = (
    Band(0.0, 0.2, "below 20%"),
    Band(0.2, 0.6, "20 to 60%"),
    Band(0.6, 1.01, "60% and above"),
)


class Comparison:
    """Results by variant and task, and the tables of them."""

    def __init__(
        self,
        results: Results,
        planned: Sequence[Cell] = (),
        published: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """`planned` are all cells of the grid, those that are not done too; `published` as in
        `tables`."""
        cells = [*planned, *results]
        self.results = results
        self.planned = planned or list(results)
        self.tasks = list(dict.fromkeys(cell.task for cell in cells))
        self.variants = list(dict.fromkeys(cell.variant for cell in cells))
        self.published = published or {}
        self.tall = len(self.tasks) > len(self.variants)
        # Each starting model once: mostly it is the same for all.
        self.starts = {
            task: list(
                dict.fromkeys(
                    run.before for variant in self.variants for run in self.runs(variant, task)
                )
            )
            for task in self.tasks
        }

    def of(self, variant: str, task: str) -> dict[int, Result]:
        """The results of each seed."""
        found = self.results.items()
        return {c.seed: r for c, r in found if (c.variant, c.task) == (variant, task)}

    def runs(self, variant: str, task: str) -> list[Outcome]:
        """The outcomes of the seeds."""
        return [result.outcome for result in self.of(variant, task).values()]

    def table(
        self,
        title: str,
        cell: Callable[[str, str], str],
        *,
        rows: Sequence[str] = (),
        tasks: Sequence[str] = (),
        whole: bool = False,
    ) -> str:
        """A line a variant (or one of `rows`), a column a task (or one of `tasks`); the other way
        about where there are more tasks than variants. Lines without any cell are left out, unless
        `whole`; without any line there is no table."""
        tasks = tasks or self.tasks
        grid = [(title, *tasks)]
        grid += [(row, *(cell(row, task) for task in tasks)) for row in rows or self.variants]
        if self.tall:
            grid = list(zip(*grid, strict=True))
        headers, *lines = grid
        lines = [line for line in lines if whole or set(line[1:]) != {MISSING}]
        return metrics.format_markdown(headers, lines) if lines else ""

    def accuracy(self) -> str:
        """Test accuracy, with the best constant answer and the starting model before; where tasks
        are lines, all of them. What is published of a task stands before it."""
        figures = {f"{task}, published": known for task, known in self.published.items() if known}
        names = [name for task in self.tasks for name in (f"{task}, published", task)]

        def cell(row: str, name: str) -> str:
            if name in figures:
                known = figures[name].get(row)
                return MISSING if known is None else f"{known:.1f}"
            return self._constants(name) if row == CONSTANT else self._mean(row, name)

        return self.table(
            "accuracy, %",
            cell,
            rows=(CONSTANT, BASE, *self.variants),
            tasks=[name for name in names if name in figures or name in self.tasks],
            whole=self.tall,
        )

    def gap(self) -> str:
        """Accuracy under p_correct minus that under p_wrong."""
        return self.table("gap, points", self._gap, rows=(BASE, *self.variants))

    def _evaluations(self, row: str, task: str) -> list[Evaluation]:
        return self.starts[task] if row == BASE else [run.after for run in self.runs(row, task)]

    def _measured(self, row: str, task: str, name: str, value: Callable[..., float]) -> str:
        """The mean of a row."""
        runs = self._evaluations(row, task)
        return _each(row, runs, lambda runs: _measure(runs, name, list(map(value, runs))))

    def _mean(self, row: str, task: str) -> str:
        text = self._measured(row, task, "asked_correct", lambda run: run.asked_correct.accuracy)
        return text + self._notes(row, task)

    def _gap(self, row: str, task: str) -> str:
        return self._measured(row, task, "gap", lambda run: run.gap)

    def _notes(self, variant: str, task: str) -> str:
        done = self.runs(variant, task)
        wanted = sum((cell.variant, cell.task) == (variant, task) for cell in self.planned)
        failed = sum(not run.beat_the_start for run in done)
        notes = f"; {outcome.NOTHING}: {failed} of {len(done)}" if failed else ""
        return notes + (f"; {len(done)} of {wanted} seeds" if 0 < len(done) < wanted else "")

    def _constants(self, task: str) -> str:
        texts = (evaluation.constant(run.constant) for run in self.starts[task])
        return " or ".join(dict.fromkeys(texts)) or MISSING

    def differences(self, first: str) -> str:
        """How far `first` is above each other variant in accuracy."""
        others = [variant for variant in self.variants if variant != first]
        names = {f"{first} - {other}": other for other in others}
        return self.table(
            "difference, points",
            lambda row, task: self._difference(first, names[row], task),
            rows=list(names),
        )

    def _difference(self, first: str, other: str, task: str) -> str:
        ours, theirs = self.of(first, task), self.of(other, task)
        if not ours or not theirs:
            return MISSING
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            return "no common seed"
        sides = [[side[seed] for seed in seeds] for side in (ours, theirs)]
        if not identity.judged_alike(result.verifier for side in sides for result in side):
            return "another verifier"
        runs = [[result.outcome.after for result in side] for side in sides]
        if not evaluation.same_questions([*runs[0], *runs[1]]):
            return OTHERS
        found = evaluation.compare(*runs)["asked_correct"]
        accuracies = [[run.asked_correct.accuracy for run in side] for side in runs]
        text = statistics.points(statistics.with_seeds(found, list(np.subtract(*accuracies))))
        every = len(ours.keys() | theirs.keys())
        return text + (f"; {len(seeds)} of {every} seeds" if len(seeds) < every else "")

    def bands(self, passes: Mapping[str, Sequence[float]]) -> str:
        """Accuracy by how often the starting model is right at a question.

        `passes` are of the questions of each task's first result; of others there is none.
        """
        first: dict[str, str] = {}
        for cell, result in self.results.items():
            first.setdefault(cell.task, result.outcome.after.digest)
        parts = []
        for band in BANDS:

            def cell(row: str, task: str, band: Band = band) -> str:
                every = self._evaluations(row, task)
                runs = [run for run in every if run.digest == first[task]]
                if row != BASE and len(runs) < len(every):
                    return OTHERS
                inside = [band.low <= rate < band.high for rate in passes.get(task, ())]
                if not runs or not any(inside):
                    return MISSING

                def mean(runs: Sequence[Evaluation]) -> str:
                    rights = (np.array(run.asked_correct.right)[inside] for run in runs)
                    return spread([100 * np.mean(right) for right in rights])

                return f"{_each(row, runs, mean)} (n = {sum(inside)})"

            rows = (BASE, *self.variants)
            parts.append(self.table(f"base right in {band.name}", cell, rows=rows))
        return "\n\n".join(parts)

    def course(self) -> str:
        """Accuracy and gap on the development questions at each evaluation, the start's first."""

        def cell(variant: str, task: str) -> str:
            curves = [result.curve for result in self.of(variant, task).values()]
            shown = zip(*curves, strict=False)  # seeds of other lengths: as far as all go
            means = [100 * np.mean(points, axis=0)[1:] for points in shown]
            return ", ".join(f"{accuracy:.0f} ({gap:+.0f})" for accuracy, gap in means) or MISSING

        return self.table("on dev: accuracy (gap)", cell)

    def choices(self) -> str:
        """Accuracy of each way of answering that the runs were asked for, beside greedy answers."""
        chosen = {
            (variant, task): [run.after.choices for run in self.runs(variant, task)]
            for variant in self.variants
            for task in self.tasks
        }
        # A variant whose seeds were not all asked for the same has no line.
        chosen = {place: runs for place, runs in chosen.items() if runs and all(runs)}
        ways = {
            f"{variant}, {way}": (variant, way)
            for (variant, _), runs in chosen.items()
            for way in runs[0].right
        }

        def cell(row: str, task: str) -> str:
            variant, way = ways[row]
            runs = chosen.get((variant, task), ())
            if not runs or any(way not in run.right for run in runs):
                return MISSING
            right = [run.right[way] for run in runs]
            text = spread([100 * np.mean(each) for each in right])
            if not evaluation.same_questions([run.after for run in self.runs(variant, task)]):
                return text
            means = np.mean(right, axis=0)
            return f"{text} {_interval(statistics.accuracy(means, np.array(runs[0].stories)))}"

        return self.table("way of answering, %", cell, rows=list(ways)) if ways else ""

    def costs(self) -> str:
        """What was spent, the mean over seeds."""

        def cell(variant: str, task: str) -> str:
            results = list(self.of(variant, task).values())
            if not results:
                return MISSING
            spent = [(r.outcome.samples, r.steps, r.seconds) for r in results]
            samples, steps, seconds = np.mean(spent, axis=0)
            return f"{samples:,.0f}, {steps:,.0f}, {seconds:.0f}"

        return self.table("samples, steps, seconds", cell)


def tables(
    results: Results,
    first: str | None = None,
    planned: Sequence[Cell] = (),
    passes: Mapping[str, Sequence[float]] | None = None,
    published: Mapping[str, Mapping[str, float]] | None = None,
    note: str = "",
) -> str:
    """All tables of a grid, as Markdown.

    Args:
        results: of the cells that are done.
        first: the variant that the others are compared with; by default the first of all.
        planned: all cells of the grid; by default those that are done.
        passes: of each task the starting model's pass rate at each test question.
        published: of some tasks, by variant, the accuracy that others report, in %.
        note: what is to be said of the tasks.
    """
    found = Comparison(results, planned, published)
    parts = [found.accuracy(), *filter(None, [note]), _caption(found.starts), found.gap()]
    if len(found.variants) > 1 and (text := found.differences(first or found.variants[0])):
        parts += [text, DIFFERENCES]
    if passes:
        parts += [found.bands(passes), PASSES]
    if text := found.choices():
        parts += [text, CHOICES]
    return "\n\n".join([*parts, found.course(), COURSE, found.costs(), COSTS])


DIFFERENCES = (
    "Differences in points of the mean accuracies over the seeds that both have, with 95% "
    "intervals of what other test questions (paired by question, clustered by story) and other "
    "seeds would change; of a single seed, of what other test questions would."
)
PASSES = (
    "Accuracy by how often the starting model's own samples of a test question are right: mean "
    "over seeds ± standard deviation over seeds (number of questions)."
)
CHOICES = (
    "Accuracy of answers chosen among R samples: what most of them come to (majority), the one "
    "that the two instructions part most (reranked), a right one where there is any (any)."
)
COURSE = "Means over seeds on the development questions, at the start and after each iteration."
COSTS = (
    "Means over seeds: samples drawn, optimizer steps, seconds of sampling and training on the "
    "machine at hand, compilation included."
)


def _caption(starts: Mapping[str, Sequence[Evaluation]]) -> str:
    def size(found: Evaluation) -> str:
        return f"{found.asked_correct.n} ({len(set(found.stories))})"

    sizes = {task: " or ".join(dict.fromkeys(map(size, found))) for task, found in starts.items()}
    return (
        "Mean over seeds ± standard deviation over seeds (what another training run would change), "
        "[95% interval of the mean over test questions, clustered by story] (what other questions "
        "would change). Test questions (stories): "
        + ", ".join(f"{task} {text}" for task, text in sizes.items() if text)
        + "."
    )


def _each(row: str, runs: Sequence[Evaluation], mean: Callable[[Sequence[Evaluation]], str]) -> str:
    """The mean of a row's runs; starts that differ, as by another machine, are no seeds of one."""
    texts = [mean([run]) for run in runs] if row == BASE and runs else [mean(runs)]
    return " or ".join(dict.fromkeys(texts))


def _measure(runs: Sequence[Evaluation], name: str, values: Sequence[float]) -> str:
    """ "89.6 ± 1.3 [84.0, 93.4]"; no interval where the questions differ."""
    if not runs:
        return MISSING
    text = spread([100 * value for value in values])
    return (
        f"{text} {_interval(evaluation.estimate(runs)[name])}"
        if evaluation.same_questions(runs)
        else text
    )


def _interval(found: Estimate) -> str:
    return f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation; a single value has none."""
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.1f}"
