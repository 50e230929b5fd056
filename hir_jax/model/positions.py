"""T5's biases of attention, which know of two positions how far one is from the other.

Letters in names: H heads, N buckets of distances, Q queries, S keys.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hir_jax.model.config import T5Config

# Added to the score of a key that must not be seen; far below any real score in float32.
MASKED = -1e9


def relative_bucket(config: T5Config, distance: np.ndarray, bidirectional: bool) -> np.ndarray:
    """Buckets of relative positions (key - query): exact when near, logarithmic when far.

    With 32 buckets and max distance 128, looking back only: distances 0..15 have a bucket each,
    16..127 share the next 16 in growing steps, and all beyond take the last. Both ways, half of
    the buckets serve each direction. Computed in NumPy at trace time, so that no compiler rounds
    the logarithm differently from one backend to another.
    """
    buckets = config.relative_attention_num_buckets
    offset = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = np.where(distance > 0, buckets, 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    exact = buckets // 2
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    growth = growth / np.float32(np.log(config.relative_attention_max_distance / exact))
    far = np.minimum(exact + (growth * (buckets - exact)).astype(int), buckets - 1)
    return offset + np.where(distance < exact, distance, far)


def mask_bias(mask_BxS: jax.Array) -> jax.Array:
    """What is added to scores so that padding is not seen; Bx1x1xS."""
    return jnp.where(mask_BxS, 0.0, MASKED)[:, None, None, :]


def bias_block(
    table_NxH: jax.Array, config: T5Config, causal: bool, start: jax.Array, queries: int, keys: int
) -> jax.Array:
    """The biases of `queries` positions from `start` on and of all keys; float32 1xHxQxS.

    Where attention is causal, keys behind the query are masked. A product with ones and zeros picks
    them, exactly: accelerators compute it and its gradient many times faster than a gather and its
    scatter.
    """
    distance_QxS = jnp.arange(keys) - (start + jnp.arange(queries))[:, None]
    buckets_QxS = _buckets(config, distance_QxS, keys, not causal)
    chosen = jax.nn.one_hot(buckets_QxS, table_NxH.shape[0], dtype=jnp.float32)
    bias = jnp.einsum("qsn,nh->hqs", chosen, table_NxH, precision=jax.lax.Precision.HIGHEST)
    if causal:
        bias += jnp.where(distance_QxS > 0, MASKED, 0.0)
    return bias[None]


def _buckets(config: T5Config, distance: jax.Array, length: int, bidirectional: bool) -> jax.Array:
    """`relative_bucket` of distances below `length` on a device: by where it steps, not by logs."""
    buckets = jnp.zeros(distance.shape, jnp.int32)
    for sign in (1, -1):
        known = relative_bucket(config, sign * np.arange(length), bidirectional)
        for far in np.flatnonzero(np.diff(known)):
            step = int(known[far + 1] - known[far])
            buckets += jnp.where(sign * distance > int(far), step, 0)
    return buckets
