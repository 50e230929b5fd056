"""What the sampler takes and gives."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

Tokens = tuple[int, ...]


class Prompt(NamedTuple):
    """What to continue, and the identity that keys its random draws."""

    tokens: tuple[int, ...]
    uid: int  # uint32; the same prompt must always have the same


class Guide(NamedTuple):
    """What outputs are guided away from, see `draws.guided`."""

    opposite: Sequence[Tokens]  # of each prompt, the tokens of the opposite one
    guidance: float  # γ
    cutoff: float = 0.0  # α


class Output(NamedTuple):
    """One sampled continuation."""

    tokens: tuple[int, ...]  # EOS included where one was drawn
    logprob: float  # of all tokens, under the model's own (untempered, untruncated) distribution
    logprobs: tuple[float, ...] = ()  # of each token, where they were asked for


def uid(example_id: str) -> int:
    """The uint32 that keys a question's random draws."""
    return zlib.crc32(example_id.encode())
