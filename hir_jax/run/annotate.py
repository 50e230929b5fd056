"""What passes over new samples say of each token: the value head's view, and the start's."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from hir_jax.hindsight.sample import Sample
from hir_jax.model.batching import Buckets
from hir_jax.model.config import Params, T5Config
from hir_jax.training import scoring


def annotate(
    config: T5Config,
    mesh: Mesh,
    buckets: Buckets,
    params: Params,
    samples: Sequence[Sample],
    sources: Sequence[tuple[int, ...]],
    batch_size: int,
    value: bool,
) -> list[Sample]:
    """The samples with `values` by the policy's value head, or with `reference` by the start.

    Args:
        config: the model's shape.
        mesh: where it lives.
        buckets: lengths to pad to.
        params: the policy's, or those of the start.
        samples: of one iteration.
        sources: the prompt of each.
        batch_size: samples at a time.
        value: which of the two.
    """
    given = [(source, sample.tokens) for source, sample in zip(sources, samples, strict=True)]
    scores = scoring.score_tokens(params, config, mesh, given, batch_size, buckets)
    if value:
        pairs = zip(samples, scores, strict=True)
        return [dataclasses.replace(sample, values=score.values) for sample, score in pairs]
    return [
        dataclasses.replace(sample, reference=score.logprobs)
        for sample, score in zip(samples, scores, strict=True)
    ]


def summary(samples: Sequence[Sample]) -> dict[str, float]:
    """`kl_to_start`, nats an output, where the samples know what the start finds of them.

    The mean of log π(o) - log π_start(o): an unbiased estimate where samples are drawn from the
    whole policy, at temperature 1. Elsewhere it may be negative.
    """
    if not samples or not samples[0].reference:
        return {}
    moved = [sample.logprob - sum(sample.reference) for sample in samples]
    return {"kl_to_start": float(np.mean(moved))}
