"""Evaluates a policy: asks it questions under both instructions, and has its answers judged."""

import functools
import hashlib
from collections.abc import Callable

from hir_jax.hindsight.relabel import Goal
from hir_jax.hindsight.verify import Verdict
from hir_jax.run import answering, statistics, terminal
from hir_jax.run.asking import Asking
from hir_jax.run.constant import best_constant
from hir_jax.run.evaluation import Evaluation, Score
from hir_jax.run.following import Following


def evaluate(asking: Asking, title: str, check: Callable[[], object] = lambda: None) -> Evaluation:
    """Answers each question once, as `config.evaluate` says, under each of `instructions.asked`.

    With a progress bar of this title. `check` is called now and then; an exception that it raises
    stops the work.
    """
    examples, sampler, instructions = asking.examples, asking.sampler, asking.questions.instructions

    def score(verdicts: list[Verdict]) -> Score:
        return Score(tuple(v.correct for v in verdicts), sum(not v.parsed for v in verdicts))

    with terminal.progress(len(instructions.asked) * len(examples), title, "question") as bar:
        params = sampler.prepare(asking.params)
        how = answering.beams(asking.config, "evaluate"), asking.among("evaluate")

        def judged(goal: Goal) -> list[Verdict]:
            answer = functools.partial(answering.best, sampler, params, asking.prompts(goal), *how)
            found = asking.judged(answer, lambda n: (bar.update(n), check()))
            return [one.verdict for (one,) in found]

        right, wrong, *against = map(judged, instructions.asked)
        facts = zip(instructions.facts, against, strict=True)
        asked = repr([(e.question, e.options, e.answers, e.premise) for e in examples])
        return Evaluation(
            asked_correct=score(right),
            asked_wrong=score(wrong),
            constant=best_constant(tuple(examples), asking.questions.verifier),
            stories=statistics.number_stories(e.premise for e in examples),
            digest=hashlib.sha256(asked.encode()).hexdigest()[:16],
            facts={name: Following.of(name, right, verdicts) for name, verdicts in facts},
        )
