"""What passes over new samples say of each: the value head, the start, the opposite instruction."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from jax.sharding import Mesh

from hir_jax.hindsight.relabel import Goal
from hir_jax.hindsight.sample import Sample
from hir_jax.methods.method import VALUES, Method
from hir_jax.model.config import Params, T5Config
from hir_jax.run import trainers
from hir_jax.run.questions import Questions
from hir_jax.training.scoring import Scores, score_tokens


@dataclasses.dataclass(frozen=True)
class Passes:
    """Which passes are made over the samples of an iteration.

    Attributes:
        values: by the policy's value head.
        start: by the starting model.
        opposite: by the policy under the wrong-answer instruction.
    """

    values: bool
    start: bool
    opposite: bool

    def __bool__(self) -> bool:
        return self.values or self.start or self.opposite


def passes(config: ml_collections.ConfigDict, method: Method) -> Passes:
    """Those that the method needs or the config asks for."""
    start = trainers.scores_by_start(config)
    return Passes(VALUES in method.needs, start, bool(config.sample.opposite))


def annotate(
    samples: Sequence[Sample],
    made: Passes,
    questions: Questions,
    config: T5Config,
    mesh: Mesh,
    policy: Params,
    start: Params | None,
    batch_size: int,
) -> list[Sample]:
    """The samples with `values`, `reference` and `opposite`, each where its pass is made.

    Args:
        samples: of one iteration.
        made: which passes are.
        questions: what they answer.
        config: the model's shape.
        mesh: where it lives.
        policy: that drew them.
        start: the starting model's, where that pass is made.
        batch_size: samples at a time.
    """
    wanted, away = questions.instructions.wanted, questions.instructions.opposite

    def scores(params: Params | None, goal: Goal) -> list[Scores]:
        source = questions.prompts.source
        given = [(source(sample.example_id, goal, ()), sample.tokens) for sample in samples]
        distinct = [*dict.fromkeys(given)]  # often less than half of them
        of_distinct = score_tokens(params, config, mesh, distinct, batch_size, questions.buckets)
        of = dict(zip(distinct, of_distinct, strict=True))
        return [of[each] for each in given]

    columns: dict[str, list[Any]] = {}
    if made.values:
        columns["values"] = [each.values for each in scores(policy, wanted)]
    if made.start:
        columns["reference"] = [each.logprobs for each in scores(start, wanted)]
    if made.opposite:
        columns["opposite"] = [math.fsum(each.logprobs) for each in scores(policy, away)]
    return [
        dataclasses.replace(sample, **{name: column[i] for name, column in columns.items()})
        for i, sample in enumerate(samples)
    ]


def summary(samples: Sequence[Sample]) -> dict[str, float]:
    """What those passes say of all samples; what none was made for is not there.

    `kl_to_start`, nats an output, is the mean of log π(o) - log π_start(o): an unbiased estimate
    where samples are drawn from the whole policy, at temperature 1. Elsewhere it may be negative.
    `told_apart` is the share of the samples that are likelier under the instruction that they
    achieved than under the opposite one.
    """
    figures = {}
    if samples and samples[0].reference:
        moved = [sample.logprob - sum(sample.reference) for sample in samples]
        figures["kl_to_start"] = float(np.mean(moved))
    if samples and samples[0].opposite is not None:
        told = [sample.correct == (sample.logprob > sample.opposite) for sample in samples]
        figures["told_apart"] = float(np.mean(told))
    return figures
