"""One step's arrays: what its fields are, and which examples share it.

Letters in names: B examples, P prompts of each (p*, and p⁻ where a method wants it), S source
tokens, T target tokens.
"""

import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hir_jax.errors import UserError
from hir_jax.model.batching import Buckets, bucket_of, chunks, pad
from hir_jax.model.codec import Tokens

Scalars = Mapping[str, float | Sequence[float]]
NONE: Mapping[str, Any] = types.MappingProxyType({})


class TrainingExample(NamedTuple):
    """A relabeled pair in tokens."""

    positive: Tokens  # source under p*, EOS included
    negative: Tokens  # source under p⁻
    target: Tokens
    correct: bool  # p* is then the instruction that the output was sampled under
    weight: float = 1.0  # what it counts for; 1 on average over an epoch
    scalars: Scalars = NONE  # those that the layout names


class Layout(NamedTuple):
    """What a batch holds, besides what all have."""

    opposite: bool = False  # the sources under p⁻
    of_rows: tuple[str, ...] = ()  # scalars of an example
    of_tokens: tuple[str, ...] = ()  # scalars of each target token


ONE_PROMPT, TWO_PROMPTS = Layout(), Layout(opposite=True)


class Batch(NamedTuple):
    """Arrays of one training step; rows past the real examples have an empty target."""

    sources_BxPxS: np.ndarray
    source_masks_BxPxS: np.ndarray
    targets_BxT: np.ndarray
    target_mask_BxT: np.ndarray
    correct_B: np.ndarray
    weight_B: np.ndarray
    scalars: Mapping[str, np.ndarray] = NONE  # float32 B or BxT, 0 where there is padding


def plan_batches(
    lengths: Sequence[tuple[int, int]], batch_size: int, buckets: Buckets, rng: np.random.Generator
) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """One epoch: (indices, (source bucket, target bucket)) of each batch, in random order.

    Examples are put in random order, then sorted by bucket and cut into batches, so neighbours are
    alike in length. Where they do not fill all batches, one is short: so many neighbours from a
    random place on, around the end if need be::

        sorted by bucket    8 8 8 8 8 8 8 16 16 16        10 examples, batches of 4
        the short batch           * *                     from place 3 on
        full batches        8 8 8     8 | 8 16 16 16

    A step takes the mean over its batch, so each of the few in a short one counts for more. Cut off
    at the end they would be the longest of every epoch, at up to `batch_size` times the weight of
    the others. From a random place on, drawn anew in each epoch, every example is as likely to be
    among them, and the short batch is no longer than others are.

    Args:
        lengths: (source, target) tokens of each example.
        batch_size: examples a batch.
        buckets: the table of lengths.
        rng: decides order and grouping.
    """
    shapes = [
        (bucket_of(source, buckets.source), bucket_of(target, buckets.target))
        for source, target in lengths
    ]
    order = np.array(sorted(rng.permutation(len(lengths)), key=lambda i: shapes[i][::-1]), int)
    groups = []
    if left := len(order) % batch_size:
        places = (rng.integers(len(order)) + np.arange(left)) % len(order)
        groups, order = [order[places]], np.delete(order, places)
    groups += chunks(order, batch_size)
    plan = [
        (indices, tuple(np.max([shapes[i] for i in indices], axis=0).tolist()))
        for indices in groups
    ]
    return [plan[i] for i in rng.permutation(len(plan))]


def make_batch(
    examples: Sequence[TrainingExample],
    batch_size: int,
    shape: tuple[int, int],
    layout: Layout = ONE_PROMPT,
) -> Batch:
    """Pads examples to (source, target) lengths, and the batch to `batch_size` rows."""
    source_length, target_length = shape
    missing = batch_size - len(examples)
    empty = [()] * missing
    prompts = [pad([*(e.positive for e in examples), *empty], source_length)]
    if layout.opposite:
        prompts.append(pad([*(e.negative for e in examples), *empty], source_length))
    sources, masks = zip(*prompts, strict=True)
    targets, target_mask = pad([*(e.target for e in examples), *empty], target_length)

    def of_tokens(name: str) -> np.ndarray:
        values = np.zeros(targets.shape, np.float32)
        for row, example in zip(values, examples, strict=False):
            length, own = len(example.target), example.scalars[name]
            if len(own) != length:
                raise UserError(
                    f"config.algorithm: expected for {name} {length} numbers, one a token of the "
                    f"target; found {own!r:.200}."
                )
            row[:length] = own
        return values

    def of_rows(values: Sequence[float]) -> np.ndarray:
        return np.array([*values, *[0] * missing], np.float32)

    scalars = {name: of_rows([e.scalars[name] for e in examples]) for name in layout.of_rows}
    return Batch(
        sources_BxPxS=np.stack(sources, axis=1),
        source_masks_BxPxS=np.stack(masks, axis=1),
        targets_BxT=targets,
        target_mask_BxT=target_mask,
        correct_B=np.array([*(e.correct for e in examples), *[False] * missing]),
        weight_B=of_rows([e.weight for e in examples]),
        scalars=scalars | {name: of_tokens(name) for name in layout.of_tokens},
    )
