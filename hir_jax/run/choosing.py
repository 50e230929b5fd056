"""Which output to give, by the two instructions, and how good that choice is.

A model that HIR has trained is its own verifier: log π(o | p_correct) - log π(o | p_wrong), the
*margin* of an output, says how much more it sounds like an answer to "answer correctly". Of R
samples the one of the largest margin may be given (*reranked*), or each token may be drawn away
from p_wrong (*guided*, see `draws.guided`), beside what others do: the likeliest tokens (greedy),
and the answer that most samples come to (majority).
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from hir_jax.data.example import Example
from hir_jax.decoding.prompt import Guide, Output
from hir_jax.decoding.sampler import Sampler
from hir_jax.hindsight.relabel import Goal
from hir_jax.model.codec import Codec
from hir_jax.model.config import Params
from hir_jax.run import evaluate, metrics, statistics
from hir_jax.run.following import from_digits, to_digits
from hir_jax.run.judging import judge
from hir_jax.run.questions import Questions
from hir_jax.training import scoring

GREEDY = "greedy"


@dataclasses.dataclass(frozen=True)
class Choices:
    """Whether each way of choosing is right on each question, plain greedy first.

    Attributes:
        right: by the way's name, in the questions' order.
        stories: the number of each question's story, from 0.
    """

    right: Mapping[str, tuple[bool, ...]]
    stories: tuple[int, ...]

    def estimates(self) -> dict[str, tuple[statistics.Estimate, statistics.Estimate]]:
        """Of each way the accuracy, and the paired difference to plain greedy."""
        stories, greedy = np.array(self.stories), np.array(self.right[GREEDY], float)
        rows = {name: np.array(right, float) for name, right in self.right.items()}
        return {
            name: (
                statistics.accuracy(row, stories),
                statistics.difference(row - greedy, stories),
            )
            for name, row in rows.items()
        }

    def to_json(self) -> dict[str, Any]:
        """What eval.json keeps."""
        return {
            name: {
                "accuracy": accuracy.value,
                "interval": accuracy.interval,
                "difference": difference.value,
                "difference_interval": difference.interval,
                "right": to_digits(self.right[name]),
            }
            for name, (accuracy, difference) in self.estimates().items()
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], stories: tuple[int, ...]) -> "Choices":
        """The inverse of `to_json`; the stories are those of the evaluation."""
        return cls({name: from_digits(each["right"]) for name, each in record.items()}, stories)

    def table(self) -> str:
        """For people to read."""
        rows = [
            (name, evaluate.percent(accuracy), "" if name == GREEDY else evaluate.points(change))
            for name, (accuracy, change) in self.estimates().items()
        ]
        return metrics.format_table(("asked correct", "accuracy", "beside greedy"), rows)


def wanted(config: ml_collections.ConfigDict) -> bool:
    """Whether `config.evaluate` asks for any way of choosing."""
    return bool(config.evaluate.samples or config.evaluate.guidance)


def choices(
    config: ml_collections.ConfigDict,
    sampler: Sampler,
    params: Params,
    examples: Sequence[Example],
    questions: Questions,
    codec: Codec,
    progress: Callable[[int], object] = lambda n: None,
) -> Choices:
    """The ways of choosing that `config.evaluate` asks for, each on every example.

    Samples are drawn once, as many as the largest R; smaller R have the first of them.
    """
    prompts = questions.prompts.prompts(examples, questions.instructions.wanted)
    params_there = sampler.prepare(params)
    right: dict[str, list[bool]] = {}

    def answers(temperature: float, samples: int = 1, guide: Guide | None = None) -> Any:
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        return sampler(params_there, prompts, key, temperature, samples, progress, guide)

    def verdicts(outputs: Sequence[Sequence[Output]]) -> Any:
        texts = [[codec.read(output.tokens) for output in own] for own in outputs]
        return judge(questions.verifier, examples, texts)

    right[GREEDY] = [own[0].correct for own in verdicts(answers(0.0))]
    if config.evaluate.samples:
        outputs = answers(config.sample.temperature, max(config.evaluate.samples))
        judged = verdicts(outputs)
        margin = margins(config, sampler, params, examples, questions, outputs)
        texts = [[codec.decode(output.tokens) for output in own] for own in outputs]
        for count in config.evaluate.samples:
            first = [own[:count] for own in judged]
            read = [
                [verdict.read or text for verdict, text in zip(own, said, strict=False)]
                for own, said in zip(first, texts, strict=True)
            ]
            by_vote = [own[majority(each)].correct for own, each in zip(first, read, strict=True)]
            by_margin = [
                own[int(np.argmax(m[:count]))].correct for own, m in zip(first, margin, strict=True)
            ]
            right[f"majority of {count}"] = by_vote
            right[f"reranked of {count}"] = by_margin
            right[f"any of {count}"] = [any(v.correct for v in own) for own in first]
    for guidance in config.evaluate.guidance:
        guide = guide_of(questions, examples, guidance, config.sample.guidance_cutoff)
        found = verdicts(answers(0.0, guide=guide))
        right[f"guided by {guidance:g}"] = [own[0].correct for own in found]
    return Choices(
        {name: tuple(found) for name, found in right.items()},
        statistics.number_stories(e.premise for e in examples),
    )


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


def margins(
    config: ml_collections.ConfigDict,
    sampler: Sampler,
    params: Params,
    examples: Sequence[Example],
    questions: Questions,
    outputs: Sequence[Sequence[Output]],
) -> list[list[float]]:
    """log π(o | p_correct) - log π(o | p_wrong) of each output of each example, in nats."""
    every = [(e.id, o.tokens) for e, own in zip(examples, outputs, strict=True) for o in own]
    correct, wrong = (
        scoring.score(
            params,
            sampler.config,
            sampler.mesh,
            [(questions.prompts.source(name, goal, ()), tokens) for name, tokens in every],
            config.train.batch_size,
            questions.buckets,
        )
        for goal in (questions.instructions.wanted, opposite(questions))
    )
    difference = iter(np.subtract(correct, wrong).tolist())
    return [[next(difference) for _ in own] for own in outputs]
