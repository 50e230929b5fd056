"""A decode loop of our own for engines that run the graphs of `benchmarks.peers.graphs`.

Rows that have ended leave the batch after each step, keys and values of the source are computed
once a prompt, and each cache grows by blocks.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from benchmarks.peers.work import Work, pad

BLOCK = 16  # tokens that a cache grows by
TOP_K, EOS, NEVER = 50, 1, -1e9


class Step(Protocol):
    """One step of the decoder on some batch."""

    def bind(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Inputs from now on; what is written into them later counts."""

    def run(self) -> dict[str, np.ndarray]:
        """`next` tokens, and the `new` keys and values."""


class Engine(Protocol):
    """What can run both graphs."""

    def encode(self, ids_PxS: np.ndarray, mask_PxS: np.ndarray) -> dict[str, np.ndarray]:
        """Keys and values of the source, by name."""

    def step(self) -> Step:
        """For another batch."""


def sample(
    engine: Engine,
    batch: list[list[int]],
    work: Work,
    bias_HxT: np.ndarray,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Outputs, BxT, the samples of a prompt side by side, zeros after their ends.

    Args:
        engine: to run the graphs.
        batch: prompts.
        work: how many samples, how long, and whether an output may end.
        bias_HxT: of a token so far back.
        rng: draws; None takes the likeliest tokens.
    """
    ids_PxS = np.array(pad(batch))
    mask_PxS = (ids_PxS != 0).astype(np.int64)
    count = len(batch) * work.samples
    outputs_BxT = np.zeros((count, work.max_new_tokens), np.int64)
    source = {
        name: array if work.samples == 1 else np.repeat(array, work.samples, axis=0)
        for name, array in engine.encode(ids_PxS, mask_PxS).items()
    }
    cross_bias = np.where(mask_PxS, 0, NEVER).astype(np.float32)[:, None, None]
    # What each row has, first axis its own: whoever ends leaves all of these.
    rows = source | {
        "row": np.arange(count),
        "tokens": np.zeros(count, np.int64),
        "cross_bias": np.repeat(cross_bias, work.samples, axis=0),
    }
    own = [name for name in rows if name.startswith("source")]
    heads, width = rows[own[0]].shape[1], rows[own[0]].shape[3]
    own = [name.replace("source", "own") for name in own]
    rows |= {name: np.zeros((count, heads, 0, width), np.float32) for name in own}
    step = engine.step()
    for t in range(work.max_new_tokens):
        if t % BLOCK == 0:
            empty = np.zeros((len(rows["row"]), heads, BLOCK, width), np.float32)
            rows |= {name: np.concatenate([rows[name], empty], axis=2) for name in own}
        noise = np.zeros((len(rows["row"]), TOP_K), np.float32)
        if rng is not None:
            noise = rng.gumbel(size=noise.shape).astype(np.float32)
        step.bind({name: array for name, array in rows.items() if name != "row"})
        step.bind({"noise": noise, "self_bias": self_bias(bias_HxT, t, rows[own[0]].shape[2])})
        made = step.run()
        for name in own:
            rows[name][:, :, t : t + 1] = made[name.replace("own", "new")]
        rows["tokens"][:] = outputs_BxT[rows["row"], t] = made["next"]
        live = work.exact | (made["next"] != EOS)
        if not live.all():
            rows = keep(rows, live)
        if not live.any():
            break
    return outputs_BxT


def sampler(engine: Engine, work: Work, bias_HxT: np.ndarray) -> Callable[[list[list[int]]], int]:
    """Samples a batch and tells how many tokens it made."""
    seeds = itertools.count()

    def run(batch: list[list[int]]) -> int:
        outputs = sample(engine, batch, work, bias_HxT, np.random.default_rng(next(seeds)))
        return outputs.size if work.exact else int((outputs != 0).sum())

    return run


def self_bias(bias_HxT: np.ndarray, t: int, room: int) -> np.ndarray:
    """1xHx1x(room + 1) for the token at position t: of the cache, then of the token itself.

    At t = 2 with room for 4 that is: 2 back, 1 back, never, never, 0 back.
    """
    made = np.full((1, len(bias_HxT), 1, room + 1), NEVER, np.float32)
    made[0, :, 0, :t] = bias_HxT[:, 1 : t + 1][:, ::-1]
    made[0, :, 0, room] = bias_HxT[:, 0]
    return made


def keep(rows: dict[str, np.ndarray], live: np.ndarray) -> dict[str, np.ndarray]:
    """The live rows, as a view: the last of them are written over those that ended.

    Rows 0 1 2 3 4, of which 0 and 2 have ended, become 3 1 4.
    """
    count = int(live.sum())
    ended, last = np.flatnonzero(~live[:count]), count + np.flatnonzero(live[count:])
    for array in rows.values():
        array[ended] = array[last]
    return {name: array[:count] for name, array in rows.items()}
