"""What the sampler takes and gives."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hir_jax.decoding.trie import Trie
from hir_jax.model.codec import Tokens


class Prompt(NamedTuple):
    """What to continue, and the identity that keys its random draws."""

    tokens: Tokens
    uid: int  # uint32; the same prompt must always have the same


class Guide(NamedTuple):
    """What outputs are guided away from, see `draws.guided`."""

    opposite: Sequence[Tokens]  # of each prompt, the tokens of the opposite one
    guidance: float  # γ
    cutoff: float = 0.0  # α


class Among(NamedTuple):
    """The outputs that may be drawn and no others; the longest fits into the new tokens."""

    trie: Trie
    roots: Sequence[int]  # of each prompt


class Output(NamedTuple):
    """One continuation."""

    tokens: Tokens  # EOS included where one was drawn
    logprob: float  # of all tokens, under the model's own (untempered, untruncated) distribution
    logprobs: tuple[float, ...] = ()  # of each token, where they were asked for
    # Of all tokens, each among those only that the trie lets follow; where there is one
    logprob_among: float | None = None


# Takes outputs by the number of their prompt and their own among its samples.
Receive = Callable[[Mapping[tuple[int, int], Output]], object]


def uid(example_id: str) -> int:
    """The uint32 that keys a question's random draws."""
    return zlib.crc32(example_id.encode())
