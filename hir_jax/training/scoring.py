"""Log-probabilities of given outputs.

Letters in names: B rows, S source tokens, T target tokens.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hir_jax.devices import processes, sharding
from hir_jax.model import batching, t5
from hir_jax.model.config import Params, T5Config
from hir_jax.training import losses
from hir_jax.training.batch import plan_batches

Tokens = tuple[int, ...]


@functools.partial(jax.jit, static_argnames="config")
def score_batch(
    params: Params,
    source_BxS: jax.Array,
    source_mask_BxS: jax.Array,
    target_BxT: jax.Array,
    target_mask_BxT: jax.Array,
    *,
    config: T5Config,
) -> jax.Array:
    """The summed log-probability of each target given its source, in nats; float32 B."""
    inputs_BxT = t5.shift_right(config, target_BxT)
    encoded = t5.encode(params, config, source_BxS, source_mask_BxS)
    decoded = t5.decode(params, config, encoded, source_mask_BxS, inputs_BxT)
    logprob_BxT = losses.token_statistics(decoded, t5.head(params, config), target_BxT).logprob
    return jnp.sum(jnp.where(target_mask_BxT, logprob_BxT, 0.0), axis=-1)


def score(
    params: Params,
    config: T5Config,
    mesh: Mesh,
    pairs: Sequence[tuple[Tokens, Tokens]],
    batch_size: int,
    buckets: batching.Buckets,
    progress: Callable[[int], object] = lambda n: None,
) -> list[float]:
    """The log-probability of each (source, target), in their order."""
    size = batching.round_up(batch_size, sharding.batch_multiple(mesh))
    lengths = [(len(source), len(target)) for source, target in pairs]
    logprobs = [0.0] * len(pairs)
    for indices, (source_length, target_length) in plan_batches(
        lengths, size, buckets, np.random.default_rng(0)
    ):
        padding = [()] * (size - len(indices))
        sources = batching.pad([*(pairs[i][0] for i in indices), *padding], source_length)
        targets = batching.pad([*(pairs[i][1] for i in indices), *padding], target_length)
        arrays = processes.place((*sources, *targets), sharding.batch_sharding(mesh))
        values = processes.fetch(score_batch(params, *arrays, config=config), mesh)
        for i, value in zip(indices, values, strict=False):
            logprobs[i] = float(value)
        progress(len(indices))
    return logprobs
