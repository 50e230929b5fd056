"""`generate` of FlaxT5 under jit; it is in transformers below 5 alone."""

import os

import numpy as np

from benchmarks.peers.work import Work, pad
from benchmarks.peers.workers import Sample


def load(work: Work, workers: int, threads: int) -> Sample:
    """See `benchmarks.peers.workers`."""
    del workers
    os.environ["NPROC"] = str(threads)  # XLA's own name for its threads, read when it starts
    import jax
    import transformers

    model = transformers.FlaxT5ForConditionalGeneration.from_pretrained(work.folder, from_pt=True)
    if work.exact:
        model.config.eos_token_id = model.generation_config.eos_token_id = model.config.vocab_size
    longest = max(len(prompt) for prompt in work.prompts)  # one length, so that it compiles once
    draws = iter(range(1 << 30))

    @jax.jit
    def generate(ids: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
        return model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=50,
            max_new_tokens=work.max_new_tokens,
            prng_key=key,
        ).sequences

    def sample(batch: list[list[int]]) -> int:
        ids = np.repeat(np.array(pad(batch, longest)), work.samples, axis=0)
        mask = (ids != 0).astype(np.int32)
        made = np.asarray(generate(ids, mask, jax.random.key(next(draws))))[:, 1:]
        return made.size if work.exact else int((made != 0).sum())

    return sample
