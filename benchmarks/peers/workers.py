"""Workers that sample batches at the same time, as processes or as threads.

A peer's module has `load(work, workers, threads)`, which gives a function from a batch of prompts
to the number of tokens it made.
"""

import importlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

from benchmarks.peers.settings import Settings
from benchmarks.peers.work import Work, sorted_batches

Run = Callable[[list[list[int]], Settings], int]  # samples prompts; tells how many tokens
Sample = Callable[[list[list[int]]], int]  # the same of one batch


def processes(module: str, work: Work, workers: int, threads: int) -> Run:
    """Each worker a process with a model of its own."""
    pool = ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        initializer=_load,
        initargs=(module, work, threads),
    )
    _pools.append(pool)
    return _run(pool, _sample)


def threads(module: str, work: Work, workers: int, threads: int) -> Run:
    """Each worker a thread, for engines that release the interpreter's lock and share one model."""
    sample = importlib.import_module(module).load(work, workers, threads)
    return _run(ThreadPoolExecutor(workers), sample)


def alone(module: str, work: Work, workers: int, threads: int) -> Run:
    """A peer that makes batches and has workers by itself: its `load` gives a `Run`."""
    return importlib.import_module(module).load(work, workers, threads)


def _run(pool: Executor, sample: Sample) -> Run:
    def run(prompts: list[list[int]], settings: Settings) -> int:
        return sum(pool.map(sample, sorted_batches(prompts, settings.batch)))

    return run


# Until the interpreter ends them: one that is collected just before may trip over its own end.
_pools: list[Executor] = []
_loaded: list[Sample] = []  # of this worker's process


def _load(module: str, work: Work, threads: int) -> None:
    _loaded.append(importlib.import_module(module).load(work, 1, threads))


def _sample(batch: list[list[int]]) -> int:
    return _loaded[0](batch)
