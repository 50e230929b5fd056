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
import ml_collections
import numpy as np

from hir_jax.data.example import Example
from hir_jax.decoding.prompt import Guide, Output
from hir_jax.decoding.sampler import Sampler
from hir_jax.devices import keys
from hir_jax.hindsight.relabel import Goal
from hir_jax.hindsight.sample import Sample
from hir_jax.hindsight.verify import Verdict
from hir_jax.model.batching import Buckets
from hir_jax.model.codec import Codec, Tokens
from hir_jax.model.config import Params
from hir_jax.run import statistics, terminal
from hir_jax.run.choices import GREEDY, Choices
from hir_jax.run.evaluation import Evaluation
from hir_jax.run.judging import Judged, judged_as_drawn
from hir_jax.run.questions import Questions
from hir_jax.training import scoring


def with_choices(
    evaluation: Evaluation,
    config: ml_collections.ConfigDict,
    sampler: Sampler,
    params: Params,
    examples: Sequence[Example],
    questions: Questions,
    codec: Codec,
    check: Callable[[], object] = lambda: None,
) -> Evaluation:
    """The evaluation of these examples with the ways of choosing that `config.evaluate` asks for.

    `check` is called now and then; an exception that it raises stops the work.
    """
    ways = len(config.evaluate.guidance) + max(config.evaluate.samples, default=0)
    if not ways:
        return evaluation
    with terminal.progress(ways * len(examples), "other ways of answering", "output") as bar:
        found = choices(
            config,
            sampler,
            params,
            examples,
            questions,
            codec,
            evaluation.asked_correct.right,
            progress=lambda n: (bar.update(n), check()),
        )
    return dataclasses.replace(evaluation, choices=found)


def choices(
    config: ml_collections.ConfigDict,
    sampler: Sampler,
    params: Params,
    examples: Sequence[Example],
    questions: Questions,
    codec: Codec,
    greedy: Sequence[bool],
    progress: Callable[[int], object] = lambda n: None,
) -> Choices:
    """The ways of choosing that `config.evaluate` asks for, each on every example.

    Samples are drawn once, as many as the largest R; smaller R have the first of them. `greedy`
    says where the likeliest tokens are right.
    """
    prompts = questions.prompts.prompts(examples, questions.instructions.wanted)
    key = jax.random.fold_in(keys.make(config.seed), 0)
    prepared = sampler.prepare(params)
    among = questions.among(config.evaluate.among, examples)

    def answers(temperature: float, **options: Any) -> list[list[Judged]]:
        given = (prepared, prompts, key, temperature)
        draw = functools.partial(sampler, *given, among=among, **options)
        return judged_as_drawn(draw, questions.verifier, examples, codec, progress)

    right: dict[str, Sequence[bool]] = {GREEDY: greedy}
    if counts := config.evaluate.samples:
        found = answers(config.sample.temperature, samples=max(counts))
        outputs = [[one.output for one in own] for own in found]
        margin = margins_of(config, sampler, params, examples, questions, outputs)
        right |= of_samples(found, margin, counts)
    for guidance in config.evaluate.guidance:
        guide = guide_of(questions, examples, guidance, config.sample.guidance_cutoff)
        found = answers(0.0, guide=guide)
        right[f"guided by {guidance:g}"] = [one.verdict.correct for (one,) in found]
    return Choices(
        {name: tuple(each) for name, each in right.items()},
        statistics.number_stories(e.premise for e in examples),
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


def opposite(questions: Questions) -> Goal:
    """What asks for a wrong answer, and else for the same."""
    return questions.instructions.wanted.against(0)


def guide_of(
    questions: Questions, examples: Sequence[Example], guidance: float, cutoff: float
) -> Guide | None:
    """The sampler's guide away from p_wrong; None without guidance."""
    if not guidance:
        return None
    away = questions.prompts.prompts(examples, opposite(questions))
    return Guide([prompt.tokens for prompt in away], guidance, cutoff)


def margins_of(
    config: ml_collections.ConfigDict,
    sampler: Sampler,
    params: Params,
    examples: Sequence[Example],
    questions: Questions,
    outputs: Sequence[Sequence[Output]],
) -> list[list[float]]:
    """`margins` of each output of each example."""
    table, goals = questions.prompts, (questions.instructions.wanted, opposite(questions))
    sources = [[table.source(e.id, goal, ()) for goal in goals] for e in examples]
    size = config.train.batch_size
    return margins(params, sampler, sources, outputs, size, questions.buckets)


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
