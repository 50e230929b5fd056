"""Checksums of arrays, the same on any mesh; trees as arrays by their names."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hir_jax.devices import sharding

PyTree = Any


def flatten(tree: PyTree) -> dict[str, Any]:
    """Leaves by name, "opt_state/0/count"; containers without leaves vanish."""
    leaves = jax.tree.leaves_with_path(tree)
    return {sharding.path_name(path): leaf for path, leaf in leaves}


def of(arrays: Mapping[str, jax.Array]) -> dict[str, int]:
    """Of each array's bits, the same on any mesh; see `checksum`."""
    # One at a time: on CPU devices, many collectives in flight at once can wait for each other's
    # threads for ever.
    return {name: int(checksum(array)) for name, array in arrays.items()}


@jax.jit
def checksum(array: jax.Array) -> jax.Array:
    """The sum over i of (2i + 1) * word i, modulo 2**32; words are the array's bits in 32s or less.

    Any one changed word changes it, since odd weights have inverses. Integer sums do not depend on
    their order, so neither does it on the mesh.
    """
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if array.dtype == bool:
        array = array.astype(jnp.uint8)
    word = jnp.dtype(f"uint{8 * min(array.dtype.itemsize, 4)}")
    words = jax.lax.bitcast_convert_type(array, word).astype(jnp.uint32)
    index = jnp.arange(words.size, dtype=jnp.uint32).reshape(words.shape)
    return jnp.sum(words * (2 * index + 1), dtype=jnp.uint32)
