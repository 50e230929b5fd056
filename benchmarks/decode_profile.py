"""Where the time of a decode step goes: products with weights, reading keys and values, draws.

    python -m benchmarks.decode_profile --rows=64 --source=128 --length=64 --samples=1

FLAN-T5-small's shape, random weights. Parts are taken away one by one and the rest timed
inside a loop of steps, as the engine runs them. `read` is the rate at which this machine sums up a
large array, `product` that of a large matrix product. Beside it, two other ways to build an engine:
a cache whose rows are each written at a column of their own, which is a scatter, timed; and refills
by the host after chunks of steps, whose share of rows at work follows from the outputs' lengths.
And that share with the places that the engine has, by a simulation of its refills.
"""

import contextlib
import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import limits, workloads
from hir_jax.decoding import draws, records
from hir_jax.decoding.programs import laid_out
from hir_jax.devices import sharding
from hir_jax.model import hf, shapes, t5
from hir_jax.model.cache import Cache, Lanes, init_cache
from hir_jax.model.config import Params
from hir_jax.model.layers import Attention
from hir_jax.run import metrics

FLAGS = flags.FLAGS
flags.DEFINE_integer("rows", 64, "Outputs decoded at once.")
flags.DEFINE_integer("samples", 1, "Of each question.")
flags.DEFINE_integer("source", 128, "Tokens of a prompt.")
flags.DEFINE_integer("length", 64, "Columns of the self-attention ring.")
flags.DEFINE_integer("steps", 24, "In a timed run.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of weights and products.")
flags.DEFINE_integer("repeats", 5, "Timed runs; the median is given.")


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    raw = shapes.flan_t5("small")
    one = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
    config = hf.parse_config(raw, pathlib.Path("flan-t5-small"), FLAGS.dtype, has_head=True)
    config = laid_out(config, one)
    made = jax.jit(lambda: t5.init_params(config, jax.random.key(0)))()
    params = jax.jit(functools.partial(t5.cast_weights, dtype=FLAGS.dtype))(made)
    places = records.places_for(FLAGS.rows, FLAGS.samples)
    cache = init_cache(config, FLAGS.rows, FLAGS.length, places, FLAGS.samples, FLAGS.source)
    cache = cache.replace(source_mask_BxS=jnp.ones_like(cache.source_mask_BxS))
    lanes = places * FLAGS.samples
    of_row_N = jnp.arange(FLAGS.rows) * lanes // FLAGS.rows
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
    self_bytes = size((cache.keys_NxGxTxC, cache.values_NxGxTxC))
    cross_bytes = size((cache.cross_keys, cache.cross_values))

    def loop(params: Params, cache: Cache, draw: Callable) -> jax.Array:
        def step(t: jax.Array, carry: tuple) -> tuple:
            cache, token_N = carry
            age_N = jnp.broadcast_to(t, FLAGS.rows)
            logits_NxV, cache = t5.decode_step(
                params, config, cache, token_N, t, age_N, Lanes.make(of_row_N, lanes)
            )
            return cache, draw(logits_NxV)

        token_N = jnp.zeros(FLAGS.rows, jnp.int32)
        return jax.lax.fori_loop(0, FLAGS.steps, step, (cache, token_N))[1]

    def milliseconds(draw: Callable) -> float:
        run = jax.jit(lambda params, cache: loop(params, cache, draw))
        return 1e3 * seconds(lambda: run(params, cache)) / FLAGS.steps

    def sampled(logits_NxV: jax.Array) -> jax.Array:
        uniform_Nx2 = draws.uniforms(
            jax.random.split(jax.random.key(0), FLAGS.rows), jnp.zeros(FLAGS.rows, jnp.int32)
        )
        return draws.draw(logits_NxV, uniform_Nx2, jnp.float32(1), 50)

    # The cheapest thing that needs all logits.
    undrawn = lambda logits_NxV: jnp.max(logits_NxV, -1).astype(jnp.int32)  # noqa: E731
    everything, no_draws = milliseconds(sampled), milliseconds(undrawn)
    with written_by_scatter():
        scattered = milliseconds(undrawn)
    with without_attention(FLAGS.source):
        no_cross = milliseconds(undrawn)
    with without_attention(FLAGS.source, FLAGS.length):
        products = milliseconds(undrawn)
    read, rate = limits.read_rate() / 1e9, limits.product_rate() / 1e9
    weights = sum(leaf.size for leaf in jax.tree.leaves(params["decoder"])) + params["lm_head"].size
    # Keys and values of the source are projected once, not in a step.
    cross = 2 * config.num_decoder_layers * config.d_model * config.num_heads * config.d_kv
    flops = 2 * FLAGS.rows * (weights - cross)
    rows = [
        ("whole step", everything, ""),
        ("draws, top-k 50", everything - no_draws, ""),
        ("cross-attention", no_draws - no_cross, rate_of(cross_bytes, no_draws - no_cross)),
        ("self-attention", no_cross - products, rate_of(self_bytes, no_cross - products)),
        ("products, norms, the rest", products, f"{flops / products / 1e6:.0f} GFLOP/s"),
    ]
    rows.append(("a column a row instead", scattered - no_draws, "more than the ring"))
    print(metrics.format_table(("part", "ms", ""), [(a, f"{b:.1f}", c) for a, b, c in rows]))
    shares = ", ".join(f"{chunk}: {rows_at_work(chunk):.0%}" for chunk in (4, 8, 16, 32))
    print(f"rows at work with refills after chunks of steps, mean length 12: {shares}")
    shares = ", ".join(f"{samples}: {rows_kept_busy(samples):.1%}" for samples in (1, 2, 4, 8, 16))
    print(f"rows at work with the engine's places, by samples a question: {shares}")
    print(f"this machine: product {rate:.0f} GFLOP/s, read {read:.1f} GB/s")


