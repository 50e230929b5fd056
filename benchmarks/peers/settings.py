"""Settings of a peer, and the search for its best ones. Standard library alone."""

import dataclasses
import heapq
import itertools
import os
import time
from collections.abc import Callable, Sequence

BATCHES = (8, 16, 32, 64)
PART = 128  # prompts at most that settings are compared on
FINALISTS = 3  # settings that are timed again


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a peer uses the machine.

    Attributes:
        workers: batches that are sampled at the same time.
        batch: prompts of each.
        encode_once: a prompt is encoded once for all its samples, not once for each.
    """

    workers: int
    batch: int
    encode_once: bool = True

    @property
    def threads(self) -> int:
        """Of each worker: together they have all cores."""
        return max(1, os.cpu_count() // self.workers)


@dataclasses.dataclass(frozen=True)
class Grid:
    """All the settings that a peer is tried with.

    Attributes:
        workers: as in `Settings`; None: one, and as many as there are cores.
        batch: as in `Settings`; also the rows of workers that do not encode once.
        encode_once: as in `Settings`.
    """

    workers: Sequence[int] | None = None
    batch: Sequence[int] = BATCHES
    encode_once: Sequence[bool] = (True,)

    def settings(self, prompts: int, samples: int) -> list[Settings]:
        """Those that differ where there are so many prompts, with so many samples of each."""
        workers = self.workers or sorted({1, os.cpu_count()})
        once = self.encode_once if samples > 1 else (True,)
        every = itertools.starmap(Settings, itertools.product(workers, self.batch, once))
        smallest = min(self.batch)
        return [s for s in every if s.batch in (smallest, min(s.batch, -(-prompts // s.workers)))]


def part(prompts: list[list[int]]) -> list[list[int]]:
    """At most `PART` of them, of all lengths."""
    stride = -(-len(prompts) // PART)
    return sorted(prompts, key=len)[::stride]


def search(
    settings: Sequence[Settings],
    run: Callable[[Settings], int],
    now: Callable[[], float] = time.perf_counter,
) -> list[tuple[Settings, float]]:
    """Tokens a second with each, the best first. The best few are timed twice; their best counts.

    Args:
        settings: to be tried.
        run: samples some prompts and tells how many tokens it made.
        now: the time in seconds.
    """
    rates: dict[Settings, float] = {}
    for turn in (settings, None):
        for tried in turn or heapq.nlargest(FINALISTS, rates, key=rates.get):
            started = now()
            tokens = run(tried)
            rates[tried] = max(rates.get(tried, 0), tokens / (now() - started))
    return sorted(rates.items(), key=lambda item: -item[1])
