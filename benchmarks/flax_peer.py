"""FlaxT5 of transformers 4 under jit, for `benchmarks.sampling`; talks over standard streams."""

import json
import sys

import jax
import numpy as np
import transformers


def main() -> None:
    """Reads the workload, then gives the tokens drawn for each line that comes in."""
    request = json.loads(sys.stdin.readline())
    model = transformers.FlaxT5ForConditionalGeneration.from_pretrained(
        request["folder"], from_pt=True
    )
    length = request["max_new_tokens"]
    if request["exact"]:
        model.config.eos_token_id = model.generation_config.eos_token_id = model.config.vocab_size
    longest = len(request["batches"][0][0])

    @jax.jit
    def generate(ids: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
        return model.generate(
            ids, attention_mask=mask, do_sample=True, top_k=50, max_new_tokens=length, prng_key=key
        ).sequences

    key = jax.random.key(0)
    for _ in sys.stdin:
        count = 0
        for batch in request["batches"]:
            rows = [prompt for prompt in batch for _ in range(request["samples"])]
            ids = np.array([p + [0] * (longest - len(p)) for p in rows])
            key, now = jax.random.split(key)
            made = np.asarray(generate(ids, (ids != 0).astype(np.int32), now))
            count += int((made[:, 1:] != 0).sum())
        print(count, flush=True)


if __name__ == "__main__":
    main()
