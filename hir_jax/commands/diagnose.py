"""--mode=diagnose: what a model can do of a task before it is trained, and what to begin with."""

import dataclasses
import functools
from collections.abc import Sequence

import ml_collections
import numpy as np

from hir_jax.commands import pace
from hir_jax.commands.advice import Measured, advise
from hir_jax.commands.diagnosis import Diagnosis
from hir_jax.commands.drawn import Drawn
from hir_jax.commands.lines import check_output, open_output, to_line
from hir_jax.commands.policy import load_policy
from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.methods.method import GROUPS
from hir_jax.run import drawing, evaluate, evaluation, fitting, judging, models, settings
from hir_jax.run.asking import Asking
from hir_jax.run.evaluation import Evaluation
from hir_jax.run.questions import Questions, load_questions


def diagnose(config: ml_collections.ConfigDict, workdir: str | None, output: str | None) -> str:
    """Asks the policy some training questions; gives a page, and writes it as JSON to `output`.

    Of training only a few steps are taken, to time them; their state is thrown away.

    Raises:
        UserError: settings, model or data are at fault, there are no training questions, or
            `output` is there already.
    """
    _check(config)
    if output:
        check_output(output)
    model, name = load_policy(config, workdir)
    questions = load_questions(config, model.codec)
    asked = ask(questions, config)
    # Refuses what cannot be before long work.
    training = fitting.make_training(config, model, questions.buckets, {})
    sampler = models.make_sampler(config, model, asked.buckets.source)
    examples, count = asked.splits.train, config.diagnose.samples
    asking = Asking(config, sampler, model.params, asked, examples)
    greedy = evaluate.evaluate(asking, "greedy answers")
    draw = functools.partial(
        drawing.draw_from,
        asking,
        samples=count,
        iteration=pace.ITERATION,
        title="sampling",
    )
    samples, sampling = pace.timed(draw, len(examples) * count)
    drawn = Drawn.of(samples, count, greedy.stories)
    measured = _measured(config, questions, asked, greedy, drawn)
    speed = pace.measure(config, model, asked, training, samples, sampling)
    train, dev = len(questions.splits.train), len(questions.splits.dev)
    instructions = len(questions.instructions.asked)
    found = Diagnosis(
        about={
            "model": name,
            "task": config.data.task or config.data.source,
            "training_questions": train,
            "questions_asked": len(examples),
            "samples_of_each": count,
            "temperature": config.sample.temperature,
            "top_k": sampler.top_k,
            "possible_answers": measured.answers,
            "share_of_true_answers_accepted": measured.accepted,
            "algorithm": config.algorithm,
            "devices": f"{model.mesh.size} x {model.mesh.devices.flat[0].device_kind}",
        },
        greedy=greedy,
        drawn=drawn,
        pace=speed,
        iteration=pace.expected(config, speed, train, dev, instructions),
        advice=advise(measured),
    )
    if output:
        with open_output(output) as out:
            out.write(to_line(found.to_json(), indent=1))
    return found.page()


def ask(questions: Questions, config: ml_collections.ConfigDict) -> Questions:
    """The same with at most `config.diagnose.questions` training questions, drawn by the seed.

    Raises:
        UserError: there are none.
    """
    train = questions.splits.train
    if not train:
        raise UserError(
            "--mode=diagnose: expected training questions, found none; sizes are "
            f"{questions.splits.sizes}. Look at config.data: its path, max_source_tokens with "
            "too_long, unwritable."
        )
    size = min(config.diagnose.questions, len(train))
    chosen = np.random.default_rng(config.seed).choice(len(train), size, replace=False)
    examples = tuple(train[i] for i in sorted(chosen))
    return dataclasses.replace(questions, splits=questions.splits._replace(train=examples))


def possible_answers(examples: Sequence[Example]) -> float:
    """How many answers a question may have, as far as these show it: its options, where all have
    some, the median of them; else the different answers to all of them."""
    if all(example.options for example in examples):
        return float(np.median([len(example.options) for example in examples]))
    return float(len({example.targets[0] for example in examples}))


def _check(config: ml_collections.ConfigDict) -> None:
    settings.check(config)
    if GROUPS in settings.method_of(config).needs and config.diagnose.samples < 2:
        raise UserError(
            f"config.diagnose.samples: expected 2 or more with algorithm={config.algorithm}, which "
            f"compares the samples of a question; found {config.diagnose.samples}."
        )


def _measured(
    config: ml_collections.ConfigDict,
    questions: Questions,
    asked: Questions,
    greedy: Evaluation,
    drawn: Drawn,
) -> Measured:
    """What the advice is made of."""
    examples = asked.splits.train
    answers = [[example.targets[0]] for example in examples]
    accepted = [v.correct for (v,) in judging.judge(asked.verifier, examples, answers)]
    return Measured(
        greedy=evaluation.estimate([greedy])["asked_correct"],
        constant=greedy.constant.accuracy,
        found={k: share.value for k, share in drawn.found.items()},
        unparseable=drawn.unparseable,
        distinct=drawn.distinct,
        answers=possible_answers(questions.splits.train),
        accepted=sum(accepted) / len(accepted),
        both=config.diagnose.both or bool(questions.instructions.facts),
    )
