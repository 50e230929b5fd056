"""A peer in a process of its own, for `benchmarks.sampling`:

    python -m benchmarks.peers NAME WORKLOAD.json [SETTINGS]

Answers as `benchmarks.turns.serve` does: `search` gives the rates of all settings on a part of the
work; with settings, a JSON object, `run` samples all of it with those.
"""

import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import re
import sys

from benchmarks import turns
from benchmarks.peers.settings import Settings, part, search
from benchmarks.peers.table import PEERS
from benchmarks.peers.work import Work
from benchmarks.peers.workers import Run


def main(name: str, file: str, chosen: str = "") -> None:
    """Serves until the end of the input."""
    peer, work = PEERS[name], Work.load(file)
    some = part(work.prompts)

    @functools.cache
    def start(workers: int, threads: int) -> Run:
        run = peer.start(work, workers, threads)
        run(some[: 2 * workers], Settings(workers, batch=2))  # warms up every worker
        return run

    def attempt(tried: Settings) -> int:
        return start(tried.workers, tried.threads)(some, tried)

    def compare() -> dict:
        """All settings."""
        every = peer.grid.settings(len(some), work.samples)
        if peer.compiles:
            for tried in every:
                attempt(tried)
        found = search(every, attempt)
        return {
            "prompts": len(some),
            "tried": [described(tried) | {"tokens_per_second": rate} for tried, rate in found],
        }

    def run() -> dict:
        """The whole work with the settings chosen."""
        settings = Settings(**json.loads(chosen))
        tokens = start(settings.workers, settings.threads)(work.prompts, settings)
        return {"tokens": tokens, "peak_memory_gb": peak_memory_gb()}

    turns.serve(search=compare, run=run)


def described(settings: Settings) -> dict:
    """With what follows from them."""
    return dataclasses.asdict(settings) | {"threads": settings.threads}


def peak_memory_gb() -> float:
    """Of this process and its workers."""
    ids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    status = [pathlib.Path(f"/proc/{i}/status").read_text() for i in ids]
    return sum(int(re.search(r"VmHWM:\s*(\d+) kB", text)[1]) for text in status) / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])
