"""Whether training fits a device's memory, by the compiler's own figures, and in how many parts.

A run and a plan of it ask the same functions, so that they choose the same.
"""

import dataclasses
import functools
import re
import time
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from hir_jax.decoding import programs
from hir_jax.devices import hardware, keys, processes, sharding
from hir_jax.devices.hardware import GB
from hir_jax.errors import UserError
from hir_jax.model import batching, remat, t5
from hir_jax.model.config import Params, T5Config
from hir_jax.run import models, trainers
from hir_jax.run.models import Model
from hir_jax.run.trainers import Training
from hir_jax.training import losses
from hir_jax.training.batch import make_batch

FootprintT = TypeVar("FootprintT", bound="Footprint")


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What of a device's memory is taken while a program runs.

    Attributes:
        memory: bytes by kind.
        fault: the compiler's reason for giving no program; empty where it gave one. The memory is
            what is known of it then.
        seconds: that compiling took.
        parts: of a batch, where it is a training step; 0: see `step.parts_for`.
    """

    memory: dict[str, float]
    fault: str = ""
    seconds: float = 0.0
    parts: int = 1

    @property
    def total(self) -> float:
        """Bytes on one device."""
        return sum(self.memory.values())

    def fits(self, memory: float) -> bool:
        """Whether it compiled and so much memory suffices."""
        return not self.fault and self.total <= memory


@dataclasses.dataclass(frozen=True)
class Measured(Footprint):
    """The same, and what was compiled.

    Attributes:
        program: what the compiler gave.
        training: whose step it is; called, it need not be compiled again.
    """

    program: jax.stages.Compiled | None = None
    training: Training | None = None


def make_training(
    config: ml_collections.ConfigDict,
    model: Model,
    buckets: batching.Buckets,
    known: MutableMapping[str, int],
) -> Training:
    """`trainers.make_training`; where `train.accumulation` is 0, in the fewest parts that fit.

    On a CPU, and on a device that does not tell its memory, 0 stays: see `step.parts_for`.

    Args:
        config: of the run.
        model: may be abstract.
        buckets: that batches are padded to; it is the longest batch that must fit.
        known: parts that were chosen before, by `_circumstances`; they stay, so that a run that
            goes on rounds alike. What is chosen is added.

    Raises:
        UserError: it does not fit with one example of each device in a part; or as there.
    """
    if config.train.accumulation or not chooses_by_memory(model.mesh):
        return trainers.make_training(config, model)
    memory = min(processes.gather(hardware.memory_of(model.mesh.local_devices[0])))
    if not memory:
        return trainers.make_training(config, model)
    name = _circumstances(config, model.mesh)
    if name in known:
        return trainers.make_training(config, model, known[name])
    step = in_parts(config, model, memory, functools.partial(step_in, config, model, buckets))
    if not step.fits(memory):
        raise UserError(does_not_fit(config, model.mesh, step, memory))
    processes.check_same({"the parts of a batch": step.parts})
    known[name] = step.parts
    logging.info(
        "a batch is trained on in %d parts, with which %.1f GB of a device's %.1f are taken",
        step.parts,
        step.total / GB,
        memory / GB,
    )
    return step.training


def chooses_by_memory(mesh: Mesh) -> bool:
    """Whether parts and rows are chosen by a device's memory: not on a CPU."""
    return mesh.devices.flat[0].platform != "cpu"


def _circumstances(config: ml_collections.ConfigDict, mesh: Mesh) -> str:
    """What a run is free to change, and what its parts depend on."""
    train = config.train
    kept = train.remat and train.remat_keeps
    return f"{sharding.mesh_name(mesh)}, remat={kept}, logits_mib={train.logits_mib}"


def in_parts(
    config: ml_collections.ConfigDict,
    model: Model,
    memory: float,
    measure: Callable[[int], FootprintT],
) -> FootprintT:
    """The training step in the fewest parts whose memory suffices, from one on by doubling.

    What a step keeps of a batch shrinks with its parts at best as their number grows: numbers for
    which even that would not suffice are not tried. Where none suffices it is the step that was
    tried last, with one example of each device in a part, if that could do anything.

    Args:
        config: of the run.
        model: may be abstract.
        memory: of a device, in bytes.
        measure: compiles the step in so many parts, or estimates it.
    """
    most = config.train.batch_size // sharding.batch_multiple(model.mesh)
    if trainers.compares_whole_batches(config):
        most = 1
    kept = sum(state_memory(config, model).values())
    parts = 1
    while True:
        step = measure(parts)
        if step.fits(memory) or parts == most or kept >= memory:
            return step
        least = parts * (step.total - kept) / (memory - kept)
        parts = losses.fewest_parts(most, max(2 * parts, least))


def step_in(
    config: ml_collections.ConfigDict, model: Model, buckets: batching.Buckets, parts: int
) -> Measured:
    """Compiles the step for the longest batch in so many parts; 0: see `step.parts_for`."""
    made = trainers.make_training(config, model, parts)
    lengths = buckets.source[-1], buckets.target[-1]
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=sharding.batch_sharding(model.mesh)
        ),
        make_batch([], config.train.batch_size, lengths, made.layout),
    )
    start = model.params if trainers.needs_start(config) else None
    key = jax.eval_shape(lambda: keys.make(0))  # without a place, as the run's own is
    lower = functools.partial(made.step.lower, made.abstract_state(), batch, key, start)
    done = measure(lower, state_memory(config, model), {})
    return dataclasses.replace(done, parts=parts, training=made)


