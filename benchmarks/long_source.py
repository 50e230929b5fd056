"""Attention that holds a part of the scores at a time, beside the plain one that holds all.

    python -m benchmarks.long_source --sources=512,1024,2048,4096 --tokens=4096

The encoder of FLAN-T5-small, forwards and backwards, over batches of as many tokens each: memory
beside arguments and results by the compiler's own account, seconds, those of all cores together
(which other work disturbs less), and how far results and gradients differ. Beyond --plain tokens
the plain form is compiled, for its memory, and not run.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import machine
from hir_jax.model import attention, t5
from hir_jax.model.config import T5Config
from hir_jax.model.shapes import FLAN_T5, VOCABULARY
from hir_jax.run import metrics

FLAGS = flags.FLAGS
flags.DEFINE_list("sources", ["512", "1024", "2048", "4096"], "Tokens of a source.")
flags.DEFINE_integer("tokens", 4096, "Of a batch.")
flags.DEFINE_integer("plain", 2048, "Longest source that the plain form is run with.")
flags.DEFINE_integer("layers", 8, "Of the encoder.")
flags.DEFINE_integer("repeats", 3, "Timed runs of each, in turns; the median is given.")

FORMS = {"plain": attention.Most(*[2**62] * 4), "in parts": attention.CPU}


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    rows = []
    for length in map(int, FLAGS.sources):
        rows += measured(length)
        print(f"{length} tokens: done", flush=True)
    print(f"{machine.name()}, {FLAGS.layers} layers, {FLAGS.tokens} tokens a batch")
    print(metrics.format_table(("source", "", "memory", "seconds", "of cores", "apart"), rows))


def measured(length: int) -> list[tuple[str, ...]]:
    """A row of the table for each form."""
    d_model, d_kv, d_ff, _, heads = FLAN_T5["small"]
    config = T5Config(VOCABULARY, d_model, d_kv, d_ff, FLAGS.layers, 1, heads)
    params = t5.init_params(config, jax.random.key(0))
    source = jax.random.randint(jax.random.key(1), (FLAGS.tokens // length, length), 2, VOCABULARY)
    seen = jnp.arange(length) < length - jnp.arange(source.shape[0])[:, None] * length // 8
    direction = jax.random.normal(jax.random.key(2), (*source.shape, d_model))

    def loss(params: Any) -> jax.Array:
        return jnp.mean(t5.encode(params, config, source, seen) * direction)

    compiled = {}
    for name, most in FORMS.items():
        with mock.patch.object(attention, "CPU", most):
            # A function of its own, or the second form would be the first one's program.
            compiled[name] = jax.jit(jax.value_and_grad(lambda p: loss(p))).lower(params).compile()
    run = [name for name in FORMS if name != "plain" or length <= FLAGS.plain]
    found = {name: jax.device_get(compiled[name](params)) for name in run}
    seconds: dict[str, list[float]] = {name: [] for name in run}
    of_cores: dict[str, list[float]] = {name: [] for name in run}
    for _ in range(FLAGS.repeats):
        for name in run:
            started, worked = time.perf_counter(), time.process_time()
            jax.block_until_ready(compiled[name](params))
            seconds[name].append(time.perf_counter() - started)
            of_cores[name].append(time.process_time() - worked)
    return [
        (
            f"{source.shape[0]} x {length}",
            name,
            f"{compiled[name].memory_analysis().temp_size_in_bytes / 1e9:.2f} GB",
            *(_median(each.get(name)) for each in (seconds, of_cores)),
            _apart(found[name], found["plain"]) if name != "plain" and "plain" in run else "",
        )
        for name in FORMS
    ]


def _median(seconds: Sequence[float] | None) -> str:
    """Nothing where the form was not run."""
    return f"{statistics.median(seconds):.2f}" if seconds else ""


def _apart(found: Any, other: Any) -> str:
    """The largest difference of a gradient's, beside the largest gradient."""
    pairs = list(zip(*(jax.tree.leaves(each[1]) for each in (found, other)), strict=True))
    apart = max(np.abs(a - b).max() for a, b in pairs)
    return f"{apart / max(np.abs(b).max() for _, b in pairs):.0e}"


if __name__ == "__main__":
    app.run(main)
