"""The live view of a run: what it knows, and how that is drawn.

Outputs of a model are untrusted: their control characters are escaped, and no text is ever read as
rich's markup.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hir_jax.devices import compiling
from hir_jax.run.trackers import Told, Tracker, Values, plain

if TYPE_CHECKING:
    from hir_jax.run.terminal import Bar

SAMPLES = 4
HISTORY = 40  # evaluations in a sparkline
BLOCKS = "▁▂▃▄▅▆▇█"
SIGNS = {"right": ("✓", "green"), "wrong": ("✗", "red"), "unreadable": ("?", "yellow")}
ACCURACIES = {"accuracy": "asked correct", "accuracy_asked_wrong": "asked wrong"}


class View(Tracker):
    """What is shown of a run, or of other work, which has no title, accuracies or samples."""

    def __init__(self, title: str = "", history: Sequence[Values] = ()) -> None:
        """`history`: lines of metrics.jsonl that a resumed run has written before."""
        self._title, self._started = title, time.monotonic()
        self._bar: Bar | None = None
        self._told: Sequence[Told] = ()
        self._evaluations = [line for line in history if line.get("phase") == "evaluate"]

    def scalars(self, place: int, step: int, values: Values) -> None:
        """Keeps evaluations."""
        if values.get("phase") == "evaluate":
            self._evaluations.append(values)

    def samples(self, place: int, step: int, told: Sequence[Told]) -> None:
        """Keeps the newest ones, right and wrong ones by turns."""
        self._told = told[:SAMPLES]

    def show(self, bar: "Bar | None") -> None:
        """The work that goes on now."""
        self._bar = bar

    def check(self) -> None:
        """Nothing: a fault of the drawing comes up where the view is told of anything."""

    def draw(self, now: float) -> RenderableType:
        """The whole view; every line of it is cut to the terminal's width."""
        lines: list[RenderableType] = []
        if self._title:
            lines.append(_line((plain(self._title), "bold"), f"  {clock(now - self._started)}"))
        if self._bar is not None:
            lines.append(_progress(self._bar, now))
        if (compilation := compiling.at_work()) is not None:
            since = f" for {now - compilation.started:.0f} s"
            lines.append(_line((compilation.told(since), "yellow")))
        lines += self._accuracies()
        lines += [_sample(told) for told in self._told]
        return Group(*lines)

    def _accuracies(self) -> list[Text]:
        recent = self._evaluations[-HISTORY:]
        lines = []
        for name, label in ACCURACIES.items():
            values = [float(each[name]) for each in recent if name in each]
            if values:
                split = str(recent[-1].get("split", ""))
                where = f"{split}, {label}".removeprefix(", ")
                newest = (f"{values[-1]:6.1%}", "bold")
                lines.append(_line(f"{where:<20}", newest, f"  {sparkline(values)}"))
        return lines


def sparkline(values: Sequence[float]) -> str:
    """A block for each value, from the least of them to the greatest."""
    low, high = min(values), max(values)
    step = (high - low) / (len(BLOCKS) - 1)
    return "".join(BLOCKS[round((value - low) / step) if step else 0] for value in values)


def _progress(bar: "Bar", now: float) -> Table:
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_column(ratio=1)  # what the others leave
    row.add_column(no_wrap=True, overflow="ellipsis")
    drawn = ProgressBar(total=max(bar.total, 1), completed=bar.done)
    row.add_row(Text(plain(bar.description)), drawn, Text(bar.pace(now)))
    return row


def _sample(told: Told) -> Text:
    sign, color = SIGNS[told.verdict]
    question = plain(told.question)
    cut = question if len(question) <= 40 else f"…{question[-39:]}"
    return _line((f" {sign} ", color), (cut, "dim"), "  →  ", plain(told.output))


def _line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def clock(seconds: float) -> str:
    """'0:01:05'."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
