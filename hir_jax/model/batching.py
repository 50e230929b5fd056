"""Fixed-shape batches from a few length buckets, so that few shapes are ever compiled.

Letters in names: B examples, S source tokens, T target tokens; the axis of 2 is (p*, p⁻).
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

# Bucket lengths are multiples of this, which suits the tiles of TPUs and GPUs.
MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class Buckets:
    """The one table of lengths that sampling and training pad to."""

    source: tuple[int, ...]
    target: tuple[int, ...]


def make_buckets(
    source_lengths: Sequence[int], max_target: int, source_count: int, target_count: int
) -> Buckets:
    """The table that pads the data at hand least.

    Sub-outputs lengthen a source by at most `max_target`, so one more bucket is added for those
    that then outgrow the longest prompt; it costs nothing unless it is used.

    Args:
        source_lengths: of every prompt that will be used, in tokens.
        max_target: the longest target, in tokens.
        source_count: buckets for prompts.
        target_count: buckets for targets, each half the length of the next.
    """
    source = best_lengths(source_lengths, source_count)
    overflow = round_up(source[-1] + max_target, MULTIPLE)
    halved = {round_up(max(max_target >> i, 1), MULTIPLE) for i in range(target_count)}
    return Buckets((*source, overflow), tuple(sorted(halved)))


def best_lengths(lengths: Sequence[int], count: int) -> tuple[int, ...]:
    """At most `count` multiples of 8 that cover all lengths with the least padding.

    Dynamic programming over the distinct rounded lengths: cost[k][j] is the least total of padded
    tokens with k buckets of which the longest is the j-th length.
    """
    rounded = round_up(np.asarray(lengths), MULTIPLE)
    values, frequency = np.unique(rounded, return_counts=True)
    covered = np.concatenate([[0], np.cumsum(frequency)])
    cost = [(int(covered[j + 1] * value), (int(value),)) for j, value in enumerate(values)]
    for _ in range(count - 1):
        cost = [
            min(
                [cost[j]]
                + [
                    (
                        cost[i][0] + int((covered[j + 1] - covered[i + 1]) * values[j]),
                        (*cost[i][1], int(values[j])),
                    )
                    for i in range(j)
                ]
            )
            for j in range(len(values))
        ]
    return cost[-1][1]


def bucket_of(length: int, buckets: Sequence[int]) -> int:
    """The shortest bucket that holds `length`. Raises ValueError where none does."""
    for bucket in buckets:
        if length <= bucket:
            return bucket
    raise ValueError(f"length {length} is beyond the longest bucket, {buckets[-1]}")


def pad(rows: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as one int32 array, zeros on the right, and the mask of what is real."""
    tokens = np.zeros((len(rows), length), np.int32)
    mask = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
        mask[i, : len(row)] = True
    return tokens, mask


def chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Consecutive pieces of at most `size`."""
    for i in range(0, len(items), size):
        yield items[i : i + size]


def by_bucket(
    lengths: Sequence[int], buckets: Sequence[int], size: int
) -> Iterator[tuple[int, Sequence[int]]]:
    """Each bucket with the places of at most `size` of its lengths, from the shortest on."""
    places: dict[int, list[int]] = {bucket: [] for bucket in sorted(buckets)}
    for i, length in enumerate(lengths):
        places[bucket_of(length, buckets)].append(i)
    for bucket, own in places.items():
        for part in chunks(own, size):
            yield bucket, part


def round_up(n: int | np.ndarray, multiple: int) -> int | np.ndarray:
    """The least multiple that is not below n."""
    return -(-n // multiple) * multiple
