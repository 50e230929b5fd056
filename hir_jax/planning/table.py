"""A plan as text: memory by kind, work, collectives, time."""

import jax
import ml_collections
import tabulate
from jax.sharding import Mesh

from hir_jax.devices import hardware, sharding
from hir_jax.devices.hardware import GB, Kind
from hir_jax.model import lora, t5
from hir_jax.model.config import T5Config
from hir_jax.planning import aot, hlo
from hir_jax.run import adapters, models


def head(config: ml_collections.ConfigDict, shape: T5Config, kind: Kind, devices: int) -> str:
    """What is planned, in three lines."""
    params = jax.eval_shape(lambda: t5.init_params(shape, jax.random.key(0)))
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


def mesh_name(mesh: Mesh) -> str:
    """Such as "data=2 fsdp=8 tensor=1"."""
    return " ".join(f"{axis}={mesh.shape[axis]}" for axis in sharding.AXES)


def mesh_flags(mesh: Mesh) -> str:
    """The flags that ask for it."""
    return " ".join(f"--config.mesh.{axis}={mesh.shape[axis]}" for axis in sharding.AXES)


def mesh(
    config: ml_collections.ConfigDict,
    model: models.Model,
    kind: Kind,
    made: dict[str, aot.Compiled],
) -> str:
    """All tables of one mesh."""
    columns: dict[str, hlo.Cost] = {}
    for name, compiled in made.items():
        if compiled.program:
            columns |= _columns(name, compiled.program)
    parts = [mesh_name(model.mesh), memory_table(made, kind)]
    for name, compiled in made.items():
        what = f" ({compiled.notes})" if compiled.notes else ""
        parts.append(f"{name}{what}: compiled in {compiled.seconds:.0f} s")
        if compiled.fault:
            parts[-1] = f"{name}{what}: {compiled.fault} (after {compiled.seconds:.0f} s)"
    if columns:
        parts.append(work_table(columns, _rooflines(config, model, kind, made), kind))
        parts.append("\n".join(_notes(model.mesh, made, kind)))
    return "\n\n".join(parts)


def memory_table(made: dict[str, aot.Compiled], kind: Kind) -> str:
    """GB on one device by kind of memory."""
    kinds = list(dict.fromkeys(key for compiled in made.values() for key in compiled.memory))
    rows = [[key, *(_gb(compiled.memory.get(key)) for compiled in made.values())] for key in kinds]
    rows.append(["total", *(_total(compiled) for compiled in made.values())])
    rows.append(["of", *(_gb(kind.memory) for _ in made)])
    rows.append(["fits", *("yes" if c.fits(kind) else "NO" for c in made.values())])
    return _table(rows, ["GB a device", *made])


def work_table(columns: dict[str, hlo.Cost], rooflines: dict[str, float], kind: Kind) -> str:
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
    return _table(rows, ["of one device", *columns])


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


def _rooflines(
    config: ml_collections.ConfigDict,
    model: models.Model,
    kind: Kind,
    made: dict[str, aot.Compiled],
) -> dict[str, float]:
    """Seconds that no program of this kind can do without, whatever the compiler does."""
    if not kind.flops:
        return {}
    limits = {}
    if (training := made.get("training")) and training.program:
        trained = ("parameters", "adapters", "optimizer state")  # read and written
        kept = sum(training.memory.get(name, 0.0) for name in trained)
        kept += training.memory.get("frozen model", 0.0) / 2
        work = training.program.cost.flops / kind.flops
        limits["a training step"] = max(work, 2 * kept / kind.bandwidth)
    sampling = made.get("sampling")
    step = sampling.program.loop(aot.DECODING) if sampling and sampling.program else None
    if step:
        copy = aot.policy_copy(config, model)
        head = copy["shared" if model.config.tie_lm_head else "lm_head"]
        read = sharding.device_bytes((copy["decoder"], head)) + sampling.memory["caches"]
        limits["a decode step"] = max(step.turn.flops / kind.flops, read / kind.bandwidth)
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


def _moved(cost: hlo.Cost, kind: str) -> str:
    found = next((c for c in cost.collectives if c.kind == kind), None)
    return f"{found.bytes / GB:,.3f} ({found.count:,})" if found else ""


def _total(compiled: aot.Compiled) -> str:
    return f"{'over ' if compiled.fault else ''}{_gb(compiled.total)}"


def _gb(size: float | None) -> str:
    return "" if size is None else f"{size / GB:,.2f}"


def _table(rows: list[list[str]], headers: list[str]) -> str:
    align = ("left", *("right" for _ in headers[1:]))
    return tabulate.tabulate(
        rows, headers=headers, tablefmt="github", colalign=align, disable_numparse=True
    )
