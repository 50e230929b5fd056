"""Parity with torch on the device, from what is recorded in `tests/golden`; torch is not needed."""

import collections
import concurrent.futures
import contextlib
import os
from typing import Any, NamedTuple

import jax

from benchmarks.visits.stages import Note, Visit
from tests.golden import differences, families

FIRST = ("v1_0", "v1_1")
FOLDER = families.FOLDER.parent


class Precision(NamedTuple):
    """How is computed, and how far apart it may be.

    Attributes:
        name: for people to read.
        dtype: of activations and products.
        products: JAX's precision of products; None: as runs have it, which is less on accelerators.
        logits: the most that a logit may be apart, of some that are up to 10.
        scores: the same of a target's log-probability, which sums up to 12 of them.
        greedy_tokens: the least share of equal ones; near ties decide otherwise in less precision,
            and all that follows is another output then.
    """

    name: str
    dtype: str
    products: str | None
    logits: float
    scores: float
    greedy_tokens: float


HIGHEST = Precision("float32, highest", "float32", "highest", 1e-4, 1e-3, 1.0)
# On a CPU bfloat16 is up to 0.64 and 0.48 apart. A TPU's products of float32 are in bfloat16, too.
DEFAULT = Precision("float32", "float32", None, 1.5, 2.0, 0.0)
HALF = Precision("bfloat16", "bfloat16", None, 1.5, 2.0, 0.0)


def run(visit: Visit, note: Note) -> None:
    """Models as transformers writes them in three precisions; or all families in two."""
    if visit.stage.name == "parity":
        tasks = [(name, each) for name in FIRST for each in (HIGHEST, DEFAULT, HALF)]
    else:
        tasks = [(name, each) for name in families.FAMILIES for each in (HIGHEST, HALF)]
    rows = collections.defaultdict(list)
    with concurrent.futures.ThreadPoolExecutor(max(1, os.cpu_count() // 2)) as pool:
        done = {pool.submit(compare, *task): task for task in tasks}
        for future in concurrent.futures.as_completed(done):
            name, _ = done[future]
            rows[name].append(future.result())
            note(**{name: rows[name]})


def compare(name: str, precision: Precision) -> dict[str, Any]:
    """One model in one precision."""
    if name in families.FAMILIES:
        case = differences.load_family(name, precision.dtype)
    else:
        folder = FOLDER / name
        case = differences.load(folder, folder / "expected.npz", precision.dtype)
    with contextlib.ExitStack() as stack:
        if precision.products:
            stack.enter_context(jax.default_matmul_precision(precision.products))
        found = (case.logits(), case.scores(), case.greedy_tokens())
    logits, scores, greedy_tokens = found
    within = logits <= precision.logits and scores <= precision.scores
    return {
        "precision": precision.name,
        "logits": logits,
        "scores": scores,
        "greedy_tokens": greedy_tokens,
        "within": within and greedy_tokens >= precision.greedy_tokens,
    }
