"""What `--mode=plan` foretells of the programs that the next stages measure.

They are compiled here, several at a time, and kept: the next stages find them in the cache.
"""

import concurrent.futures
import os
from typing import Any

import jax

from benchmarks.visits import models
from benchmarks.visits.stages import Note, Visit
from hir_jax.devices import hardware
from hir_jax.planning import aot, hlo


def run(visit: Visit, note: Note) -> None:
    """Compiles sampling and training of all sizes."""
    kind = hardware.kind_of(jax.devices()[0])
    tasks = [(size, program) for size in visit.sizes for program in (sampling, training)]
    with concurrent.futures.ThreadPoolExecutor(max(1, os.cpu_count() // 2)) as pool:
        done = {
            pool.submit(program, size, kind): f"{program.__name__} {size}"
            for size, program in tasks
        }
        for future in concurrent.futures.as_completed(done):
            fault = future.exception()
            found = {"fault": f"{type(fault).__name__}: {fault}"} if fault else future.result()
            note(**{done[future]: found})


def sampling(size: str, kind: hardware.Kind) -> dict[str, Any]:
    """What the plan says of decoding, in a process that keeps nothing for training."""
    config = models.config_of(size)
    model = models.abstract_model(config, size)
    made = aot.sampling(config, model, kind, None)
    kept = aot.state_memory(config, model)
    if "decoding copy" not in made.memory:  # decoding reads the parameters themselves
        del kept["parameters"]
    program = made.program
    step = program.loop(aot.DECODING) if program else None
    return _told(made, kind, sum(kept.values()), step.turn if step else None) | {
        "rows": config.sample.rows
    }


def training(size: str, kind: hardware.Kind) -> dict[str, Any]:
    """What the plan says of a step, its batch in the fewest parts that fit."""
    config = models.config_of(size)
    made = aot.training(config, models.abstract_model(config, size), kind)
    cost = made.program.cost if made.program else None
    return _told(made, kind, 0.0, cost) | {"accumulation": made.parts}


def _told(
    made: aot.Compiled, kind: hardware.Kind, elsewhere: float, step: hlo.Cost | None
) -> dict[str, Any]:
    found = {
        "predicted_gb": (made.total - elsewhere) / 1e9,
        "fits": made.fits(kind.memory),
        "fault": made.fault,
        "seconds": made.seconds,
    }
    if step:
        found |= {"kernels_a_step": step.kernels, "gflop_a_step": step.flops / 1e9}
    return found
