"""The HIR step with a model of one size: seconds, model-FLOP utilisation, memory."""

import hashlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import limits, machine, workloads
from benchmarks.visits import kernels, models
from benchmarks.visits.stages import Note, Visit
from hir_jax.devices import keys, sharding
from hir_jax.model.config import Params
from hir_jax.planning import aot
from hir_jax.run import trainers
from hir_jax.training.state import TrainState

WARM, STEPS = 2, 5


def run(visit: Visit, note: Note) -> None:
    """Some steps, then kernels of one more."""
    size = visit.stage.size
    planned = visit.found("plan").get(f"training {size}", {})
    step, batch = prepared(size, planned.get("accumulation"))
    for _ in range(WARM):
        state = step()
    if size == visit.sizes[0]:
        note(digest=digest(state.params))
    del state  # which the next step takes
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    note(step=measured(visit, batch, statistics.median(seconds)))
    note(peak_memory_gb=machine.peak_memory_gb(), all_seconds=seconds)
    kernels.traced(visit.traces, step)
    note(kernels=kernels.read(visit.traces, 1))


def prepared(size: str, accumulation: int | None) -> tuple[Callable[[], TrainState], Any]:
    """A function that does the next step, and its batch; `accumulation` None: the config's."""
    config = models.config_of(size)
    if accumulation is not None:
        config.train.accumulation = accumulation
    model = models.abstract_model(config, size)
    made = trainers.make_training(config, model)
    buckets = aot.buckets(config)
    lengths = buckets.source[-1], buckets.target[-1]
    vocabulary = model.config.vocab_size
    batch = workloads.random_batch(config.train.batch_size, *lengths, made.layout, vocabulary)
    placed = jax.device_put(batch, sharding.batch_sharding(model.mesh))
    states = [made.init_state(models.random_params(model.params))]

    def step() -> TrainState:
        state, _ = made.step(states.pop(), placed, keys.make(config.seed), None)
        states.append(jax.block_until_ready(state))
        return state

    return step, batch


def measured(visit: Visit, batch: Any, seconds: float) -> dict[str, Any]:
    """What a step comes to, for the page."""
    examples, prompts, source = batch.sources_BxPxS.shape
    target = batch.targets_BxT.shape[-1]
    weights = limits.Weights.of(models.raw_config(visit.stage.size))
    rows = examples * prompts
    flops = weights.step_flops(rows * source, rows * target)
    found = {
        "examples": examples,
        "source": source,
        "target": target,
        "seconds": seconds,
        "examples_per_second": examples / seconds,
        "tflops": flops / seconds / 1e12,
    }
    if peak := limits.peak_flops(machine.dtype()):
        found["model_flop_utilisation"] = flops / peak / seconds
    if rates := visit.found("device").get("rates"):
        found["share_of_product_limit"] = flops / rates["product"] / seconds
    return found


def digest(params: Params) -> str:
    """Of all weights, bit by bit."""
    made = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        made.update(np.ascontiguousarray(leaf))
    return made.hexdigest()[:16]
