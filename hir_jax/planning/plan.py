"""Whether a run fits devices that are not here, and what it would cost: `--mode=plan`.

Sampling and training are compiled ahead of time for a mesh of the devices; memory, FLOPs and
collectives are read off what the compiler gives. No weights and no data are needed.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from hir_jax.decoding.trie import Trie
from hir_jax.devices import hardware, sharding
from hir_jax.devices.hardware import Kind
from hir_jax.errors import UserError
from hir_jax.model import hf, shapes, weight_files
from hir_jax.model.config import T5Config
from hir_jax.planning import aot, table
from hir_jax.run import settings, trainers

PROGRAMS = ("training", "sampling")


def run(
    config: ml_collections.ConfigDict,
    topology: str | None = None,
    search: bool = True,
    programs: Sequence[str] = PROGRAMS,
) -> str:
    """The plan, for people to read.

    Args:
        config: of the run that is planned.
        topology: of devices to compile for, such as "v5e:4x4"; None: those that are here.
        search: try meshes until one fits, instead of `config.mesh` alone.
        programs: which of `PROGRAMS` to compile.

    Raises:
        UserError: a topology, mesh, model or setting that cannot be.
    """
    settings.check(config)
    if not programs or not set(programs) <= set(PROGRAMS):
        raise UserError(
            f"--programs: expected one or both of {', '.join(PROGRAMS)}; found {list(programs)}."
        )
    shape = model_shape(config)
    if topology:
        devices, kind = hardware.topology(topology)
    else:
        devices = jax.devices()
        kind = hardware.kind_of(devices[0])
    head = table.head(config, shape, kind, len(devices))
    trie = aot.trie_of(config) if "sampling" in programs else None
    if not search:
        mesh = sharding.make_mesh(config.mesh, devices)
        planned = plan_mesh(config, shape, mesh, kind, programs, trie, every=True)
        return "\n\n".join([head, planned.text])
    parts = [head]
    for sizes in candidates(len(devices), shape):
        try:
            mesh = sharding.make_mesh(sizes, devices)
        except UserError:  # not between slices
            continue
        parts.append(table.mesh_name(mesh))
        reason = cannot_be(config, shape, mesh, kind)
        if reason:
            parts[-1] += f": not compiled, {reason}"
            continue
        planned = plan_mesh(config, shape, mesh, kind, programs, trie, every=False)
        parts[-1] = planned.text
        if planned.fits:
            parts.append(f"The cheapest mesh that fits: {table.mesh_flags(mesh)}")
            return "\n\n".join(parts)
    parts.append(
        "No mesh fits. Give more devices, a smaller --config.train.batch_size or "
        "--config.sample.rows, a larger --config.train.accumulation, --config.train.remat=true, or "
        "--config.train.optimizer=adafactor."
    )
    return "\n\n".join(parts)


@dataclasses.dataclass(frozen=True)
class Planned:
    """What a mesh comes to."""

    text: str
    fits: bool


def plan_mesh(
    config: ml_collections.ConfigDict,
    shape: T5Config,
    mesh: Mesh,
    kind: Kind,
    programs: Sequence[str],
    trie: Trie | None,
    *,
    every: bool,
) -> Planned:
    """Compiles the programs for a mesh; unless `every`, not beyond the first that does not fit."""
    model = aot.abstract_model(config, shape, mesh)
    made: dict[str, aot.Compiled] = {}
    for program in programs:
        logging.info("compiling %s for %s", program, table.mesh_name(mesh))
        made[program] = (
            aot.training(config, model)
            if program == "training"
            else aot.sampling(config, model, kind, trie)
        )
        if not every and not made[program].fits(kind):
            break
    text = table.mesh(config, model, kind, made)
    return Planned(text, all(program.fits(kind) for program in made.values()))


def candidates(devices: int, shape: T5Config) -> Iterator[dict[str, int]]:
    """Meshes from the cheapest communication to the dearest.

    Axis `data` sums gradients once a step; `fsdp` gathers the weights besides; `tensor` sums
    activations in every layer of every step, in decoding too, so more of it comes last.
    """
    for tensor in _divisors(devices):
        if shape.num_heads % tensor or shape.d_ff % tensor or shape.vocab_size % tensor:
            continue
        for fsdp in _divisors(devices // tensor):
            if shape.d_model % fsdp == 0:
                yield {"data": devices // tensor // fsdp, "fsdp": fsdp, "tensor": tensor}


def cannot_be(config: ml_collections.ConfigDict, shape: T5Config, mesh: Mesh, kind: Kind) -> str:
    """Why a mesh is not worth a compilation; empty where it is.

    What is in memory at least: parameters and optimizer state, and in sampling the decoding copy.
    """
    parts = trainers.batch_multiple(config, mesh)
    if config.train.batch_size % parts:
        return (
            f"config.train.batch_size={config.train.batch_size} is no multiple of {parts} "
            "(accumulation x data x fsdp)"
        )
    model = aot.abstract_model(config, shape, mesh)
    least = sum(aot.state_memory(config, model).values())
    copy = aot.policy_copy(config, model)
    if copy is not model.params:
        least += sharding.device_bytes(copy)
    if least <= kind.memory:
        return ""
    return (
        f"parameters, optimizer state and decoding copy alone take {least / hardware.GB:.2f} GB of "
        f"a device's {kind.memory / hardware.GB:.2f}"
    )


def model_shape(config: ml_collections.ConfigDict) -> T5Config:
    """The shape of the model at `config.model.path`, without its weights.

    A folder needs only a config.json. Where it has weights, they decide whether the head is tied;
    without them it is by `tie_word_embeddings`, or else as in T5 v1.0 (tied) and v1.1 (not).

    Raises:
        UserError: no such model, or a config.json that is none of a T5.
    """
    name, dtype = config.model.path, config.model.dtype
    size = name.removeprefix(shapes.HUB_PREFIX)
    folder = pathlib.Path(name).expanduser()
    if not folder.is_dir() and name.startswith(shapes.HUB_PREFIX) and size in shapes.FLAN_T5:
        raw = shapes.flan_t5(size)
    else:
        folder = hf.find(name, config.model.revision, patterns=("config.json",))
        raw = hf.read_raw_config(folder)
        if weight_files.are_there(folder):
            return hf.read_config(folder, dtype)
    gated = str(raw.get("feed_forward_proj", "relu")).startswith("gated-")
    tied = raw.get("tie_word_embeddings", not gated)
    return hf.parse_config(raw, folder, dtype, has_head=not tied)


def _divisors(n: int) -> list[int]:
    return [i for i in range(1, n + 1) if n % i == 0]
