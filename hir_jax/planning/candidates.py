"""The table of a search: one line a candidate, the fastest first."""

from collections.abc import Mapping, Sequence
from typing import Any

from hir_jax.devices.hardware import Kind
from hir_jax.planning import table
from hir_jax.planning.iteration import Work
from hir_jax.planning.search import Candidate

HEADERS = (
    *("data x fsdp x tensor", "parts", "remat", "rows", "training, GB", "sampling, GB"),
    *("s an iteration", "$ an iteration", "fits"),
)


def text(found: Sequence[Candidate], kind: Kind, work: Work, dollars: float | None) -> str:
    """All candidates, what they are worth, and why others were not compiled.

    `dollars` are those of a second on all devices; None where nobody says.
    """
    made = [each for each in found if each.made]
    made.sort(key=lambda each: (not each.fits, each.seconds or 0))
    parts = []
    if made:
        headers = [name for name in HEADERS if dollars is not None or "$" not in name]
        lines = [_line(each, dollars) for each in made]
        parts += [table.of(lines, headers), _worth(kind, work)]
    refused = [f"{table.sizes_name(each.sizes)}: {each.reason}" for each in found if each.reason]
    if refused:
        parts.append("\n".join(["Not compiled:", *refused]))
    return "\n\n".join(parts)


def flags(fields: Mapping[str, Any]) -> str:
    """The flags that set these fields of the config."""
    return " ".join(f"--config.{name}={str(value).lower()}" for name, value in fields.items())


def _line(each: Candidate, dollars: float | None) -> list[str]:
    step, pool = each.made.get("training"), each.made.get("sampling")
    seconds = each.seconds
    costs = [] if dollars is None else ["" if seconds is None else f"{seconds * dollars:,.4f}"]
    return [
        " x ".join(map(str, each.sizes.values())),
        str(step.parts) if step else "",
        ("yes" if each.remat else "no") if step else "",
        str(pool.shape.rows) if pool else "",
        table.total(step) if step else "",
        table.total(pool) if pool else "",
        "" if seconds is None else f"{seconds:,.2f}",
        *costs,
        "yes" if each.fits else "NO",
    ]


def _worth(kind: Kind, work: Work) -> str:
    time = "the compiler's estimate of its kernels"
    if not kind.clock:
        time = (
            "our roofline (products at the device's peak, or weights, state and caches through its "
            "memory once; no program can be faster)"
        )
    return (
        f"An iteration: {work.questions:,} questions, {work.samples} outputs to each, all of full "
        f"length; {work.steps:,} training steps, on a buffer that is full and without repeats. "
        "Verdicts, other passes, evaluation and checkpoints are not in it. Time of a program: "
        f"{time}, and collectives at the peak of the links, beside nothing else. GB and time are "
        "extrapolated from models of one and two layers; parts and rows follow from the GB."
    )
