"""Evaluates a policy: asks it questions under both instructions, and has its answers judged."""

import functools
import hashlib
from collections.abc import Callable, Sequence

import ml_collections

from hir_jax.data.example import Example
from hir_jax.decoding.beam import Beams
from hir_jax.decoding.prompt import Among
from hir_jax.decoding.sampler import Sampler
from hir_jax.hindsight.relabel import Goal
from hir_jax.hindsight.verify import Verdict, Verifier
from hir_jax.model.codec import Codec
from hir_jax.model.config import Params
from hir_jax.run import answering, judging, statistics, terminal
from hir_jax.run.constant import best_constant
from hir_jax.run.evaluation import Evaluation, Score
from hir_jax.run.following import Following
from hir_jax.run.prompts import PromptTable
from hir_jax.run.questions import Questions


def evaluate(
    sampler: Sampler,
    params: Params,
    examples: Sequence[Example],
    prompts: PromptTable,
    codec: Codec,
    verifier: Verifier,
    progress: Callable[[int], object] = lambda n: None,
    beams: Beams | None = None,
    among: Among | None = None,
) -> Evaluation:
    """Answers each question once, greedily or by beams, under each of `instructions.asked`."""
    params = sampler.prepare(params)

    def judged(goal: Goal) -> list[Verdict]:
        asked = prompts.prompts(examples, goal)
        answer = functools.partial(answering.best, sampler, params, asked, beams, among)
        found = judging.judged_as_drawn(answer, verifier, examples, codec, progress)
        return [one.verdict for (one,) in found]

    def score(verdicts: list[Verdict]) -> Score:
        return Score(tuple(v.correct for v in verdicts), sum(not v.parsed for v in verdicts))

    right, wrong, *against = map(judged, prompts.instructions.asked)
    facts = zip(prompts.instructions.facts, against, strict=True)
    asked = repr([(e.question, e.options, e.answers, e.premise) for e in examples])
    return Evaluation(
        asked_correct=score(right),
        asked_wrong=score(wrong),
        constant=best_constant(tuple(examples), verifier),
        stories=statistics.number_stories(e.premise for e in examples),
        digest=hashlib.sha256(asked.encode()).hexdigest()[:16],
        facts={name: Following.of(name, right, verdicts) for name, verdicts in facts},
    )


def by_config(
    config: ml_collections.ConfigDict,
    sampler: Sampler,
    params: Params,
    examples: Sequence[Example],
    questions: Questions,
    codec: Codec,
    title: str,
    check: Callable[[], object] = lambda: None,
) -> Evaluation:
    """`evaluate` on some of the questions as `config.evaluate` says, with a progress bar.

    `check` is called now and then; an exception that it raises stops the work.
    """
    total = len(questions.instructions.asked) * len(examples)
    with terminal.progress(total, title, "question") as bar:
        return evaluate(
            sampler,
            params,
            examples,
            questions.prompts,
            codec,
            questions.verifier,
            progress=lambda n: (bar.update(n), check()),
            beams=answering.beams(config, "evaluate"),
            among=questions.among(config.evaluate.among, examples),
        )
