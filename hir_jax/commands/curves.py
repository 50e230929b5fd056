"""The figure of a grid: what its variants learn from the samples that they draw."""

import io
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from hir_jax.commands.comparison import Comparison, Results
from hir_jax.run import metrics, workdirs

ACROSS = 6  # tasks beside one another; more stand below


def figure(results: Results, file: pathlib.Path) -> None:
    """Accuracy and gap on the development questions against samples drawn; the mean over seeds.

    A variant that draws no samples is a dashed line at the height where it ended.
    """
    import matplotlib  # here, since only this needs it and it is slow to import

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = Comparison(results)
    tasks = found.tasks
    across = min(len(tasks), ACROSS)
    down = -(-len(tasks) // across)
    fig, axes = pyplot.subplots(
        2 * down,
        across,
        figsize=(4.2 * across, 6 * down + 0.6),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    colors = pyplot.get_cmap("tab10" if len(found.variants) <= 10 else "tab20").colors
    # Of each task the axes of accuracy and of the gap below it.
    places = axes.reshape(down, 2, across).swapaxes(1, 2).reshape(-1, 2)
    for unused in places[len(tasks) :].flat:
        unused.remove()
    places = places[: len(tasks)]
    for (upper, lower), task in zip(places, tasks, strict=True):
        upper.sharex(lower)
        upper.tick_params(labelbottom=False)
        for color, variant in zip(itertools.cycle(colors), found.variants, strict=False):
            curves = [result.curve for result in found.of(variant, task).values()]
            if not curves:
                continue
            length = min(map(len, curves))
            drawn, *quantities = np.array([curve[:length] for curve in curves]).transpose(2, 0, 1)
            for axis, values in zip((upper, lower), quantities, strict=True):
                label = metrics.format_label(variant)
                _curve(axis, drawn[0], 100 * values, color=color, label=label)
        upper.set(title=metrics.format_label(task), ylim=(0, 102))
        lower.set(xlabel="samples drawn")
    for upper, lower in places[::across]:
        upper.set_ylabel("asked correct: accuracy, %")
        lower.set_ylabel("gap, points")
    for axis in places.flat:
        axis.grid(alpha=0.3)
    drawn = {label: line for axis in places.flat for line, label in _legend(axis)}
    fig.legend(drawn.values(), drawn, loc="outside lower center", ncols=6, frameon=False)
    picture = io.BytesIO()
    fig.savefig(picture, dpi=150)
    workdirs.write_bytes(file, picture.getvalue(), shared=True)
    pyplot.close(fig)


def _legend(axis: Any) -> Iterator[tuple[Any, str]]:
    return zip(*axis.get_legend_handles_labels(), strict=True)


def _curve(axis: Any, drawn: np.ndarray, values: np.ndarray, color: Any, label: str) -> None:
    mean = values.mean(axis=0)
    if drawn[-1] == 0:
        axis.axhline(mean[-1], linestyle="--", color=color, label=label)
        return
    axis.plot(drawn, mean, marker=".", color=color, label=label)
    axis.fill_between(
        drawn, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0
    )
