"""Which example goes where: train / dev / test, and the order within."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hir_jax.data.example import Example
from hir_jax.errors import UserError


class Splits(NamedTuple):
    """The examples of one or several tasks, parted; each part in its seeded order."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """How many examples each part has."""
        return {name: len(part) for name, part in self._asdict().items()}


def keyed_hash(seed: int, *names: str) -> bytes:
    """Bytes to sort by: a draw that depends on the seed and the names alone, on any machine."""
    return hashlib.sha256(json.dumps([seed, *names]).encode()).digest()


def seeded_order(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """The examples in an order keyed by (seed, example id)."""
    return tuple(sorted(examples, key=lambda example: keyed_hash(seed, "order", example.id)))


def split_by_premise(
    examples: Sequence[Example], dev_fraction: float, test_fraction: float, seed: int
) -> Splits:
    """Parts the examples so that no premise stands on two sides.

    The distinct premises, in an order keyed by (seed, premise), are cut by the fractions (rounded
    to the nearest whole premise, at least one): test first, then dev, the rest is train. A fraction
    of 0 leaves its part empty.

    Raises:
        UserError: a part with a fraction above 0, or train, would be empty.
    """
    premises = sorted(
        {example.premise for example in examples},
        key=lambda premise: keyed_hash(seed, "premise", premise),
    )
    test_end, dev_count = (
        max(round(fraction * len(premises)), fraction > 0)
        for fraction in (test_fraction, dev_fraction)
    )
    dev_end = test_end + dev_count
    wanted = {"train": True, "dev": dev_fraction > 0, "test": test_fraction > 0}
    parts = {"train": premises[dev_end:], "dev": premises[test_end:dev_end]}
    parts["test"] = premises[:test_end]
    empty = [name for name, is_wanted in wanted.items() if is_wanted and not parts[name]]
    if empty:
        raise UserError(
            f"Task {examples[0].task}: expected at least one example in each split, but "
            f"data.dev_fraction={dev_fraction} and data.test_fraction={test_fraction} of "
            f"{len(premises)} distinct premises leave {' and '.join(empty)} empty. Give more "
            "examples or other fractions (0 for a split that is not needed)."
        )
    side = {premise: name for name, part in parts.items() for premise in part}
    ordered = seeded_order(examples, seed)
    return Splits(
        *(tuple(e for e in ordered if side[e.premise] == name) for name in Splits._fields)
    )


def split_as_paper(examples: Sequence[Example], seed: int) -> Splits:
    """The reference code's split: NumPy's RandomState permutation, first 80% train, rest test.

    The paper's seed is 1. There is no dev part, and a premise may stand on both sides.
    """
    order = np.random.RandomState(seed).permutation(len(examples))
    cut = int(0.8 * len(examples))
    return Splits(
        train=tuple(examples[i] for i in order[:cut]),
        dev=(),
        test=tuple(examples[i] for i in order[cut:]),
    )
