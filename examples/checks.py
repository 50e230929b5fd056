"""Verifiers of one's own, for the examples of docs/own_task.md."""

from hir_jax.data import Example
from hir_jax.hindsight.verifiers import similarity
from hir_jax.hindsight.verify import Verdict


def in_order(output: str, example: Example) -> Verdict:
    """Right: any words, two or more, in alphabetical order. Facts say which words they are."""
    words, asked = output.split(), example.answers[0].split()
    return Verdict(
        correct=len(words) > 1 and words == sorted(words),
        parsed=bool(words),
        facts={"complete": set(asked) <= set(words), "only": set(words) <= set(asked)},
    )


def translated(output: str, example: Example) -> float:
    """How like the reference translation an output is, by chrF: a reward from 0 to 1."""
    return similarity.score("chrf", output, example.answers)
