"""Verdicts on outputs, and their instructions rewritten in hindsight."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from hir_jax.data.example import Example
from hir_jax.decoding import prompt as decoding
from hir_jax.errors import UserError
from hir_jax.hindsight import relabel as hindsight
from hir_jax.hindsight import verify as verifiers
from hir_jax.hindsight.verify import Verdict
from hir_jax.library import inputs
from hir_jax.library.policy import Output, Policy, check_policy
from hir_jax.methods.hir import Hir
from hir_jax.model.codec import Tokens
from hir_jax.run import configs, judging, prompts, settings


@dataclasses.dataclass(frozen=True)
class Pair:
    """An output, or the end of one, with the instruction that it fulfils and one that it does not.

    Attributes:
        example: the question.
        correct: the verdict that it stands under.
        instruction: p*, which asks for what the output achieved.
        opposite: p⁻, which asks for something else.
        prefix: the beginning of the output, where the model reads it behind the question.
        target: what the model is to say.
        source_tokens: what the model reads under p*.
        opposite_tokens: what it reads under p⁻.
        target_tokens: those of `target`.
    """

    example: Example
    correct: bool
    instruction: str
    opposite: str
    prefix: str
    target: str
    source_tokens: Tokens = dataclasses.field(repr=False)
    opposite_tokens: Tokens = dataclasses.field(repr=False)
    target_tokens: Tokens = dataclasses.field(repr=False)


def verify(
    verifier: str | Callable[[str, Example], Verdict | float | bool],
    examples: Sequence[Example],
    outputs: Sequence[Sequence[Output | str]],
    *,
    threshold: float = 0.5,
    weights: Sequence[float] = (),
) -> list[list[Verdict]]:
    """A verdict on each output; `--mode=verify`.

    Args:
        verifier: a name, or several with commas between, as `config.verifier` has them; or a
            function of an output's text and its question that returns a `Verdict`, a reward from 0
            to 1, or whether it is right.
        examples: the questions.
        outputs: of each question.
        threshold: the reward from which on an output is right.
        weights: of the rewards of several verifiers.

    Raises:
        UserError: there is no such verifier, it does not suit a question, or it fails.
    """
    examples, outputs, weights = map(inputs.listed, (examples, outputs, weights))
    _check_one_each(examples, outputs, "outputs", (Output, str))
    if not isinstance(weights, list):
        raise UserError(f"Expected weights, a list of numbers, found {weights!r:.200}.")
    weights = tuple(map(configs.plain, weights))
    if callable(verifier):
        judge = verifiers.of_function(verifier, threshold, weights)
    elif not isinstance(verifier, str):
        raise UserError(f"Expected the name of a verifier, or a function, found {verifier!r:.200}.")
    else:
        judge = verifiers.resolve(verifier, threshold, weights)
    texts = [[_said(output) for output in own] for own in outputs]
    return judging.judge(judge, examples, texts)


def relabel(
    policy: Policy,
    examples: Sequence[Example],
    outputs: Sequence[Sequence[Output]],
    verdicts: Sequence[Sequence[Verdict]],
    *,
    seed: int | None = None,
) -> list[Pair]:
    """Outputs with their instructions rewritten by what they achieved: what HIR trains on.

    `policy.config` says what instructions say, and whether targets are whole outputs or parts
    ("sub_output.mode"); parts are drawn as in the first epoch of a run with the same seed.

    Args:
        policy: of `load`.
        examples: the questions, each with an id of its own.
        outputs: of `sample`.
        verdicts: of `verify`.
        seed: of the draws; None is `policy.config.seed`.

    Returns:
        A pair for each output, in their order.

    Raises:
        UserError: there are not as many outputs and verdicts as questions, or two have one id.
    """
    check_policy(policy)
    config = configs.changed(policy.config, {} if seed is None else {"seed": seed})
    settings.check(config)
    examples, outputs, verdicts = map(inputs.listed, (examples, outputs, verdicts))
    _check_one_each(examples, outputs, "outputs", (Output,))
    _check_one_each(examples, verdicts, "verdicts", (Verdict,))
    if any(len(own) != len(of) for own, of in zip(outputs, verdicts, strict=True)):
        raise UserError("Expected a verdict on each output, found more or fewer.")
    by_id = {example.id: example for example in examples}
    if len(by_id) < len(examples):
        raise UserError(
            f"Expected questions with ids of their own, found {len(by_id)} ids of {len(examples)}."
        )
    codec, method = policy.model.codec, Hir.make(config)
    drawn = [[decoding.Output(output.tokens, output.logprob) for output in own] for own in outputs]
    texts = [[output.text for output in own] for own in outputs]
    judged = [list(map(judging.Judged, *own)) for own in zip(drawn, texts, verdicts, strict=True)]
    samples = judging.as_samples(examples, judged, iteration=1)
    pairs = hindsight.hindsight_pairs(
        samples,
        mode=method.sub_output,
        prob=method.prob,
        seed=config.seed,
        iteration=1,
        epoch=0,
        eos_ids=codec.eos_ids,
        decode=codec.decode,
        answers={example.id: example.targets[0] for example in examples},
        facts=method.facts,
        opening_ids=codec.opening_ids,
    )
    instructions = prompts.instructions_of(config)
    table = prompts.PromptTable(codec, examples, instructions)
    return [
        Pair(
            example=by_id[pair.example_id],
            correct=pair.correct,
            instruction=instructions.text(pair.goal),
            opposite=instructions.text(pair.opposite),
            prefix=codec.decode(pair.prefix),
            target=codec.decode(pair.target),
            source_tokens=table.source(pair.example_id, pair.goal, pair.prefix),
            opposite_tokens=table.source(pair.example_id, pair.opposite, pair.prefix),
            target_tokens=pair.target,
        )
        for pair in pairs
    ]


def _said(output: Output | str) -> str | None:
    if isinstance(output, str):
        return output
    return output.text if output.readable else None


def _check_one_each(
    examples: Sequence[Example], given: Sequence[Any], what: str, kinds: tuple[type, ...]
) -> None:
    """Raises UserError where there is not a list of so many, of these kinds, for each question."""
    if not isinstance(examples, list) or not all(isinstance(e, Example) for e in examples):
        raise UserError(
            "Expected a list of questions, of `hir_jax.examples` or `questions`, found "
            f"{examples!r:.200}."
        )
    if not isinstance(given, list):
        raise UserError(f"Expected a list of {what} for each question, found {given!r:.200}.")
    if len(given) != len(examples) or not all(isinstance(own, list | tuple) for own in given):
        raise UserError(
            f"Expected a list of {what} for each of {len(examples)} questions, found {len(given)} "
            f"of {', '.join(sorted({type(own).__name__ for own in given})) or 'nothing'}."
        )
    if odd := [each for own in given for each in own if not isinstance(each, kinds)]:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise UserError(f"Expected {what} of type {wanted}, found {odd[0]!r:.200}.")
