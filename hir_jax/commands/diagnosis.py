"""What `--mode=diagnose` finds, as a page and as JSON."""

import dataclasses
import textwrap
from typing import Any

from hir_jax.commands.advice import Advice
from hir_jax.commands.drawn import Drawn
from hir_jax.commands.pace import Iteration, Pace
from hir_jax.run import evaluation, metrics
from hir_jax.run.evaluation import Evaluation

WIDTH = 100  # columns of a paragraph


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A model on the training questions of a task, before a run.

    Attributes:
        about: what was asked of what, by name.
        greedy: answers to the questions under both instructions.
        drawn: samples of the same questions.
        pace: of this machine.
        iteration: what the run's first iteration takes at that pace.
        advice: what to begin with.
    """

    about: dict[str, Any]
    greedy: Evaluation
    drawn: Drawn
    pace: Pace
    iteration: Iteration
    advice: Advice

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return self.about | {
            "greedy": self.greedy.to_json(),
            "drawn": self.drawn.to_json(),
            "pace": dataclasses.asdict(self.pace),
            "iteration": dataclasses.asdict(self.iteration),
            "advice": dataclasses.asdict(self.advice),
        }

    def page(self) -> str:
        """For people to read."""
        about = "\n".join(f"{k.replace('_', ' ')}: {_shown(v)}" for k, v in self.about.items())
        parts = {
            "Greedy answers": evaluation.table({"greedy": self.greedy}),
            "Samples": self.drawn.tables(),
            "Time": self._time(),
            "Advice": self._advice(),
        }
        return "\n\n".join([about, *(f"{title}\n\n{text}" for title, text in parts.items())])

    def _time(self) -> str:
        pace, work = self.pace, self.iteration
        scored = work.samples if pace.scoring.seconds else 0
        step = (
            "a step, source {}, target {}".format(*pace.lengths) if pace.rows else "nothing to do"
        )
        rows = [
            ("sampling", pace.sampling.seconds, "a sample", work.samples),
            ("scoring", pace.scoring.seconds, "a sample", scored),
            ("training", pace.step.seconds, step, work.steps),
            ("evaluating", pace.sampling.seconds, "an answer, as sampling", round(work.answers)),
        ]
        lines = [
            (name, f"{1000 * each:,.1f} ms {unit}", f"{times:,}", spoken(work.seconds[name]))
            for name, each, unit, times in rows
        ]
        total = sum(work.seconds.values())
        compiled = {"sampling": pace.sampling, "scoring": pace.scoring, "training": pace.step}
        named = ", ".join(f"{k} {spoken(t.compiling)}" for k, t in compiled.items() if t.seconds)
        text = (
            f"About {spoken(total)} for the first iteration of this config; later ones train on "
            "more where samples are kept. An estimate for this machine, as busy as it is now. "
            f"Compiling took besides: {named}; less where the compilation cache has it."
        )
        table = metrics.format_table(("", "measured", "times", "an iteration"), lines)
        return f"{table}\n\n{_filled(text)}"

    def _advice(self) -> str:
        advice = self.advice
        begin = f"Begin with --config.algorithm={advice.algorithm}"
        if advice.samples:
            begin += f" --config.sample.samples={advice.samples}"
        return "\n".join([begin, *(_filled(f"- {reason}") for reason in advice.reasons)])


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  " if text.startswith("-") else "")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def spoken(seconds: float) -> str:
    """ "0.8 s", "42 s", "12 min", "3.4 h"."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.1f} s"
