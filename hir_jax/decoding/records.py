"""What the decode engine is compiled for, what it is given, what it carries and what it gives.

Letters in names: N rows, Q places for questions, R samples a question, L = Q * R lanes, P questions
in the pool, C capacity of the log, S source tokens, T new tokens.
"""

import dataclasses
import math
from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp

from hir_jax.devices import keys
from hir_jax.model.cache import Cache, init_cache
from hir_jax.model.config import T5Config

POOL_ROWS = 2  # a pool has work for so many times the rows

NONE = -1  # the request of an idle row, the question of an empty place


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the engine is compiled for, besides the model.

    Attributes:
        rows: N, outputs decoded at once.
        places: Q, questions whose cross-attention keys and values are kept; see `places_for`.
        samples: R, of each question.
        max_new_tokens: T, after which an output is cut.
        greedy: whether the likeliest tokens are taken; nothing is drawn then, by no `top_k`.
        top_k: see `draws.draw`.
        top_p: see `draws.draw`.
        logprobs: one of `draws.LOGPROBS`.
        guided: whether each output has a second prompt, see `Opposite`. The cache then has 2N rows
            and 2Q places: row N + n reads the token of row n, and place Q + q has the second
            prompt of place q.
        among: whether outputs are among given ones, see `trie`.
    """

    rows: int
    places: int
    samples: int
    max_new_tokens: int
    greedy: bool = False
    top_k: int = 0
    top_p: float = 1.0
    logprobs: str = "none"
    guided: bool = False
    among: bool = False

    @classmethod
    def make(cls, rows: int, samples: int, **others: Any) -> Self:
        """With as many places as keep the rows busy."""
        return cls(rows, places_for(rows, samples), samples, **others)

    @property
    def prompts(self) -> int:
        """Of an output."""
        return 2 if self.guided else 1

    @property
    def lanes(self) -> int:
        """L: each place has one for each sample."""
        return self.places * self.samples

    @property
    def batch(self) -> int:
        """Rows that must be free before any is refilled: handing out one by one costs too much."""
        return max(1, self.rows // 16)

    @property
    def encoded(self) -> int:
        """Questions encoded at once; a pool is a multiple of it."""
        return max(1, self.rows // 16)

    @property
    def pool(self) -> int:
        """P: memory grows with it, and how rarely the host is asked."""
        return -(-POOL_ROWS * self.rows // (self.samples * self.encoded)) * self.encoded


def places_for(rows: int, samples: int) -> int:
    """Places that keep rows busy.

    A question keeps its place until its longest sample has ended. Where lengths are geometric the
    longest of R is 1 + 1/2 + ... + 1/R times as long as the mean; so many times rows / R places
    leave 1% of the rows idle.
    """
    longest = sum(1 / i for i in range(1, samples + 1))
    return min(rows, math.ceil(longest * rows / samples))


@flax.struct.dataclass
class Opposite:
    """The prompts that a pool's questions are guided away from, and how; see `draws.guided`."""

    source_PxS: jax.Array
    source_mask_PxS: jax.Array
    guidance: jax.Array  # γ, scalar
    cutoff: jax.Array  # α, scalar


@flax.struct.dataclass
class Pool:
    """Questions to sample from; request r is sample r mod R of question r // R."""

    source_PxS: jax.Array
    source_mask_PxS: jax.Array
    uid_P: jax.Array  # uint32 identities of the prompts, for the keys of the draws
    questions: jax.Array  # scalar; those from here on are padding
    first: jax.Array  # scalar; the number that the log gives to request 0
    opposite: Opposite | None = None
    root_P: jax.Array | None = None  # in the trie, where there is one

    @property
    def length(self) -> int:
        """S, what sources are padded to."""
        return self.source_PxS.shape[-1]


@flax.struct.dataclass
class Log:
    """Outputs in the order in which they ended."""

    count: jax.Array  # scalar
    request_C: jax.Array
    tokens_CxT: jax.Array  # pad after the end
    length_C: jax.Array  # tokens drawn, EOS included
    logprob_C: jax.Array  # their summed log-probability, of the untempered, untruncated policy
    logprobs_CxT: jax.Array | None  # each token's, of the kind that the shape says
    among_C: jax.Array | None  # summed too, of each token among those that may follow


@flax.struct.dataclass
class Place:
    """Where rows are in the trie; those that have ended wait at the first root."""

    node_N: jax.Array
    among_N: jax.Array  # the log-probability so far, of each token among those that could follow


@flax.struct.dataclass
class State:
    """What decoding carries from step to step, and from pool to pool."""

    clock: jax.Array  # scalar, steps done
    steps: jax.Array  # scalar, steps done before the last request was handed out
    busy: jax.Array  # scalar, rows at work summed over those steps
    request_N: jax.Array  # NONE where a row is idle
    ended_N: jax.Array  # rows whose output is whole, or that are idle
    token_N: jax.Array  # read in the next step
    age_N: jax.Array  # tokens drawn
    tokens_NxT: jax.Array
    logprob_N: jax.Array
    logprobs_NxT: jax.Array | None
    key_N: jax.Array
    lane_N: jax.Array  # L where a row is idle
    cache: Cache
    place: Place | None = None  # in the trie, where there is one


@flax.struct.dataclass
class Desk:
    """What a call hands out from."""

    next: jax.Array  # scalar, the first request not handed out
    question_Q: jax.Array  # of the pool, last put into each place; NONE before


def new_state(config: T5Config, shape: Shape, source_length: int) -> State:
    """All rows idle."""
    rows = shape.rows
    return State(
        clock=jnp.int32(0),
        steps=jnp.int32(0),
        busy=jnp.int32(0),
        request_N=jnp.full(rows, NONE, jnp.int32),
        ended_N=jnp.ones(rows, bool),
        token_N=jnp.zeros(rows, jnp.int32),
        age_N=jnp.zeros(rows, jnp.int32),
        tokens_NxT=jnp.zeros((rows, shape.max_new_tokens), jnp.int32),
        logprob_N=jnp.zeros(rows),
        logprobs_NxT=_logprobs(rows, shape),
        key_N=jnp.broadcast_to(keys.make(0), rows),
        lane_N=jnp.full(rows, shape.lanes, jnp.int32),
        cache=init_cache(
            config,
            shape.prompts * rows,
            shape.max_new_tokens,
            shape.prompts * shape.places,
            shape.samples,
            source_length,
        ),
        place=Place(jnp.zeros(rows, jnp.int32), jnp.zeros(rows)) if shape.among else None,
    )


def new_log(capacity: int, shape: Shape) -> Log:
    """Room for so many outputs."""
    return Log(
        count=jnp.int32(0),
        request_C=jnp.full(capacity, NONE, jnp.int32),
        tokens_CxT=jnp.zeros((capacity, shape.max_new_tokens), jnp.int32),
        length_C=jnp.zeros(capacity, jnp.int32),
        logprob_C=jnp.zeros(capacity),
        logprobs_CxT=_logprobs(capacity, shape),
        among_C=jnp.zeros(capacity) if shape.among else None,
    )


def _logprobs(rows: int, shape: Shape) -> jax.Array | None:
    return None if shape.logprobs == "none" else jnp.zeros((rows, shape.max_new_tokens))
