"""Whether a second process samples and trains bit for bit what the first did.

With the first one's compiled programs; and, compiled anew, with what the compiler makes now: on a
GPU it chooses kernels by timing them.
"""

from benchmarks.visits import sampling, training
from benchmarks.visits.stages import Note, Visit
from hir_jax.devices import sharding


def run(visit: Visit, note: Note) -> None:
    """Compares digests with those that the stages of the first size left."""
    size = visit.stage.size
    config, sampler, params = sampling.prepared(size)
    rows = config.sample.rows * sharding.batch_multiple(sampler.mesh)
    outputs, _ = sampling.drawing(config, sampler, params, sampling.ENDING * rows)()
    note(sampling=_compared(visit, f"sampling {size}", sampling.digest(outputs)))
    del params
    planned = visit.found("plan").get(f"training {size}", {})
    step, _ = training.prepared(size, planned.get("accumulation"))
    for _ in range(training.WARM):
        state = step()
    note(training=_compared(visit, f"training {size}", training.digest(state.params)))


def _compared(visit: Visit, stage: str, digest: str) -> dict[str, str | bool | None]:
    before = visit.found(stage).get("digest")
    return {"digest": digest, "before": before, "equal": digest == before if before else None}
