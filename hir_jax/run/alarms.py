"""What is wrong with a run, though it goes on: said once, counted, and said again at its end.

Each rule looks at figures that are logged anyway. What it says is a kind of trouble, for people to
read; the same kind is the same text.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from absl import logging

FAR = 20.0  # nats an output that a policy may be away from where it started
NOISE = 0.1  # nats an output that an estimate of that may be below 0
RATIO_OFF = 0.01  # mean |ρ - 1| at the first step after sampling; rounding gives 1e-5
MOVED = 1.0  # nats a token between the policy and the one that drew its samples
SURE = 1e-3  # nats of entropy a token
BELOW = 3  # evaluations in a row

Figures = Mapping[str, float]


class Alarms:
    """Counts kinds of trouble; tells of each when it first appears."""

    def __init__(self, counts: dict[str, int], write: Callable[[dict[str, str]], object]) -> None:
        """`counts`, which grows, is part of every checkpoint; `write` puts a line into the log."""
        self._counts, self._write = counts, write

    def samples(self, figures: Figures) -> None:
        """Looks at the figures of freshly drawn samples."""
        self._raise(of_samples(figures))

    def step(self, figures: Figures, first: bool) -> None:
        """Looks at the metrics of a step; `first`: the first since its samples were drawn."""
        self._raise(of_step(figures, first))

    def pairs(self, count: int) -> None:
        """Looks at the number of pairs that an iteration trains on."""
        self._raise([] if count else ["an iteration had nothing to train on"])

    def evaluations(self, accuracies: Sequence[float]) -> None:
        """Looks at what all evaluations so far have found, the start's first."""
        self._raise(of_evaluations(accuracies))

    def _raise(self, kinds: Iterable[str]) -> None:
        for kind in kinds:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            if self._counts[kind] == 1:
                logging.warning("ALARM: %s", kind)
                self._write({"alarm": kind})


def of_samples(figures: Figures) -> Iterator[str]:
    """Kinds of trouble with the samples of an iteration."""
    several = figures["size"] > figures["questions"] > 0 and figures["correct"] < 1
    if several and figures["size"] * (1 - figures["repeated"]) <= figures["questions"]:
        yield "all samples of each question are equal"
    if figures["size"] and figures["correct"] in (0, 1):
        yield f"all samples are {'right' if figures['correct'] else 'wrong'}"
    elif several and figures["all_right"] + figures["all_wrong"] == 1:
        yield "no question has both right and wrong samples, so that none can be told from another"
    moved = figures.get("kl_to_start", 0.0)
    if moved > FAR:
        yield f"samples are more than {FAR:g} nats away from the starting model"
    if moved < -NOISE:
        yield (
            "the estimated distance from the starting model is below 0: samples are not drawn from "
            "the whole policy, or they are few"
        )


def of_step(figures: Figures, first: bool) -> Iterator[str]:
    """Kinds of trouble with a training step."""
    if figures["entropy"] < SURE:
        yield f"entropy is below {SURE:g} nats a token"
    if first and figures.get("ratio_off", 0.0) > RATIO_OFF:
        yield (
            f"ratios are {RATIO_OFF:g} or more from 1 at the first step after sampling: sampling "
            "and training find different probabilities"
        )
    for name, what in (("kl_behaviour", "the policy that drew the samples"), ("kl", "the start")):
        value = figures.get(name, 0.0)
        if value > MOVED:
            yield f"the policy is more than {MOVED:g} nats a token away from {what}"
        if value < -1e-4:
            yield f"the divergence from {what} is below 0, which no divergence is"


def of_evaluations(accuracies: Sequence[float]) -> Iterator[str]:
    """Kinds of trouble with a run's evaluations, the starting model's first."""
    start, *later = accuracies
    if len(later) >= BELOW and max(later[-BELOW:]) < start:
        yield f"accuracy was below the starting model's in {BELOW} evaluations in a row"


def told(counts: Mapping[str, int]) -> str:
    """A line for each kind, the most frequent first; empty where there is none."""
    ordered = collections.Counter(counts).most_common()
    return "\n".join(f"alarm ({count}x): {kind}" for kind, count in ordered)
