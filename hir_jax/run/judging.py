"""Verdicts on many outputs, shared out among processes."""

from collections.abc import Sequence

from hir_jax.data.example import Example
from hir_jax.devices import processes
from hir_jax.hindsight.verify import Verdict, Verifier


def judge(
    verifier: Verifier, examples: Sequence[Example], texts: Sequence[Sequence[str]]
) -> list[list[Verdict]]:
    """The verdict of each output of each example.

    Each process judges a share, since a user's verifier may be slow, and all get all verdicts. A
    verifier must therefore give the same verdict wherever it runs.
    """
    pairs = zip(examples, texts, strict=True)
    outputs = [(text, example) for example, own in pairs for text in own]

    def verdict(output: tuple[str, Example]) -> tuple[bool, bool]:
        found = verifier(*output)
        return bool(found.correct), bool(found.parsed)

    verdicts = iter(processes.shared_out(outputs, verdict))
    return [[Verdict(*next(verdicts)) for _ in own] for own in texts]
