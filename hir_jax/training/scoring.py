"""What a model says of given outputs, token by token.

Letters in names: B rows, S source tokens, T target tokens.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from hir_jax.devices import processes, sharding
from hir_jax.model import batching, t5, value_head
from hir_jax.model.codec import Tokens
from hir_jax.model.config import Params, T5Config
from hir_jax.training import losses
from hir_jax.training.batch import plan_batches

LOGITS = 2**24  # float32, held at a time on a device


class Scores(NamedTuple):
    """Of one target, a number a token."""

    logprobs: tuple[float, ...]  # in nats
    values: tuple[float, ...]  # of the value head before the token; empty without one


@functools.partial(jax.jit, static_argnames=("config", "logits_at_once"))
def score_batch(
    params: Params,
    source_BxS: jax.Array,
    source_mask_BxS: jax.Array,
    target_BxT: jax.Array,
    *,
    config: T5Config,
    logits_at_once: int,
) -> tuple[jax.Array, jax.Array | None]:
    """The log-probability of each target token, and the value before it; float32 BxT.

    What is held grows with T, never with its square or with T times the vocabulary.
    """
    rows, length = target_BxT.shape
    inputs_BxT = t5.shift_right(config, target_BxT)
    encoded = t5.encode(params, config, source_BxS, source_mask_BxS)
    decoded = t5.decode(params, config, encoded, source_mask_BxS, inputs_BxT)
    pieces = losses.pieces_for(rows, length, config.vocab_size, logits_at_once)
    statistics = losses.token_statistics(decoded, t5.head(params, config), target_BxT, pieces)
    has_values = value_head.NAME in params
    return statistics.logprob, value_head.values(params, decoded) if has_values else None


def score_tokens(
    params: Params,
    config: T5Config,
    mesh: Mesh,
    pairs: Sequence[tuple[Tokens, Tokens]],
    batch_size: int,
    buckets: batching.Buckets,
    progress: Callable[[int], object] = lambda n: None,
) -> list[Scores]:
    """The scores of each (source, target), in their order."""
    shards = sharding.batch_multiple(mesh)
    config = dataclasses.replace(config, shards=shards)
    size = batching.round_up(batch_size, shards)
    lengths = [(len(source), len(target)) for source, target in pairs]
    scores = [Scores((), ())] * len(pairs)
    for indices, (source_length, target_length) in plan_batches(
        lengths, size, buckets, np.random.default_rng(0)
    ):
        padding = [()] * (size - len(indices))
        sources = batching.pad([*(pairs[i][0] for i in indices), *padding], source_length)
        targets, _ = batching.pad([*(pairs[i][1] for i in indices), *padding], target_length)
        arrays = processes.place((*sources, targets), sharding.batch_sharding(mesh))
        found = score_batch(params, *arrays, config=config, logits_at_once=LOGITS * mesh.size)
        logprobs, values = processes.fetch(found, mesh)
        for row, i in enumerate(indices):
            real = slice(len(pairs[i][1]))
            value = () if values is None else tuple(values[row, real].tolist())
            scores[i] = Scores(tuple(logprobs[row, real].tolist()), value)
        progress(len(indices))
    return scores


def score(
    params: Params,
    config: T5Config,
    mesh: Mesh,
    pairs: Sequence[tuple[Tokens, Tokens]],
    batch_size: int,
    buckets: batching.Buckets,
    progress: Callable[[int], object] = lambda n: None,
) -> list[float]:
    """The log-probability of each target given its source, in nats."""
    scores = score_tokens(params, config, mesh, pairs, batch_size, buckets, progress)
    return [math.fsum(each.logprobs) for each in scores]
