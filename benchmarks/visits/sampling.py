"""The decode engine with a model of one size: speed, share of the roofline, rows at work, memory.

Twice: outputs that are all as long as can be, which is the plain speed of a decode step, and
outputs that end when they end, which shows how many rows are at work.
"""

import dataclasses
import hashlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np

from benchmarks import limits, machine
from benchmarks.visits import kernels, models
from benchmarks.visits.stages import Note, Visit
from hir_jax.decoding.prompt import Output, Prompt
from hir_jax.decoding.sampler import Sampler, Statistics
from hir_jax.devices import keys, sharding
from hir_jax.model.config import Params
from hir_jax.planning import aot
from hir_jax.run.models import make_sampler

EQUAL, ENDING = 2, 8  # outputs, times the rows
REPEATS = 3


def run(visit: Visit, note: Note) -> None:
    """Both workloads, then kernels of one more run of the first."""
    size = visit.stage.size
    config, sampler, params = prepared(size)
    rows = config.sample.rows * sharding.batch_multiple(sampler.mesh)
    equal = dataclasses.replace(sampler, eos_id=(-1,) * len(sampler.eos_id))
    draw = drawing(config, equal, params, EQUAL * rows)
    draw()  # compiles, or loads
    note(equal=measured(visit, config, rows, *timed(draw)))
    note(peak_memory_gb=machine.peak_memory_gb())
    (outputs, cost), seconds = timed(drawing(config, sampler, params, ENDING * rows), 1)
    note(ending=measured(visit, config, rows, (outputs, cost), seconds))
    note(digest=digest(outputs))
    _, cost = kernels.traced(visit.traces, draw)
    # Shards take their steps at the same time.
    steps = cost.steps // sharding.batch_multiple(sampler.mesh)
    note(kernels=kernels.read(visit.traces, steps))


def prepared(size: str) -> tuple[ml_collections.ConfigDict, Sampler, Params]:
    """The config, what samples by it, and the copy that it decodes from."""
    config = models.config_of(size)
    model = models.abstract_model(config, size)
    sampler = make_sampler(config, model, aot.lengths(config)[:1])
    return config, sampler, models.random_params(aot.policy_copy(config, model))


def drawing(
    config: ml_collections.ConfigDict, sampler: Sampler, params: Params, outputs: int
) -> Callable[[], tuple[list[list[Output]], Statistics]]:
    """Draws so many outputs to random prompts of full length."""
    rng = np.random.default_rng(0)
    (length,), samples = sampler.buckets, config.sample.samples
    tokens = rng.integers(3, sampler.config.vocab_size, (-(-outputs // samples), length))
    prompts = [Prompt(tuple(row), i) for i, row in enumerate(tokens.tolist())]
    key = keys.make(config.seed)
    return lambda: sampler.run(params, prompts, key, config.sample.temperature, samples)


def timed(draw: Callable[[], Any], repeats: int = REPEATS) -> tuple[Any, float]:
    """What it gives, and the median of its seconds."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        drawn = draw()
        seconds.append(time.perf_counter() - started)
    return drawn, statistics.median(seconds)


def measured(
    visit: Visit,
    config: ml_collections.ConfigDict,
    rows: int,
    drawn: tuple[list[list[Output]], Statistics],
    seconds: float,
) -> dict[str, Any]:
    """What a workload comes to, for the page."""
    outputs, cost = drawn
    source, _ = aot.lengths(config)
    found = {
        "rows": rows,
        "outputs": cost.outputs,
        "source": source,
        "mean_length": cost.tokens / cost.outputs,
        "seconds": seconds,
        "tokens_per_second": cost.tokens / seconds,
        "occupancy": cost.occupancy,
        "steps": cost.steps,
    }
    if rates := visit.found("device").get("rates"):
        weights = limits.Weights.of(models.raw_config(visit.stage.size))
        asked = limits.Sampled(len(outputs), source, config.sample.samples, cost.tokens)
        itemsize = np.dtype(config.model.dtype).itemsize
        least = limits.sampling_seconds(weights, asked, rows, limits.Rates(**rates), itemsize)
        found["share_of_roofline"] = least / seconds
    return found


def digest(outputs: list[list[Output]]) -> str:
    """Of tokens and log-probabilities, bit by bit."""
    return hashlib.sha256(repr(outputs).encode()).hexdigest()[:16]
