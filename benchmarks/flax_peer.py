"""FlaxT5 of transformers 4 under jit, for `benchmarks.sampling`.

It runs in a virtual environment of its own, so it imports nothing of this repository; it speaks as
`benchmarks.turns.serve` does.
"""

import json
import pathlib
import resource
import sys
import time

import jax
import numpy as np
import transformers

BATCH = 64  # prompts


def main() -> None:
    """Samples the workload, a JSON file, for each line that comes in."""
    request = json.loads(pathlib.Path(sys.argv[1]).read_text())
    prompts = sorted(request["prompts"], key=len, reverse=True)
    batches = [prompts[i : i + BATCH] for i in range(0, len(prompts), BATCH)]
    model = transformers.FlaxT5ForConditionalGeneration.from_pretrained(
        request["folder"], from_pt=True
    )
    length = request["max_new_tokens"]
    if request["exact"]:
        model.config.eos_token_id = model.generation_config.eos_token_id = model.config.vocab_size
    longest = len(prompts[0])

    @jax.jit
    def generate(ids: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
        return model.generate(
            ids, attention_mask=mask, do_sample=True, top_k=50, max_new_tokens=length, prng_key=key
        ).sequences

    key = jax.random.key(0)
    for _ in sys.stdin:
        count, started = 0, time.perf_counter()
        for batch in batches:
            rows = [prompt for prompt in batch for _ in range(request["samples"])]
            ids = np.array([p + [0] * (longest - len(p)) for p in rows])
            key, now = jax.random.split(key)
            made = np.asarray(generate(ids, (ids != 0).astype(np.int32), now))
            count += int((made[:, 1:] != 0).sum())
        answer = {
            "seconds": time.perf_counter() - started,
            "tokens": count,
            "batch_size": BATCH,
            "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
