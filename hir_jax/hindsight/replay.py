"""The replay buffer: a tuple of samples, sorted by iteration, question and index.

`add` says what is kept, `view` what is trained on, so that a random view of one iteration does not
narrow the choice of the next. `weigh` says what each pair made of it counts for.

Without repeats the buffer is not what the model draws: of a question that it gets right in 8 of 10
samples, the right answer is there once and each mistake once. So a good model trains on mistakes
mostly. Counts (dedup "count") or a set share of right pairs mend that; the log shows both shares.
"""

import collections
import dataclasses
import math
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from hir_jax.errors import UserError
from hir_jax.hindsight.relabel import Pair
from hir_jax.hindsight.sample import Sample

DEDUP_MODES = ("all", "iteration", "none", "count")


def add(
    buffer: Iterable[Sample], samples: Iterable[Sample], *, keep_iterations: int, dedup: str
) -> tuple[Sample, ...]:
    """The buffer with new samples in it; the same whatever order the two come in.

    Repeats go first, the newest staying, and then the old iterations: an output that the model
    still gives is as fresh as its last appearance.

    Args:
        buffer: what an earlier call gave; empty at the start.
        samples: the outputs of the newest iteration.
        keep_iterations: how many iterations back are kept, the newest included; 0 keeps all.
        dedup: what counts as a repeat of (question, text): one from any iteration ("all"), from
            the same iteration only ("iteration", as in the reference code), or nothing ("none",
            and "count", whose repeats `distinct` takes out once they are counted).

    Raises:
        UserError: `dedup` is unknown or `keep_iterations` negative.
    """
    if dedup not in DEDUP_MODES:
        raise UserError(f"Unknown dedup {dedup!r}. Expected one of {', '.join(DEDUP_MODES)}.")
    if keep_iterations < 0:
        raise UserError(f"keep_iterations must be 0 (all) or more, found {keep_iterations}.")
    merged = sorted([*buffer, *samples], key=_order)
    if dedup in ("all", "iteration"):
        merged = _newest(merged, dedup)
    if keep_iterations and merged:
        oldest = merged[-1].iteration - keep_iterations + 1
        merged = [sample for sample in merged if sample.iteration >= oldest]
    return tuple(merged)


def distinct(buffer: Iterable[Sample]) -> tuple[Sample, ...]:
    """Each output to a question once, where it was drawn last; in the buffer's order."""
    return tuple(_newest(buffer, "all"))


def times_drawn(samples: Iterable[Sample], buffer: Iterable[Sample]) -> list[int]:
    """How often the buffer has each sample's output to its question."""
    times = collections.Counter(_identity(sample, "all") for sample in buffer)
    return [times[_identity(sample, "all")] for sample in samples]


def _newest(samples: Iterable[Sample], dedup: str) -> list[Sample]:
    """The last of each repeat; `samples` are in order."""
    return sorted({_identity(s, dedup): s for s in samples}.values(), key=_order)


def _order(sample: Sample) -> tuple[int, str, int]:
    return sample.iteration, sample.example_id, sample.index


def _identity(sample: Sample, dedup: str) -> Hashable:
    return sample.example_id, sample.text, sample.iteration if dedup == "iteration" else None


def view(
    buffer: Sequence[Sample], *, max_size: int, seed: int, hold_out: float = 0.0
) -> tuple[Sample, ...]:
    """The samples to train on: at most `max_size` at random, in the buffer's order; 0 takes all.

    The draw is keyed by (seed, newest iteration). The reference code holds out a random tenth of
    its whole history, and trains on 4 times the number of training questions out of the rest.

    Raises:
        UserError: `max_size` is negative.
    """
    if max_size < 0:
        raise UserError(f"max_size must be 0 (no limit) or more, found {max_size}.")
    size = len(buffer) - math.ceil(hold_out * len(buffer))
    size = min(size, max_size or size)
    if size == len(buffer):
        return tuple(buffer)
    rng = np.random.default_rng([seed, buffer[-1].iteration])
    chosen = rng.choice(len(buffer), size=size, replace=False)
    return tuple(buffer[i] for i in sorted(chosen))


def weigh(
    pairs: Sequence[Pair], times: Sequence[int] | None = None, share_right: float | None = None
) -> list[Pair]:
    """The pairs with weights, 1 on average.

    Args:
        pairs: of an epoch.
        times: how often the output of each was drawn; None counts each once.
        share_right: of all weight, what right pairs have together; the others have the rest. None
            leaves it as it comes, and so do pairs that are all right or all wrong.
    """
    if not pairs:
        return []
    weight = np.ones(len(pairs)) if times is None else np.array(times, float)
    right = np.array([pair.correct for pair in pairs], bool)
    if share_right is not None and right.any() and not right.all():
        for kind, share in ((right, share_right), (~right, 1 - share_right)):
            weight[kind] *= share / weight[kind].sum()
    weight /= weight.mean()
    return [dataclasses.replace(p, weight=float(w)) for p, w in zip(pairs, weight, strict=True)]


def pairs_summary(pairs: Sequence[Pair]) -> dict[str, float]:
    """Figures for the log, of what is trained on.

    Returns:
        pairs: the number of pairs.
        questions: the number of distinct questions.
        correct: the share under the correct-answer instruction, by weight; of nothing it is 0.
    """
    total = sum(pair.weight for pair in pairs)
    return {
        "pairs": len(pairs),
        "questions": len({pair.example_id for pair in pairs}),
        "correct": sum(pair.weight for pair in pairs if pair.correct) / max(total, 1),
    }


def summary(samples: Sequence[Sample]) -> dict[str, float]:
    """Figures for the log, of the buffer or of freshly drawn samples; shares of nothing are 0.

    Returns:
        size: the number of samples.
        questions: the number of distinct questions.
        correct: the share with a right answer.
        parsed: the share that could be read as an answer.
        repeated: the share that repeats the text of another sample of the same question.
    """
    size = len(samples)
    distinct = len({_identity(sample, "all") for sample in samples})
    return {
        "size": size,
        "questions": len({sample.example_id for sample in samples}),
        "correct": sum(sample.correct for sample in samples) / max(size, 1),
        "parsed": sum(sample.parsed for sample in samples) / max(size, 1),
        "repeated": (size - distinct) / max(size, 1),
    }
