"""Verdicts on many outputs, shared out among processes."""

from collections.abc import Sequence
from typing import Any

from hir_jax.data.example import Example
from hir_jax.devices import processes
from hir_jax.hindsight.verify import UNREADABLE, Verdict, Verifier


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
