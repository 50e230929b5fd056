"""Verdicts on many outputs, shared out among processes, and the samples that these become."""

from collections.abc import Sequence
from typing import Any

from hir_jax.data.example import Example
from hir_jax.decoding.prompt import Output
from hir_jax.devices import processes
from hir_jax.hindsight.sample import Sample
from hir_jax.hindsight.verify import UNREADABLE, Verdict, Verifier
from hir_jax.model.codec import Codec


def judge(
    verifier: Verifier, examples: Sequence[Example], texts: Sequence[Sequence[str | None]]
) -> list[list[Verdict]]:
    """The verdict of each output of each example; one that has no text (None) is unreadable.

    Each process judges a share, since a user's verifier may be slow, and all get all verdicts. A
    verifier must therefore give the same verdict wherever it runs.
    """
    pairs = zip(examples, texts, strict=True)
    outputs = [(text, example) for example, own in pairs for text in own]

    def verdict(output: tuple[str | None, Example]) -> tuple[Any, ...]:
        text, example = output
        found = UNREADABLE if text is None else verifier(text, example)
        decided = bool(found.correct), bool(found.parsed), str(found.read), float(found.reward)
        return *decided, dict(found.facts), dict(found.parts)

    verdicts = iter(processes.shared_out(outputs, verdict))
    return [[Verdict(*next(verdicts)) for _ in own] for own in texts]


def judged(
    verifier: Verifier,
    examples: Sequence[Example],
    outputs: Sequence[Sequence[Output]],
    codec: Codec,
    iteration: int,
) -> list[Sample]:
    """The samples that an iteration's outputs are, with their verdicts; in the examples' order."""
    texts = [[codec.decode(output.tokens) for output in own] for own in outputs]
    readable = [
        [text if codec.is_readable(output.tokens) else None for output, text in own]
        for own in map(zip, outputs, texts)
    ]
    return as_samples(
        examples, outputs, texts, judge(verifier, examples, readable), iteration=iteration
    )


def as_samples(
    examples: Sequence[Example],
    outputs: Sequence[Sequence[Output]],
    texts: Sequence[Sequence[str]],
    verdicts: Sequence[Sequence[Verdict]],
    iteration: int,
) -> list[Sample]:
    """The outputs of each example, with their texts and verdicts, as samples of an iteration."""
    return [
        Sample(
            example_id=example.id,
            index=index,
            tokens=output.tokens,
            text=text,
            correct=verdict.correct,
            parsed=verdict.parsed,
            logprob=output.logprob,
            iteration=iteration,
            read=verdict.read,
            reward=verdict.reward,
            facts=dict(verdict.facts),
            rewards=dict(verdict.parts),
            logprobs=output.logprobs,
        )
        for example, *parts in zip(examples, outputs, texts, verdicts, strict=True)
        for index, (output, text, verdict) in enumerate(zip(*parts, strict=True))
    ]
