"""The reference for the decode engine: one batch, every row waits for the longest."""

import functools

import jax
import jax.numpy as jnp

from hir_jax.decoding import draws
from hir_jax.model import t5
from hir_jax.model.cache import init_cache


@functools.partial(
    jax.jit, static_argnames=("config", "samples", "max_new_tokens", "greedy", "top_k", "top_p")
)
def decode_batch(
    params,
    source_BxS,
    source_mask_BxS,
    uid_B,
    key,
    temperature,
    eos_id,
    *,
    config,
    samples,
    max_new_tokens,
    greedy=False,
    top_k=0,
    top_p=1.0,
):
    """Tokens NxT (row b * R + r is sample r of question b), their number N, log-probability N."""
    questions, length = source_BxS.shape
    rows = questions * samples
    encoded = t5.encode(params, config, source_BxS, source_mask_BxS)
    key_N = draws.row_keys(
        key, jnp.repeat(uid_B, samples), jnp.tile(jnp.arange(samples), questions)
    )
    cache = init_cache(config, rows, max_new_tokens, questions, samples, length)
    cache = t5.put_sources(params, config, cache, encoded, source_mask_BxS, jnp.arange(questions))

    def step(carry, clock):
        cache, token_N, done_N, length_N, total_N = carry
        age_N = jnp.broadcast_to(clock, (rows,))
        logits_NxV, cache = t5.decode_step(params, config, cache, token_N, clock, age_N)
        how = (draws.uniforms(key_N, age_N), temperature, top_k, top_p)
        drawn_N = draws.greedy(logits_NxV) if greedy else draws.draw(logits_NxV, *how)
        logprob_N = draws.token_logprob(logits_NxV, drawn_N)
        drawn_N = jnp.where(done_N, config.pad_token_id, drawn_N)
        total_N += jnp.where(done_N, 0.0, logprob_N)
        return (cache, drawn_N, done_N | (drawn_N == eos_id), length_N + ~done_N, total_N), drawn_N

    begin = (
        cache,
        jnp.full(rows, config.decoder_start_token_id, jnp.int32),
        jnp.zeros(rows, bool),
        jnp.zeros(rows, jnp.int32),
        jnp.zeros(rows),
    )
    (_, _, _, length_N, total_N), tokens_TxN = jax.lax.scan(step, begin, jnp.arange(max_new_tokens))
    return tokens_TxN.T, length_N, total_N
