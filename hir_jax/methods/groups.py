"""Rewards of a question's samples, compared with one another.

A group has the samples of one question in one iteration. Everything here gives a number a sample,
in the order of the samples.
"""

from collections.abc import Sequence

import numpy as np

from hir_jax.hindsight.sample import Sample


def rewards(samples: Sequence[Sample]) -> np.ndarray:
    """r, from 0 to 1."""
    return np.array([sample.reward for sample in samples], float)


def pass_rates(samples: Sequence[Sample]) -> np.ndarray:
    """p, the mean reward of the group."""
    return _means(samples, rewards(samples))


def spreads(samples: Sequence[Sample]) -> np.ndarray:
    """σ, the standard deviation of the rewards of the group: sqrt(p (1 - p)) of 0s and 1s."""
    return np.sqrt(_means(samples, np.square(rewards(samples) - pass_rates(samples))))


def differ(samples: Sequence[Sample]) -> np.ndarray:
    """Whether the group's rewards differ at all, which the rounding of `spreads` does not say."""
    group, reward = _numbers(samples), rewards(samples)
    first = reward[np.unique(group, return_index=True)[1]]
    return (np.bincount(group, reward != first[group]) > 0)[group]


def sizes(samples: Sequence[Sample]) -> np.ndarray:
    """R, how many the group has."""
    group = _numbers(samples)
    return np.bincount(group)[group]


def _means(samples: Sequence[Sample], values: np.ndarray) -> np.ndarray:
    group = _numbers(samples)
    return (np.bincount(group, values) / np.bincount(group))[group]


def _numbers(samples: Sequence[Sample]) -> np.ndarray:
    numbers: dict[tuple[str, int], int] = {}
    names = [(sample.example_id, sample.iteration) for sample in samples]
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], int)
