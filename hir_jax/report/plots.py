"""The main curves as pictures, for papers and places that show no page."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hir_jax.report.gather import curve
from hir_jax.report.runs import Run
from hir_jax.run import metrics


class Panel(NamedTuple):
    """One diagram: of each run a line a name, the first solid, the others dashed."""

    title: str
    phase: str
    names: tuple[str, ...]
    percent: bool = False


PLOTS: Mapping[str, tuple[Panel, ...]] = {
    "accuracy": (
        Panel("accuracy, %", "evaluate", ("accuracy", "accuracy_asked_wrong"), percent=True),
        Panel("gap, points", "evaluate", ("gap",), percent=True),
    ),
    "samples": (
        Panel("samples that are right, %", "sample", ("correct",), percent=True),
        Panel("reward", "sample", ("reward",)),
        Panel("tokens a sample", "sample", ("tokens_mean",)),
    ),
    "training": (
        Panel("loss", "train", ("loss",)),
        Panel("entropy, nats a token", "train", ("entropy",)),
    ),
}
STYLES = ("-", "--", ":")


def write(runs: Sequence[Run], page: pathlib.Path) -> None:
    """PAGE_accuracy.png and the like beside PAGE.html; of what no run has there is none."""
    from matplotlib.figure import Figure  # here, since it is slow to import

    for name, panels in PLOTS.items():
        panels = [panel for panel in panels if any(_lines(runs, panel))]
        if not panels:
            continue
        # Not by pyplot: no state is shared with what else draws in this process.
        figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
        for axis, panel in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            _draw(axis, runs, panel)
        figure.axes[0].legend(frameon=False)
        figure.savefig(page.with_name(f"{page.stem}_{name}.png"), dpi=150)


def _draw(axis: Any, runs: Sequence[Run], panel: Panel) -> None:
    scale = 100 if panel.percent else 1
    for place, name, columns in _lines(runs, panel):
        number = panel.names.index(name)
        run_name = metrics.format_label(runs[place].name)
        label = run_name if number == 0 else "asked wrong" if place == 0 else None
        style = {"color": f"C{place % 10}", "linestyle": STYLES[number]}
        xs, ys = columns["step"], _scaled(columns[name], scale)
        axis.plot(xs, ys, label=label, marker="." if len(xs) < 40 else None, **style)
        low, high = (_scaled(columns.get(f"{name}_{end}"), scale) for end in ("low", "high"))
        if low:
            axis.fill_between(xs, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axis.set(title=panel.title, xlabel="optimizer steps")
    axis.grid(alpha=0.3)


def _lines(runs: Sequence[Run], panel: Panel) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """(place of the run, name, columns) of each line of a panel."""
    for place, run in enumerate(runs):
        columns = curve(run.lines(panel.phase))
        for name in panel.names:
            if name in columns:
                yield place, name, columns


def _scaled(values: Sequence[float | None] | None, scale: float) -> list[float]:
    return [float("nan") if value is None else scale * value for value in values or ()]
