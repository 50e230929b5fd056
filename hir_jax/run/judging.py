"""Verdicts on many outputs, shared out among processes, and the samples that these become.

A verifier may be slow, so outputs are judged while the device works on others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from hir_jax.data.example import Example
from hir_jax.decoding.prompt import Output
from hir_jax.devices import processes
from hir_jax.hindsight import verify
from hir_jax.hindsight.sample import Sample
from hir_jax.hindsight.verify import UNREADABLE, Verdict, Verifier
from hir_jax.model.codec import Codec


class Judged(NamedTuple):
    """An output, with what it says, for people, and the verdict on that."""

    output: Output
    text: str
    verdict: Verdict


def verifier_of(config: ml_collections.ConfigDict) -> Verifier:
    """What `config.verifier` and `config.reward` ask for; faults are as of `verify.resolve`."""
    reward = config.reward
    return verify.resolve(config.verifier, reward.threshold, reward.weights, reward.seconds)


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
        return *decided, dict(found.facts), dict(found.parts), str(found.canonical)

    verdicts = iter(processes.shared_out(outputs, verdict))
    return [[Verdict(*next(verdicts)) for _ in own] for own in texts]


def judged(
    verifier: Verifier,
    examples: Sequence[Example],
    outputs: Sequence[Sequence[Output]],
    codec: Codec,
) -> list[list[Judged]]:
    """The outputs of each example, with their verdicts."""
    texts = [[codec.decode(output.tokens) for output in own] for own in outputs]
    readable = [
        [text if codec.is_readable(output.tokens) else None for output, text in own]
        for own in map(zip, outputs, texts)
    ]
    parts = zip(outputs, texts, judge(verifier, examples, readable), strict=True)
    return [list(map(Judged, *own)) for own in parts]


def judged_as_drawn(
    draw: Callable[..., object],
    verifier: Verifier,
    examples: Sequence[Example],
    codec: Codec,
    progress: Callable[[int], object],
) -> list[list[Judged]]:
    """The outputs that `draw` gives of each example, each judged as soon as it is received.

    Args:
        draw: is called with `receive`, see `Sampler.__call__`.
        verifier: judges them.
        examples: a prompt each.
        codec: reads them.
        progress: told of the number of outputs that have ended since it was told last; an exception
            that it raises stops the work.
    """
    found: dict[tuple[int, int], Judged] = {}

    def receive(outputs: Mapping[tuple[int, int], Output]) -> None:
        progress(len(outputs))
        own = [examples[i] for i, _ in outputs], [[output] for output in outputs.values()]
        for place, (one,) in zip(outputs, judged(verifier, *own, codec), strict=True):
            found[place] = one

    draw(receive=receive)
    by_example: list[list[Judged]] = [[] for _ in examples]
    for i, sample in sorted(found):
        by_example[i].append(found[i, sample])
    return by_example


def as_samples(
    examples: Sequence[Example], judged: Sequence[Sequence[Judged]], iteration: int
) -> list[Sample]:
    """The outputs of each example as samples of an iteration; in the examples' order."""
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
            canonical=verdict.canonical if verdict.canonical != verdict.read else "",
        )
        for example, own in zip(examples, judged, strict=True)
        for index, (output, text, verdict) in enumerate(own)
    ]
