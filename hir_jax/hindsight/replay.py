"""The replay buffer: a tuple of samples, sorted by iteration, question and index.

`add` says what is kept, `view` what is trained on, so that a random view of one iteration does not
narrow the choice of the next.
"""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample

DEDUP_MODES = ("all", "iteration", "none")


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
            the same iteration only ("iteration", as in the reference code), or nothing ("none").

    Raises:
        UserError: `dedup` is unknown or `keep_iterations` negative.
    """
    if dedup not in DEDUP_MODES:
        raise UserError(f"Unknown dedup {dedup!r}. Expected one of {', '.join(DEDUP_MODES)}.")
    if keep_iterations < 0:
        raise UserError(f"keep_iterations must be 0 (all) or more, found {keep_iterations}.")
    merged = sorted([*buffer, *samples], key=_order)
    if dedup != "none":
        newest = {_identity(sample, dedup): sample for sample in merged}
        merged = sorted(newest.values(), key=_order)
    if keep_iterations and merged:
        oldest = merged[-1].iteration - keep_iterations + 1
        merged = [sample for sample in merged if sample.iteration >= oldest]
    return tuple(merged)


def _order(sample: Sample) -> tuple[int, str, int]:
    return sample.iteration, sample.example_id, sample.index


def _identity(sample: Sample, dedup: str) -> Hashable:
    return sample.example_id, sample.text, sample.iteration if dedup == "iteration" else None


def view(buffer: Sequence[Sample], *, max_size: int, seed: int) -> tuple[Sample, ...]:
    """The samples to train on: at most `max_size` at random, in the buffer's order; 0 takes all.

    The draw is keyed by (seed, newest iteration). The reference code trains on a random 4 times the
    number of training questions, out of its whole history.

    Raises:
        UserError: `max_size` is negative.
    """
    if max_size < 0:
        raise UserError(f"max_size must be 0 (no limit) or more, found {max_size}.")
    if max_size == 0 or len(buffer) <= max_size:
        return tuple(buffer)
    rng = np.random.default_rng([seed, buffer[-1].iteration])
    chosen = rng.choice(len(buffer), size=max_size, replace=False)
    return tuple(buffer[i] for i in sorted(chosen))


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
