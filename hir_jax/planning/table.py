"""A plan as text: memory by kind, work, collectives, time; of a search a line for each way."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import tabulate
from jax.sharding import Mesh

from hir_jax.devices import hardware, sharding
from hir_jax.devices.hardware import GB, Kind
from hir_jax.model import lora, t5
from hir_jax.model.config import T5Config
from hir_jax.planning import aot, hlo, iteration
from hir_jax.planning.iteration import Work
from hir_jax.planning.search import Candidate
from hir_jax.run import adapters

HEADERS_OF_SEARCH = (
    *("data x fsdp x tensor", "parts", "remat", "rows", "training, GB", "sampling, GB"),
    *("s an iteration", "$ an iteration", "fits"),
)


def head(config: ml_collections.ConfigDict, shape: T5Config, kind: Kind, devices: int) -> str:
    """What is planned, in three lines."""
    params = t5.abstract_params(shape)
    count = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e9
    train, sample = config.train, config.sample
    source, target = aot.lengths(config)
    trained = ""
    if wanted := adapters.asked(config):
        own = sum(leaf.size for leaf in jax.tree.leaves(lora.abstract(wanted, shape)))
        trained = f"{own / 1e6:,.1f} million of adapters beside {config.lora.base_dtype} weights, "
    parts = f" in {train.accumulation} parts" if train.accumulation else ""
    return "\n".join(
        (
            f"{config.model.path}: {count:.2f} billion parameters, on {devices} x {kind.name} of "
            f"{kind.memory / GB:.1f} GB; source {source}, target {target} tokens.",
            f"Training: {trained}{train.batch_size} examples{parts}, "
            f"{train.optimizer}, computed in {config.model.dtype}.",
            f"Sampling: {sample.samples} outputs a question, decoded in "
            f"{sample.dtype or config.model.dtype}; what training keeps stays in memory.",
        )
    )


def sizes_name(sizes: Mapping[str, int]) -> str:
    """The sizes of a mesh's axes, such as "data=2 fsdp=8 tensor=1"."""
    return " ".join(f"{axis}={sizes[axis]}" for axis in sharding.AXES)


# Of a mesh --------------------------------------------------------------------------------------


def of_mesh(mesh: Mesh, kind: Kind, made: dict[str, aot.Compiled]) -> str:
    """All tables of one mesh."""
    columns: dict[str, hlo.Cost] = {}
    for name, compiled in made.items():
        if compiled.program:
            columns |= _columns(name, compiled.program)
    parts = [sizes_name(mesh.shape), _memory_table(made, kind)]
    for name, compiled in made.items():
        notes = compiled.notes if name == "sampling" else _in_parts(compiled.parts)
        what = f" ({notes})" if notes else ""
        parts.append(f"{name}{what}: compiled in {compiled.seconds:.0f} s")
        if compiled.fault:
            parts[-1] = f"{name}{what}: {compiled.fault} (after {compiled.seconds:.0f} s)"
    if columns:
        parts.append(_work_table(columns, _rooflines(kind, made), kind))
        parts.append("\n".join(_notes(mesh, made, kind)))
    return "\n\n".join(parts)


def _memory_table(made: dict[str, aot.Compiled], kind: Kind) -> str:
    """GB on one device by kind of memory."""
    kinds = list(dict.fromkeys(key for compiled in made.values() for key in compiled.memory))
    rows = [[key, *(_gb(compiled.memory.get(key)) for compiled in made.values())] for key in kinds]
    rows.append(["total", *(total(compiled) for compiled in made.values())])
    rows.append(["of", *(_gb(kind.memory) for _ in made)])
    rows.append(["fits", *("yes" if c.fits(kind.memory) else "NO" for c in made.values())])
    return of(rows, ["GB a device", *made])


def _work_table(columns: dict[str, hlo.Cost], rooflines: dict[str, float], kind: Kind) -> str:
    """FLOPs, collectives and time of one device."""
    kinds = sorted({c.kind for cost in columns.values() for c in cost.collectives})
    rows = [["GFLOP", *(f"{cost.flops / 1e9:,.1f}" for cost in columns.values())]]
    rows.append(["kernels", *(f"{cost.kernels:,}" for cost in columns.values())])
    for name in kinds:
        rows.append([f"{name}, GB (count)", *(_moved(c, name) for c in columns.values())])
    if kind.clock:
        cycles = [cost.cycles / kind.clock * 1e3 for cost in columns.values()]
        rows.append(["compiler's estimate, ms", *(f"{ms:,.2f}" for ms in cycles)])
    if kind.flops:
        limits = (rooflines.get(name) for name in columns)
        rows.append(["roofline, ms", *("" if s is None else f"{s * 1e3:,.2f}" for s in limits)])
    return of(rows, ["of one device", *columns])


