"""How the small base model errs: which mistakes it makes, and how often at which question.

A model trained on right answers knows nearly all questions of a family; where half of the answers
are mistakes, it is torn at each. A real one knows some questions better than others. So here how
often a mistake is made hangs on the words of the question: that can be learned, and is not meant to
make sense.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from hir_jax.data.example import Example, letter
from hir_jax.data.generators import words


def mistakes(example: Example) -> tuple[str, ...]:
    """A family's typical mistakes: another option, the opposite, two neighbours exchanged, one too
    many or too few."""
    if example.options:
        names = map(letter, range(len(example.options)))
        return tuple(name for name in names if name not in example.targets)
    answer = example.targets[0]
    if answer in ("True", "False"):
        return ("False" if answer == "True" else "True",)
    items = answer.split()
    if len(items) > 1:
        return tuple(
            " ".join((*items[:i], items[i + 1], items[i], *items[i + 2 :]))
            for i in range(min(2, len(items) - 1))
        )
    count = int(example.answers[1])  # accepted as a word and as digits
    return words.number_word(count + 1), words.number_word(count - 1)


def rates(pool: Sequence[Example], low: float, high: float) -> np.ndarray:
    """The share of mistakes in the answers to each question, evenly spread from `low` to `high`.

    Each word has a weight, fixed for good; a question's place in the order of the sums decides.
    """
    sums = [sum(map(_weight, re.findall(r"\w+", example.question))) for example in pool]
    places = np.argsort(np.argsort(sums, kind="stable"), kind="stable")
    return low + (high - low) * (places + 0.5) / len(pool)


def _weight(word: str) -> float:
    """From -1 to 1."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) / 2**31 - 1


def under(rate: float, log_odds: float) -> float:
    """A rate, its odds multiplied by exp(log_odds)."""
    odds = rate / (1 - rate) * np.exp(log_odds)
    return odds / (1 + odds)
