"""The best constant answer: what a model that never reads a question could score."""

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from hir_jax.data.example import Example, letter
from hir_jax.hindsight import verify
from hir_jax.hindsight.verify import Verifier
from hir_jax.run.judging import judge

# Verdicts in a round of the search. One of the user's own verifiers may take long for each.
CALLS, CALLS_OF_USERS = 50_000, 5_000


@dataclasses.dataclass(frozen=True)
class Constant:
    """A constant answer and how it was found.

    Attributes:
        text: the answer.
        accuracy: share of the questions to which it is right, under the run's verifier.
        tried: texts that were judged on every question; this is the best of them.
        candidates: texts that were judged on some questions at least.
    """

    text: str
    accuracy: float
    tried: int
    candidates: int


@functools.lru_cache(maxsize=16)  # a run evaluates the same questions again and again
def best_constant(examples: tuple[Example, ...], verifier: Verifier) -> Constant:
    """The best of all targets, accepted answers, option texts and letters of these questions.

    A verifier may accept any text for any question, so none can be left out unseen. All texts are
    judged on as many questions as a round allows, the more promising half on twice as many others,
    and so on until all questions are seen. Where one round allows all texts on all questions
    (some 200 of each; 70 under a user's verifier) the search is exhaustive.

    Args:
        examples: the questions; at least one.
        verifier: the run's.
    """
    built_in = verify.is_built_in(verifier) and not any(e.score for e in examples)
    calls = CALLS if built_in else max(CALLS_OF_USERS, 10 * len(examples))
    texts, questions = _texts(examples), _distinct(examples, built_in)
    index = {text: i for i, text in enumerate(texts)}
    listed = [[index[text] for text in {*e.targets, *e.answers}] for e, _ in questions]
    alive, right, judged = np.arange(len(texts)), np.zeros(len(texts), int), 0
    while judged < len(questions):
        part = questions[judged : judged + max(1, calls // len(alive))]
        outputs = [[texts[i] for i in alive]] * len(part)
        verdicts = judge(verifier, [example for example, _ in part], outputs)
        for (_, count), row in zip(part, verdicts, strict=True):
            right[alive] += [count * verdict.correct for verdict in row]
        judged += len(part)
        if judged < len(questions):
            promise = right.copy()
            for (_, count), own in zip(questions[judged:], listed[judged:], strict=True):
                promise[own] += count
            order = np.argsort(-promise[alive], kind="stable")
            alive = np.sort(alive[order[: (len(alive) + 1) // 2]])
    best = alive[np.argmax(right[alive])]
    return Constant(texts[best], float(right[best] / len(examples)), len(alive), len(texts))


def _texts(examples: Sequence[Example]) -> list[str]:
    """All texts to try, those first that stand in the most questions."""

    def own(example: Example) -> list[str]:
        letters = map(letter, range(len(example.options)))
        return list(dict.fromkeys([*example.targets, *example.answers, *letters, *example.options]))

    counts = collections.Counter(text for example in examples for text in own(example))
    return [text for text, _ in counts.most_common()]


def _distinct(examples: Sequence[Example], built_in: bool) -> list[tuple[Example, int]]:
    """Questions that a verifier tells apart, and how often each stands there; well mixed.

    Built-in verifiers look at options and answers alone.
    """
    kinds: dict[Any, list[Example]] = {}
    for example in examples:
        key = (example.options, example.answers) if built_in else example
        kinds.setdefault(key, []).append(example)
    found = [(same[0], len(same)) for same in kinds.values()]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]
