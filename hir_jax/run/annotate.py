"""What passes over new samples say of each token: the value head's view, and the start's."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from hir_jax.hindsight.sample import Sample
from hir_jax.model.config import Params, T5Config
from hir_jax.run.questions import Questions
from hir_jax.training.scoring import Scores, score_tokens


def annotate(
    samples: Sequence[Sample],
    questions: Questions,
    config: T5Config,
    mesh: Mesh,
    policy: Params | None,
    start: Params | None,
    batch_size: int,
) -> list[Sample]:
    """The samples with `values` by the policy's value head and `reference` by the start.

    Args:
        samples: of one iteration.
        questions: what they answer.
        config: the model's shape.
        mesh: where it lives.
        policy: None leaves `values` empty.
        start: None leaves `reference` empty.
        batch_size: samples at a time.
    """
    source, wanted = questions.prompts.source, questions.instructions.wanted
    given = [(source(sample.example_id, wanted, ()), sample.tokens) for sample in samples]

    def scores(params: Params | None) -> list[Scores]:
        if params is None:
            return [Scores((), ())] * len(samples)
        return score_tokens(params, config, mesh, given, batch_size, questions.buckets)

    return [
        dataclasses.replace(sample, values=own.values, reference=old.logprobs)
        for sample, own, old in zip(samples, scores(policy), scores(start), strict=True)
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
