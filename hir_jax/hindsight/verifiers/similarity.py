"""Likeness to an accepted answer, through the package sacrebleu."""

import functools
from collections.abc import Sequence
from typing import Any

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.verifiers.verdict import Verdict, Verifier

METRICS = ("chrf", "bleu")


def like(metric: str, threshold: float) -> Verifier:
    """The verifier: right where `score` is at least the threshold; parsed: not empty.

    Raises:
        UserError: sacrebleu is not installed.
    """
    _scorer(metric)

    def verify(output: str, example: Example) -> Verdict:
        read = " ".join(output.split())
        return Verdict(
            bool(read) and score(metric, read, example.answers) >= threshold, bool(read), read
        )

    return verify


def score(metric: str, output: str, answers: Sequence[str]) -> float:
    """How like an output is to the answer that it is most like, from 0 to 1.

    chrf: F-score of character n-grams up to 6 (Popović 2015). bleu: of words, sentence by sentence,
    over the orders that a short output has.
    """
    scorer = _scorer(metric)
    return max(scorer.sentence_score(output, [answer]).score for answer in answers) / 100


@functools.cache
def _scorer(metric: str) -> Any:
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise UserError(
            f"Verifier {metric!r} expects the package sacrebleu, which is not installed. Install "
            'it: pip install "hir_jax[similarity]", or pip install sacrebleu.'
        ) from error
    return CHRF() if metric == "chrf" else BLEU(effective_order=True)