def _columns(name: str, program: hlo.Program) -> dict[str, hlo.Cost]:
    if name == "training":
        # It has none of unknown length today; one that comes must not be missed.
        inner = {f"a turn of loop {i}": loop.turn for i, loop in enumerate(program.loops)}
        return {"a training step": program.cost} | inner
    found = {"a decode step": aot.DECODING, "encoding": aot.ENCODING, "filling": aot.FILLING}
    loops = {column: program.loop(scope) for column, scope in found.items()}
    return {column: loop.turn for column, loop in loops.items() if loop} | {
        "rest of a pool": program.cost
    }


def _rooflines(kind: Kind, made: dict[str, aot.Compiled]) -> dict[str, float]:
    """Seconds that no program of this kind can do without, whatever the compiler does."""
    if not kind.flops:
        return {}
    limits = {}
    if (step := made.get("training")) and step.program:
        read = iteration.step_bytes(step)
        limits["a training step"] = iteration.roofline(step.program.cost, kind, read)
    pool = made.get("sampling")
    loop = pool.program.loop(aot.DECODING) if pool and pool.program else None
    if loop:
        limits["a decode step"] = iteration.roofline(loop.turn, kind, iteration.decode_bytes(pool))
    return limits


def _notes(mesh: Mesh, made: dict[str, aot.Compiled], kind: Kind) -> list[str]:
    notes = [
        "Collectives: what goes in or comes out on one device, whichever is more. FLOPs: of matrix "
        "products. A loop counts as often as it turns. In sampling that depends on the outputs, so "
        "one turn is given: a token for every row, some questions encoded, or the keys and values "
        "of some questions put into the cache."
    ]
    if kind.clock:
        notes.append(
            "Compiler's estimate: the cycles that it expects its kernels to take; collectives are "
            "not in it."
        )
    if kind.flops:
        notes.append(
            "Roofline (ours, not the compiler's): FLOPs at the device's peak, or weights and state "
            "through its memory once, whichever takes longer; no program can be faster."
        )
    else:
        notes.append(f"No estimate of time: the peak of {kind.name!r} is not known.")
    if mesh.devices.flat[0].platform == "gpu":
        notes.append(
            "Memory and kernels are what the compiler made without a GPU at hand: with one it "
            "tries several kernels for each product. Of a GPU's memory JAX takes "
            f"{hardware.JAX_TAKES:.0%}, or as much as XLA_PYTHON_CLIENT_MEM_FRACTION says."
        )
    for name, compiled in made.items():
        if compiled.program and compiled.accessed:
            notes.append(
                f"Bytes accessed in {name}, by the compiler's own analysis, which counts each loop "
                f"once: {compiled.accessed / GB:,.1f} GB."
            )
    return notes


def _in_parts(parts: int) -> str:
    return f"a batch in {parts} part{'s' if parts > 1 else ''}" if parts else ""


def _moved(cost: hlo.Cost, kind: str) -> str:
    found = next((c for c in cost.collectives if c.kind == kind), None)
    return f"{found.bytes / GB:,.3f} ({found.count:,})" if found else ""


# Of a search ------------------------------------------------------------------------------------


def of_search(found: Sequence[Candidate], kind: Kind, work: Work, dollars: float | None) -> str:
    """A line a candidate, the fastest first, what they are worth, and why others are not compiled.

    `dollars` are those of a second on all devices; None where nobody says.
    """
    made = [each for each in found if each.made]
    made.sort(key=lambda each: (not each.fits, each.seconds or 0))
    parts = []
    if made:
        headers = [name for name in HEADERS_OF_SEARCH if dollars is not None or "$" not in name]
        lines = [_line(each, dollars) for each in made]
        parts += [of(lines, headers), _worth(kind, work)]
    refused = [f"{sizes_name(each.sizes)}: {each.reason}" for each in found if each.reason]
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
        (each.remat or "no") if step else "",
        str(pool.shape.rows) if pool else "",
        total(step) if step else "",
        total(pool) if pool else "",
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


# Cells ------------------------------------------------------------------------------------------


def total(compiled: aot.Compiled) -> str:
    """GB on a device; "over" as much where the compiler ran out of memory."""
    return f"{'over ' if compiled.fault else ''}{_gb(compiled.total)}"


def _gb(size: float | None) -> str:
    return "" if size is None else f"{size / GB:,.2f}"


def of(rows: list[list[str]], headers: list[str]) -> str:
    """Rows under headers; all but the first column to the right."""
    align = ("left", *("right" for _ in headers[1:]))
    return tabulate.tabulate(
        rows, headers=headers, tablefmt="github", colalign=align, disable_numparse=True
    )
