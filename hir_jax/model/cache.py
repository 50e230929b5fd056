"""What decoding keeps between steps: keys and values, and which source each row reads.

Letters in names: B sources in the batch, N rows, L lanes (a multiple of B), S source tokens,
T target tokens, G groups of heads, C width of a group.
"""

from collections.abc import Callable
from typing import Self

import flax.struct
import jax
import jax.numpy as jnp

from hir_jax.model.config import T5Config


@flax.struct.dataclass
class Lanes:
    """Which source each row of a decode step reads.

    Source b has the lanes b * L/B ... (b + 1) * L/B - 1. Rows are dense, lanes need not all be
    taken: cross-attention alone is computed lane by lane, so that the rows of one source share its
    keys and values wherever they stand in the batch.
    """

    of_row_N: jax.Array  # each row's lane; L for a row that reads no source
    row_L: jax.Array  # each lane's row; any row where the lane is not taken

    @classmethod
    def make(cls, of_row_N: jax.Array, lanes: int) -> Self:
        """From the lane of each row; a lane has one row at most."""
        rows = jnp.arange(of_row_N.shape[0], dtype=jnp.int32)
        return cls(of_row_N, jnp.zeros(lanes, jnp.int32).at[of_row_N].set(rows, mode="drop"))


@flax.struct.dataclass
class Cache:
    """What decoding keeps between steps; one array a decoder layer in each tuple.

    Self-attention is a ring on a clock that all rows share: at clock t every row writes column
    t mod T, so column c holds the token of (t - c) mod T steps ago. A row that began `age` steps
    ago sees only the columns that are at most `age` steps old. With T = 4, at clock 5:

        column             0  1  2  3
        steps ago          1  0  3  2
        seen at age 5      x  x  x  x      (a row may be as old as the clock, T columns at most)
        seen at age 1      x  x  .  .

    Cross-attention's keys and values are BxGxSxC. Where a source has several lanes its keys are
    BxGxCxS, since a CPU multiplies them by a few queries at once twice as fast then (by a single
    one more slowly), and values by a few rows of weights a quarter as fast.
    """

    keys_NxGxTxC: tuple[jax.Array, ...]
    values_NxGxTxC: tuple[jax.Array, ...]
    cross_keys: tuple[jax.Array, ...]
    cross_values: tuple[jax.Array, ...]
    source_mask_BxS: jax.Array
    keys_transposed: bool = flax.struct.field(pytree_node=False)  # BxGxCxS

    def cross(self, layer: int) -> tuple[jax.Array, jax.Array]:
        """Keys and values of a layer's cross-attention, BxGxSxC."""
        return self.turn(self.cross_keys[layer]), self.cross_values[layer]

    def turn(self, keys: jax.Array) -> jax.Array:
        """Of cross-attention from BxGxSxC to what is kept, and back."""
        return keys.swapaxes(2, 3) if self.keys_transposed else keys


def init_cache(
    config: T5Config, rows: int, length: int, sources: int, lanes: int, source_length: int
) -> Cache:
    """An empty cache: `length` columns a row, and room for sources of some lanes each."""

    def empty(*shape: int) -> tuple[jax.Array, ...]:
        dtype = config.cache_dtype or config.dtype
        return tuple(jnp.zeros(shape, dtype) for _ in range(config.num_decoder_layers))

    groups, width = config.num_heads // config.heads_together, config.d_kv * config.heads_together
    kept = (rows, groups, length, width)
    values = (sources, groups, source_length, width)
    transposed = lanes > 1
    keys = (sources, groups, width, source_length) if transposed else values
    mask = jnp.zeros((sources, source_length), bool)
    return Cache(empty(*kept), empty(*kept), empty(*keys), empty(*values), mask, transposed)


def lengthen_sources(
    cache: Cache, missing: int, pad: Callable[[jax.Array, int, int], jax.Array]
) -> Cache:
    """The cache with room for sources that are longer by `missing`; those in it stay as they are.

    `pad` appends so many columns to an array along an axis, counted from behind.
    """
    of_keys = -1 if cache.keys_transposed else -2
    return cache.replace(
        cross_keys=tuple(pad(kept, of_keys, missing) for kept in cache.cross_keys),
        cross_values=tuple(pad(kept, -2, missing) for kept in cache.cross_values),
        source_mask_BxS=pad(cache.source_mask_BxS, -1, missing),
    )


def padded(x: jax.Array, axis: int, missing: int) -> jax.Array:
    """Zeros behind x along an axis."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, missing)
    return jnp.pad(x, widths)