def measure(
    lower: Callable[[], Any], named: dict[str, float], resident: dict[str, float]
) -> Measured:
    """Compiles, and splits the memory: `named` are arguments, `resident` is there besides."""
    started = time.perf_counter()
    lowered = lower()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        memory = resident | named | _asked_for(str(e), sum(named.values()))
        return Measured(memory, _reason(str(e)), time.perf_counter() - started)
    seconds = time.perf_counter() - started
    stats = compiled.memory_analysis()
    memory = resident | named
    memory |= {
        "other arguments": max(0.0, stats.argument_size_in_bytes - sum(named.values())),
        "temporaries": stats.temp_size_in_bytes,
        "outputs": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
    }
    return Measured(memory, seconds=seconds, program=compiled)


def does_not_fit(
    config: ml_collections.ConfigDict, mesh: Mesh, step: Measured, memory: float
) -> str:
    """The sentence for a step that fits in no number of parts."""
    over = "over " if step.fault else ""
    train = config.train
    mends = []
    if trainers.compares_whole_batches(config):
        mends.append("--config.loss.contrastive=pairwise, which may be computed in parts")
    if not train.remat:
        mends.append("--config.train.remat=true")
    elif train.remat_keeps != remat.INPUTS:
        mends.append(f"--config.train.remat_keeps={remat.INPUTS}")
    if train.optimizer != "adafactor" and not config.lora.rank:
        mends.append("--config.train.optimizer=adafactor")
    if not config.lora.rank:
        mends.append("adapters, as with --config.lora.rank=16")
    if mesh.size > mesh.shape["fsdp"] * mesh.shape["tensor"]:
        mends.append("a larger --config.mesh.fsdp or --config.mesh.tensor")
    mends.append("more devices; --mode=plan finds a mesh")
    figures = ", ".join(f"{name} {size / GB:.1f}" for name, size in step.memory.items() if size)
    return (
        f"config.train: expected a training step that fits the {memory / GB:.1f} GB of a device; "
        f"found that {over}{step.total / GB:.1f} GB are needed with a batch of {train.batch_size} "
        f"in {step.parts} parts ({figures}). Try {'; '.join(mends)}."
    )


# Before anything is compiled ----------------------------------------------------------------------


def check_size(config: ml_collections.ConfigDict, model: Model) -> None:
    """Raises UserError where a model can have no room, whatever is compiled; reads no weights."""
    memory = hardware.memory_of(model.mesh.devices.flat[0])
    if memory and (fault := too_large(config, model, memory)):
        raise UserError(
            f"{config.model.path}: expected a model that fits {sharding.mesh_name(model.mesh)}; "
            f"found that {fault}. Split it over more devices by --config.mesh.fsdp or "
            "--config.mesh.tensor (--mode=plan finds a mesh), train adapters (--config.lora.rank) "
            "or with --config.train.optimizer=adafactor, or take a smaller model."
        )


def too_large(config: ml_collections.ConfigDict, model: Model, memory: float) -> str:
    """Why there is no room for what is in memory at least; empty where there may be.

    That is what training keeps, and in sampling the decoding copy.
    """
    least = sum(state_memory(config, model).values())
    copy = policy_copy(config, model)
    if copy is not model.params:
        least += sharding.device_bytes(copy)
    if least <= memory:
        return ""
    return (
        f"parameters, optimizer state and decoding copy alone take {least / GB:.2f} GB of a "
        f"device's {memory / GB:.2f}"
    )


def state_memory(config: ml_collections.ConfigDict, model: Model) -> dict[str, float]:
    """Bytes on one device of what training keeps between steps, by kind."""
    state = trainers.make_training(config, model).abstract_state()
    own, start = sharding.device_bytes(state.params), sharding.device_bytes(model.params)
    kept = {"frozen model": start, "adapters": own} if config.lora.rank else {"parameters": own}
    kept["optimizer state"] = sharding.device_bytes(state.opt_state)
    if trainers.needs_start(config) and not config.lora.rank:
        kept["starting model"] = start
    return kept


def policy_copy(config: ml_collections.ConfigDict, model: Model) -> Params:
    """What a run's policy is decoded from: `decoding_copy` of the model, adapters merged."""
    sampler = models.make_sampler(config, model, (batching.MULTIPLE,))
    merged = bool(config.lora.rank)
    return decoding_copy(model.params, sampler.config, model.mesh, merged)


def decoding_copy(params: Params, config: T5Config, mesh: Mesh, merged: bool = False) -> Params:
    """`programs.decoding_copy` of abstract parameters: `params` itself where it makes no copy.

    Where adapters are `merged` into it, it is a copy always.
    """
    cast = jax.eval_shape(functools.partial(t5.cast_weights, dtype=config.dtype), params)
    places = sharding.tree_shardings(mesh, params, axes=sharding.DECODING_AXES)
    if not merged and programs.decodes_as_is(params, config, places):
        return params
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), cast, places
    )


def _asked_for(message: str, arguments: float) -> dict[str, float]:
    """The temporaries for which memory did not suffice, where the compiler says how large."""
    if found := re.search(r"HLO temporaries \(([\d.]+)G\)", message):
        return {"temporaries": float(found[1]) * 2**30}
    if found := re.search(r"Used ([\d.]+)G of [\d.]+G hbm", message):
        return {"temporaries": max(0.0, float(found[1]) * 2**30 - arguments)}
    return {}


def _reason(message: str) -> str:
    """The line of a compiler's message that says what is missing."""
    found = re.search(r"Used [\d.]+\w+ of [\d.]+\w+ hbm[^\n]*", message)
    if found:
        return f"the compiler ran out of memory: {found[0]}"
    lines = [line for line in message.splitlines() if "emory" in line] or message.splitlines()
    return f"the compiler refused: {lines[0][:300]}"