def rate_of(size: int, milliseconds: float) -> str:
    """Bytes of keys and values a step, and how fast they were read."""
    return f"{size / 1e6:.0f} MB at {size / milliseconds / 1e6:.1f} GB/s"


@contextlib.contextmanager
def without_attention(*lengths: int) -> Iterator[None]:
    """Attention to so many keys gives its queries back, so that its four products remain."""
    step = Attention.step

    def changed(self: Attention, x: jax.Array, key: jax.Array, *args: jax.Array) -> jax.Array:
        if key.shape[2] in lengths:
            return self.out(self.query(x))
        return step(self, x, key, *args)

    with mock.patch.object(Attention, "step", changed):
        yield


@contextlib.contextmanager
def written_by_scatter() -> Iterator[None]:
    """Each row's key and value go to a column of its own."""
    update = jax.lax.dynamic_update_slice

    def changed(old: jax.Array, new: jax.Array, start: tuple) -> jax.Array:
        if old.ndim != 4:
            return update(old, new, start)
        row_N = jnp.arange(old.shape[0])
        column_N = (start[2] + row_N) % old.shape[2]
        return old.at[row_N, :, column_N].set(new[:, :, 0])

    with mock.patch.object(jax.lax, "dynamic_update_slice", changed):
        yield


def rows_at_work(chunk: int) -> float:
    """The share where lengths are geometric and an ended row waits for the end of its chunk."""
    lengths = np.arange(1, 1000)
    probability = (1 - 1 / workloads.MEAN_LENGTH) ** (lengths - 1) / workloads.MEAN_LENGTH
    taken = -(-lengths // chunk) * chunk
    return float((probability * lengths).sum() / (probability * taken).sum())


def rows_kept_busy(samples: int, rows: int = 64, questions: int = 1000) -> float:
    """The share with `places_for` places and geometric lengths, until all is handed out."""
    places, batch = records.places_for(rows, samples), max(1, rows // 16)
    probability = 1 / workloads.MEAN_LENGTH
    left_QxR = np.random.default_rng(0).geometric(probability, (questions, samples))
    at_work_QxR = np.zeros(left_QxR.shape, bool)
    handed_out = busy = steps = 0
    while handed_out < left_QxR.size:
        taken_Q = at_work_QxR.any(axis=1)
        begun = -handed_out % samples  # samples still to be handed out of a question that has begun
        taken_Q[handed_out // samples] |= begun > 0
        room = samples * (places - taken_Q.sum()) + begun
        waiting = left_QxR.size - handed_out
        given = min(rows - at_work_QxR.sum(), room, waiting)
        if given >= min(batch, waiting):
            at_work_QxR.ravel()[handed_out : handed_out + given] = True
            handed_out += given
        busy += at_work_QxR.sum()
        steps += 1
        left_QxR -= at_work_QxR
        at_work_QxR &= left_QxR > 0
    return busy / (steps * rows)


def seconds(run: Callable[[], jax.Array]) -> float:
    """The median of some runs, after one that compiles."""
    jax.block_until_ready(run())
    times = []
    for _ in range(FLAGS.repeats):
        started = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    app.run(main)
