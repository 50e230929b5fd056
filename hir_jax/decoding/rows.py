"""How many outputs are decoded at once, by the memory at hand."""

from collections.abc import Callable

import jax.numpy as jnp
from jax.sharding import Mesh

from hir_jax.decoding import records
from hir_jax.decoding.programs import abstract_states
from hir_jax.devices import processes, sharding
from hir_jax.model.config import T5Config

MOST_ROWS = 1024  # that `default_rows` chooses
SHARE = 2 / 3  # of free memory, for the engine


def default_rows(
    config: T5Config,
    mesh: Mesh,
    make: Callable[[int], records.Shape],
    source_length: int,
    free: float | None,
) -> int:
    """Rows, at most 1,024, whose `engine_memory` fits into two thirds of a device's free memory.

    The rest is for temporaries: by the plans in docs/planning.md a quarter of the engine's own.

    A CPU decodes 64 at once, on all of its devices together: products with more are not more
    efficient there, and fewer rows have a shorter end.

    Args:
        config: the model's shape.
        mesh: where it runs.
        make: the engine's shape for a number of rows.
        source_length: of the longest prompt.
        free: in bytes; None on a CPU.
    """
    if free is None:
        return max(8, 64 // len(mesh.local_devices))
    rows = MOST_ROWS
    while rows > 8 and engine_memory(config, mesh, make(rows), source_length) > SHARE * free:
        rows //= 2
    return rows


def engine_memory(config: T5Config, mesh: Mesh, shape: records.Shape, source_length: int) -> float:
    """Bytes on a device of the engine's state, of a pool's encodings, and of a step's logits."""
    states = abstract_states(mesh, config, shape, source_length)
    encoded = shape.pool * source_length * config.d_model * jnp.dtype(config.dtype).itemsize
    logits = 4 * shape.rows * config.vocab_size * 4  # and what is drawn from them
    return sharding.device_bytes(states) + shape.prompts * (encoded + logits)


def free_memory(mesh: Mesh) -> int | None:
    """Bytes of a device; None on a CPU, and where the device does not tell."""
    device = mesh.local_devices[0]
    memory = device.memory_stats() if device.platform != "cpu" else None
    if not memory or "bytes_limit" not in memory:
        return None
    # All processes compile the same program, for the one with the least.
    return min(processes.gather(memory["bytes_limit"] - memory["bytes_in_use"]))
