"""The replay buffer: a tuple of samples, sorted by iteration, question and index.

`add` says what is kept, `view` what is trained on, so that a random view of one iteration does not
narrow the choice of the next. `counted` and `shared` say what each pair made of it counts for.

Without repeats the buffer is not what the model draws: of a question that it gets right in 8 of 10
samples, the right answer is there once and each mistake once. So a good model trains on mistakes
mostly. Counts (dedup "count") or a set share of right pairs mend that; the log shows both shares.
"""

import collections
import dataclasses
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence

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


def counted(pairs: Sequence[Pair], times: Sequence[int]) -> list[Pair]:
    """The pairs with a weight for how often the output of each was drawn, 1 on average."""
    return _weighed(pairs, np.array(times, float))


def shared(pairs: Sequence[Pair], right: float) -> list[Pair]:
    """The pairs with weights, 1 on average, of which right pairs have the share `right`.

    0 leaves them as they come, and so do pairs that are all right or all wrong.
    """
    weight = np.array([pair.weight for pair in pairs])
    correct = np.array([pair.correct for pair in pairs], bool)
    if not right or not correct.any() or correct.all():
        return list(pairs)
    for kind, share in ((correct, right), (~correct, 1 - right)):
        weight[kind] *= share / weight[kind].sum()
    return _weighed(pairs, weight)


def _weighed(pairs: Sequence[Pair], weight: np.ndarray) -> list[Pair]:
    weight = weight / weight.mean() if pairs else weight
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
    """Figures for the log, of freshly drawn samples; shares of nothing are 0.

    A group is what was drawn for one question in one iteration: R samples.

    Returns:
        size: the number of samples.
        questions: the number of distinct questions.
        correct: the share with a right answer.
        parsed: the share that could be read as an answer.
        repeated: the share that repeats the text of another sample of the same question.
        reward, reward_std: mean and standard deviation of the reward.
        tokens_mean, tokens_max: length of an output, its EOS included.
        all_right, all_wrong: the share of groups all of whose samples are right, or wrong.
        pass@1, pass@2, pass@4, ... up to the largest group: the chance that one of k samples is
            right, `pass_at`; the mean over groups of at least k.
        reward_NAME: where several verifiers judge, the mean reward of the one of that name.
        fact_NAME: the share of which the fact of that name holds.
    """
    size = len(samples)
    distinct = len({_identity(sample, "all") for sample in samples})
    rewards = np.array([sample.reward for sample in samples] or [0.0])
    lengths = [len(sample.tokens) for sample in samples]
    groups = _groups(samples)
    return {
        "size": size,
        "questions": len({sample.example_id for sample in samples}),
        "correct": sum(sample.correct for sample in samples) / max(size, 1),
        "parsed": sum(sample.parsed for sample in samples) / max(size, 1),
        "repeated": (size - distinct) / max(size, 1),
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "tokens_mean": sum(lengths) / max(size, 1),
        "tokens_max": max(lengths, default=0),
        "all_right": sum(right == n for n, right in groups) / max(len(groups), 1),
        "all_wrong": sum(right == 0 for _, right in groups) / max(len(groups), 1),
        **_passes(groups),
        **_means("reward", [sample.rewards for sample in samples]),
        **_means("fact", [sample.facts for sample in samples]),
    }


def pass_at(k: int, n: int, right: int) -> float:
    """The chance that k of n samples, of which so many are right, have a right one among them.

    So of all policies that give n samples it is an unbiased estimate of the chance that one of k is
    right (Chen et al. 2021, arXiv 2107.03374). n must be at least k.
    """
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def _groups(samples: Iterable[Sample]) -> list[tuple[int, int]]:
    """Of each question in each iteration the number of samples, and how many are right."""
    verdicts = collections.defaultdict(list)
    for sample in samples:
        verdicts[sample.example_id, sample.iteration].append(sample.correct)
    return [(len(own), sum(own)) for own in verdicts.values()]


def _passes(groups: Sequence[tuple[int, int]]) -> dict[str, float]:
    found, k = {}, 1
    while of_k := [pass_at(k, n, right) for n, right in groups if n >= k]:
        found[f"pass@{k}"] = sum(of_k) / len(of_k)
        k *= 2
    return found


def _means(kind: str, named: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean under each name; where it is absent, it is 0."""
    names = sorted(set().union(*named))
    return {f"{kind}_{name}": sum(n.get(name, 0) for n in named) / len(named) for name in names}
