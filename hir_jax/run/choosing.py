"""Which output to give, by the two instructions, and how good that choice is.

A model that HIR has trained is its own verifier: log π(o | p_correct) - log π(o | p_wrong), the
*margin* of an output, says how much more it sounds like an answer to "answer correctly". Of R
samples the one of the largest margin may be given (*reranked*), or each token may be drawn away
from p_wrong (*guided*, see `draws.guided`), beside what others do: the likeliest tokens (greedy),
and the answer that most samples come to (majority).
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from hir_jax.decoding.prompt import Output
from hir_jax.decoding.sampler import Sampler
from hir_jax.devices import keys
from hir_jax.hindsight.sample import Sample
from hir_jax.hindsight.verify import Verdict
from hir_jax.model.batching import Buckets
from hir_jax.model.codec import Tokens
from hir_jax.model.config import Params
from hir_jax.run import statistics, terminal
from hir_jax.run.asking import Asking
from hir_jax.run.choices import GREEDY, Choices
from hir_jax.run.evaluation import Evaluation
from hir_jax.run.judging import Judged
from hir_jax.training import scoring


def with_choices(
    evaluation: Evaluation, asking: Asking, check: Callable[[], object] = lambda: None
) -> Evaluation:
    """The evaluation of these examples with the ways of choosing that `config.evaluate` asks for.

    `check` is called now and then; an exception that it raises stops the work.
    """
    asked = asking.config.evaluate
    ways = len(asked.guidance) + max(asked.samples, default=0)
    if not ways:
        return evaluation
    total = ways * len(asking.examples)
    with terminal.progress(total, "other ways of answering", "output") as bar:
        greedy = evaluation.asked_correct.right
        found = choices(asking, greedy, lambda n: (bar.update(n), check()))
    return dataclasses.replace(evaluation, choices=found)


def choices(
    asking: Asking,
    greedy: Sequence[bool],
    progress: Callable[[int], object] = lambda n: None,
) -> Choices:
    """The ways of choosing that `config.evaluate` asks for, each on every example.

    Samples are drawn once, as many as the largest R; smaller R have the first of them. `greedy`
    says where the likeliest tokens are right.
    """
    config = asking.config
    prompts = asking.prompts(asking.questions.instructions.wanted)
    key = jax.random.fold_in(keys.make(config.seed), 0)
    prepared = asking.sampler.prepare(asking.params)
    among = asking.among("evaluate")

    def answers(temperature: float, **options: Any) -> list[list[Judged]]:
        given = (prepared, prompts, key, temperature)
        draw = functools.partial(asking.sampler, *given, among=among, **options)
        return asking.judged(draw, progress)

    right: dict[str, Sequence[bool]] = {GREEDY: greedy}
    if counts := config.evaluate.samples:
        found = answers(config.sample.temperature, samples=max(counts))
        outputs = [[one.output for one in own] for own in found]
        margin = margins_of(asking, outputs)
        right |= of_samples(found, margin, counts)
    for guidance in config.evaluate.guidance:
        found = answers(0.0, guide=asking.guide(guidance))
        right[f"guided by {guidance:g}"] = [one.verdict.correct for (one,) in found]
    return Choices(
        {name: tuple(each) for name, each in right.items()},
        statistics.number_stories(e.premise for e in asking.examples),
    )


def of_samples(
    judged: Sequence[Sequence[Judged]],
    margins: Sequence[Sequence[float]],
    counts: Sequence[int],
) -> dict[str, list[bool]]:
    """Whether each way of choosing among a question's first R samples is right, for R of `counts`.

    Samples agree that have the same `answer`.
    """
    right: dict[str, list[bool]] = collections.defaultdict(list)
    for own, margin in zip(judged, margins, strict=True):
        answers = [answer(one.verdict, one.text) for one in own]
        correct = [one.verdict.correct for one in own]
        for count in counts:
            right[f"majority of {count}"].append(correct[majority(answers[:count])])
            right[f"reranked of {count}"].append(correct[int(np.argmax(margin[:count]))])
            right[f"any of {count}"].append(any(correct[:count]))
    return right


def answer(judged: Verdict | Sample, text: str) -> str:
    """What an output votes for: what its answer comes to for the verifier, or else its text."""
    return judged.canonical or judged.read or text


def majority(texts: Sequence[str]) -> int:
    """The first of the texts that there are most of; among equals of the one that came first."""
    counts = collections.Counter(texts)
    return texts.index(max(counts, key=counts.__getitem__))


def margins_of(asking: Asking, outputs: Sequence[Sequence[Output]]) -> list[list[float]]:
    """`margins` of each output of each example."""
    table, instructions = asking.questions.prompts, asking.questions.instructions
    goals = (instructions.wanted, instructions.opposite)
    sources = [[table.source(e.id, goal, ()) for goal in goals] for e in asking.examples]
    size = asking.config.train.batch_size
    return margins(asking.params, asking.sampler, sources, outputs, size, asking.questions.buckets)


def margins(
    params: Params,
    sampler: Sampler,
    sources: Sequence[Sequence[Tokens]],
    outputs: Sequence[Sequence[Output]],
    batch_size: int,
    buckets: Buckets,
) -> list[list[float]]:
    """log π(o | p_correct) - log π(o | p_wrong) of each output to each prompt, in nats.

    Args:
        params: the policy's.
        sampler: that drew the outputs; the scores are in its precision.
        sources: of each prompt its tokens under p_correct and under p_wrong.
        outputs: of each prompt.
        batch_size: outputs at a time.
        buckets: lengths to pad to.
    """
    pairs = [(both, o.tokens) for both, own in zip(sources, outputs, strict=True) for o in own]
    correct, wrong = (
        scoring.score(
            params,
            sampler.config,
            sampler.mesh,
            [(both[side], tokens) for both, tokens in pairs],
            batch_size,
            buckets,
        )
        for side in (0, 1)
    )
    difference = iter(np.subtract(correct, wrong).tolist())
    return [[next(difference) for _ in own] for own in outputs]
