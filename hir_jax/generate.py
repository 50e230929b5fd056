"""Decoding: one jitted loop with a key-value cache, and the driver that feeds it prompts.

Letters in names: B questions, R samples a question, N = B * R rows, S source tokens, T new tokens.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from hir_jax import batching, sampling, sharding, t5


class Prompt(NamedTuple):
    """What to continue, and the identity that keys its random draws."""

    tokens: tuple[int, ...]
    uid: int  # uint32; the same prompt must always have the same


class Output(NamedTuple):
    """One sampled continuation."""

    tokens: tuple[int, ...]  # EOS included where one was drawn
    logprob: float  # of all tokens, under the model's own (untempered, untruncated) distribution


@flax.struct.dataclass
class State:
    """The decode loop's state."""

    clock: jax.Array  # steps done; scalar
    token_N: jax.Array  # read in the next step
    done_N: jax.Array  # rows that have drawn EOS
    tokens_NxT: jax.Array  # drawn so far; pad elsewhere
    length_N: jax.Array  # tokens drawn, EOS included
    logprob_N: jax.Array  # their summed log-probability
    cache: t5.Cache


@functools.partial(
    jax.jit, static_argnames=("config", "samples", "max_new_tokens", "top_k", "top_p")
)
def decode_batch(
    params: t5.Params,
    source_BxS: jax.Array,
    source_mask_BxS: jax.Array,
    uid_B: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
    eos_id: jax.Array,
    *,
    config: t5.T5Config,
    samples: int,
    max_new_tokens: int,
    top_k: int = 0,
    top_p: float = 1.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Samples each question's continuations from one encoding of it.

    Args:
        params: the policy's parameters.
        source_BxS: prompts; a row without any real token is padding and ends at once.
        source_mask_BxS: True at real tokens.
        uid_B: uint32 identities of the prompts, for the keys of the draws.
        key: of this iteration.
        temperature: scalar; 0 is greedy.
        eos_id: scalar; -1 never ends a row early.
        config: the model's shape.
        samples: R, for each question.
        max_new_tokens: T, after which a row is cut.
        top_k: see `sampling.draw`.
        top_p: see `sampling.draw`.

    Returns:
        Tokens NxT (row b * R + r is sample r of question b), their number N, log-probability N.
    """
    rows = source_BxS.shape[0] * samples
    encoded = t5.encode(params, config, source_BxS, source_mask_BxS)
    uid_N = jnp.repeat(uid_B, samples)
    key_N = sampling.row_keys(key, uid_N, jnp.tile(jnp.arange(samples), source_BxS.shape[0]))

    def step(state: State) -> State:
        age_N = jnp.broadcast_to(state.clock, (rows,))
        logits_NxV, cache = t5.decode_step(
            params, config, state.cache, state.token_N, state.clock, age_N
        )
        uniform_Nx2 = sampling.uniforms(key_N, age_N)
        drawn_N = sampling.draw(logits_NxV, uniform_Nx2, temperature, top_k, top_p)
        logprob_N = sampling.token_logprob(logits_NxV, drawn_N)
        drawn_N = jnp.where(state.done_N, config.pad_token_id, drawn_N)
        return State(
            clock=state.clock + 1,
            token_N=drawn_N,
            done_N=state.done_N | (drawn_N == eos_id),
            tokens_NxT=jax.lax.dynamic_update_slice(
                state.tokens_NxT, drawn_N[:, None], (0, state.clock)
            ),
            length_N=state.length_N + ~state.done_N,
            logprob_N=state.logprob_N + jnp.where(state.done_N, 0.0, logprob_N),
            cache=cache,
        )

    state = jax.lax.while_loop(
        lambda state: (state.clock < max_new_tokens) & ~jnp.all(state.done_N),
        step,
        State(
            clock=jnp.int32(0),
            token_N=jnp.full(rows, config.decoder_start_token_id, jnp.int32),
            done_N=jnp.repeat(~jnp.any(source_mask_BxS, axis=1), samples),
            tokens_NxT=jnp.full((rows, max_new_tokens), config.pad_token_id, jnp.int32),
            length_N=jnp.zeros(rows, jnp.int32),
            logprob_N=jnp.zeros(rows),
            cache=t5.init_cache(params, config, encoded, source_mask_BxS, rows, max_new_tokens),
        ),
    )
    return state.tokens_NxT, state.length_N, state.logprob_N


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Feeds prompts to `decode_batch` in length buckets.

    Attributes:
        config: the model's shape.
        mesh: where it runs.
        buckets: source lengths to pad to.
        batch_size: questions a batch.
        max_new_tokens: T, after which an output is cut.
        eos_id: what ends an output.
        top_k: see `sampling.draw`.
        top_p: see `sampling.draw`.
    """

    config: t5.T5Config
    mesh: Mesh
    buckets: tuple[int, ...]
    batch_size: int
    max_new_tokens: int
    eos_id: int
    top_k: int = 0
    top_p: float = 1.0

    def __call__(
        self,
        params: t5.Params,
        prompts: Sequence[Prompt],
        key: jax.Array,
        temperature: float,
        samples: int = 1,
        progress: Callable[[int], object] = lambda n: None,
    ) -> list[list[Output]]:
        """`samples` outputs for each prompt, in the prompts' order.

        `progress` is told of each batch's number of outputs as it ends; an exception that it
        raises stops the work.
        """
        size = batching.round_up(self.batch_size, sharding.batch_multiple(self.mesh))
        by_bucket: dict[int, list[int]] = {bucket: [] for bucket in self.buckets}
        for i, prompt in enumerate(prompts):
            by_bucket[batching.bucket_of(len(prompt.tokens), self.buckets)].append(i)
        decode = functools.partial(
            decode_batch,
            params,
            key=key,
            temperature=jnp.float32(temperature),
            eos_id=jnp.int32(self.eos_id),
            config=self.config,
            samples=samples,
            max_new_tokens=self.max_new_tokens,
            top_k=self.top_k,
            top_p=self.top_p,
        )
        outputs: list[list[Output]] = [[] for _ in prompts]

        def collect(indices: Sequence[int], arrays: tuple[jax.Array, ...]) -> None:
            tokens_NxT, length_N, logprob_N = jax.device_get(arrays)
            for row, i in enumerate(np.repeat(indices, samples)):
                drawn = tuple(tokens_NxT[row, : length_N[row]].tolist())
                outputs[i].append(Output(drawn, float(logprob_N[row])))
            progress(len(indices) * samples)

        compiled = decode_batch._cache_size()
        running: list[tuple[Sequence[int], tuple[jax.Array, ...]]] = []
        for bucket, members in by_bucket.items():
            for indices in batching.chunks(members, size):
                batch = self._place([prompts[i] for i in indices], size, bucket)
                running.append((indices, decode(*batch)))
                if len(running) > 1:  # the device works on this batch while the last one is read
                    collect(*running.pop(0))
        for pending in running:
            collect(*pending)
        compiled = decode_batch._cache_size() - compiled
        if compiled:
            logging.info("sampling: compiled %d new shapes", compiled)
        return outputs

    def _place(self, prompts: Sequence[Prompt], rows: int, length: int) -> tuple[jax.Array, ...]:
        """Source, mask and uids of a batch, each row where the batch axis of the mesh puts it."""
        missing = rows - len(prompts)
        source, mask = batching.pad([*(p.tokens for p in prompts), *[()] * missing], length)
        uid = np.array([*(p.uid for p in prompts), *[0] * missing], np.uint32)
        return jax.device_put((source, mask, uid), sharding.batch_sharding(self.mesh))
