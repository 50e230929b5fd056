"""All that a page shows, as JSON: curves, outcomes, comparisons, configs, alarms, samples."""

import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

import hir_jax
from hir_jax.errors import UserError
from hir_jax.hindsight.relabel import Instructions
from hir_jax.report import samples
from hir_jax.report.runs import Run
from hir_jax.run import answering, identity
from hir_jax.run.evaluation import Evaluation, compare, estimate, same_questions
from hir_jax.run.outcome import Outcome
from hir_jax.run.statistics import Estimate
from hir_jax.run.workdirs import Record

PHASES = ("evaluate", "sample", "pairs", "train")
# What it comes to where a workdir's file, whole JSON, says something that no run does.
FAULTS = (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError)
POINTS = 4000  # of a curve at most: of a longer one every second line, or third, ...


def gather(runs: Sequence[Run], most_samples: int) -> Record:
    """What the page's scripts read.

    Args:
        runs: the first is the one that others are compared with at first.
        most_samples: of each run in the page; 0 is all.

    Raises:
        UserError: a file is not as runs write it.
    """
    shared = samples.Shared()
    parts = []
    for run in runs:
        try:
            parts.append(_run(run, samples.gather(run, shared, most_samples)))
        except FAULTS as e:
            raise UserError(
                f"{run.folder}: expected files as a run writes them, found another thing in one of "
                f"them ({type(e).__name__}: {e}). Put it back as it was, or leave out this run."
            ) from e
    return {
        "version": hir_jax.__version__,
        "made": time.time(),
        "runs": parts,
        "comparisons": comparisons(runs),
        "meaning": identity.MEANING,
        **shared.to_json(),
    }


def _run(run: Run, drawn: Record) -> Record:
    return {
        "name": run.name,
        "workdir": str(run.folder),
        "iteration": run.iteration,
        "iterations": run.iterations,
        "finished": run.finished,
        "config": run.config,
        "identity": run.identity,
        "instruction": instruction_text(run.config),
        "answers": answering.said(
            run.config.get("evaluate.among", ""), run.config.get("evaluate.beams", 1)
        ),
        "curves": {phase: curve(run.lines(phase)) for phase in PHASES},
        "timings": timings(run.timings),
        "alarms": alarms(run),
        "outcome": outcome(run.outcome) if run.outcome else None,
        "samples": drawn,
    }


def instruction_text(config: Record) -> str:
    """What a run's samples are drawn under."""
    start = "instruction.facts."
    facts = {k.removeprefix(start): tuple(v) for k, v in config.items() if k.startswith(start)}
    texts = (config.get(f"instruction.{name}", "") for name in ("correct", "wrong"))
    instructions = Instructions(*texts, facts)
    return instructions.text(instructions.wanted)


# Curves -------------------------------------------------------------------------------------------


def curve(lines: Sequence[Record]) -> dict[str, list[float | None]]:
    """Columns of a phase's lines: numbers, None where a line has none or what is not finite."""
    lines = lines[:: max(1, -(-len(lines) // POINTS))]
    names = dict.fromkeys(name for line in lines for name in line if name != "phase")
    columns = {name: [_number(line.get(name)) for line in lines] for name in names}
    return {name: column for name, column in columns.items() if any(v is not None for v in column)}


def _number(value: Any) -> float | None:
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return None
    if type(value) not in (int, float) or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")


def timings(lines: Sequence[Record]) -> list[Record]:
    """Of each phase and iteration the seconds spent, those of a repeated phase added, and its
    newest rates."""
    found: dict[tuple[str, int], Record] = {}
    for line in lines:
        key = (line.get("phase", ""), line.get("iteration", 0))
        before = found.get(key, {"seconds": 0.0})
        rates = {name: value for name, value in line.items() if name.endswith("_per_second")}
        spent = before["seconds"] + line.get("seconds", 0.0)
        found[key] = {"phase": key[0], "iteration": key[1], "seconds": spent, "rates": rates}
    return list(found.values())


def alarms(run: Run) -> list[Record]:
    """Each kind of trouble with where it was first seen, and how often if the run has ended."""
    counts = run.outcome.alarms if run.outcome else {}
    return [
        {
            "kind": line["alarm"],
            "count": counts.get(line["alarm"]),
            "iteration": line["iteration"],
            "step": line["step"],
        }
        for line in run.lines("alarm")
    ]


# Outcomes -----------------------------------------------------------------------------------------


def outcome(found: Outcome) -> Record:
    """The closing table, with intervals as [value, low, high]."""
    return {
        "iterations": found.iterations,
        "samples": found.samples,
        "best_step": found.best_step,
        "best_iteration": found.best_iteration,
        "chosen_on": found.chosen_on,
        "note": found.note().removeprefix("after: "),
        "before": evaluation(found.before),
        "after": evaluation(found.after),
        "change": found.change,
    }


def evaluation(found: Evaluation) -> Record:
    """Figures of an evaluation, without its verdicts."""
    chosen = found.choices.estimates() if found.choices else {}
    return {
        "n": found.asked_correct.n,
        "stories": len(set(found.stories)),
        "unparseable": found.asked_correct.unparseable / found.asked_correct.n,
        "constant": {"text": found.constant.text, "accuracy": found.constant.accuracy},
        **estimate([found]),
        "facts": {name: each.estimates(found.stories) for name, each in found.facts.items()},
        "choices": {
            name: {"accuracy": accuracy, "beside_greedy": beside}
            for name, (accuracy, beside) in chosen.items()
        },
    }


def comparisons(runs: Sequence[Run]) -> list[Record]:
    """How far each run is above each later one on the test questions, paired by question; `why` not
    where they cannot be compared. Runs that have not ended are in none."""
    ended = [(i, run) for i, run in enumerate(runs) if run.outcome]
    return [
        {"runs": (i, j), **_difference(ours, theirs)}
        for (i, ours), (j, theirs) in itertools.combinations(ended, 2)
    ]


def _difference(ours: Run, theirs: Run) -> dict[str, Estimate | str]:
    after = [[run.outcome.after] for run in (ours, theirs)]
    if not same_questions([*after[0], *after[1]]):
        return {"why": "other test questions"}
    if not identity.judged_alike(run.identity.get("verifier") for run in (ours, theirs)):
        return {"why": "another verifier"}
    return compare(*after)
