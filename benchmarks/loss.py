"""The loss's reduction over the vocabulary in pieces, beside the plain one that holds all logits.

    python -m benchmarks.loss --rows=32 --target=32

Value and gradient of the smoothed, entropy-regularised loss at FLAN-T5-small's width and
vocabulary, in float32: how far the two differ, memory beside arguments and results by the
compiler's own account, time.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from hir_jax.model import shapes
from hir_jax.run import metrics
from hir_jax.training import losses

FLAGS = flags.FLAGS
flags.DEFINE_integer("rows", 32, "Outputs, each under one prompt.")
flags.DEFINE_integer("target", 32, "Tokens of an output.")
flags.DEFINE_integer("logits_mib", 64, "Of logits that are held at a time, as config.train's.")
flags.DEFINE_integer("repeats", 5, "Timed runs; the median is given.")

SMOOTHING, BETA = 0.2, 0.001
Reduce = Callable[..., losses.TokenStatistics]


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    width, *_ = shapes.FLAN_T5["small"]
    keys = jax.random.split(jax.random.key(0), 3)
    decoded = jax.random.normal(keys[0], (FLAGS.rows, FLAGS.target, width))
    head = jax.random.normal(keys[1], (width, shapes.VOCABULARY)) * width**-0.5
    targets = jax.random.randint(keys[2], decoded.shape[:2], 0, shapes.VOCABULARY)
    pieces = losses.pieces_for(
        FLAGS.rows, FLAGS.target, shapes.VOCABULARY, FLAGS.logits_mib * 2**20 // 4
    )
    in_pieces = lambda *args: losses.token_statistics(*args, pieces)  # noqa: E731
    rows, found = [], []
    for name, reduce in {"all logits": plain, f"{pieces} pieces": in_pieces}.items():
        value, gradients, memory, seconds = measure(reduce, decoded, head, targets)
        found.append((value, gradients))
        rows.append((name, f"{value:.6f}", f"{memory / 1e6:.0f} MB", f"{seconds:.3f} s"))
    print(metrics.format_table(("", "loss", "memory", "time"), rows))
    (value, gradients), (other, others) = found
    apart = max(np.abs(a - b).max() for a, b in zip(gradients, others, strict=True))
    largest = max(np.abs(a).max() for a in gradients)
    print(f"apart: values {abs(value - other):.1e}, gradients {apart:.1e} (largest {largest:.1e})")


def plain(decoded: jax.Array, head: jax.Array, targets: jax.Array) -> losses.TokenStatistics:
    """What autodiff goes through."""
    logp = jax.nn.log_softmax(decoded @ head)
    target = jnp.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]
    return losses.TokenStatistics(target, logp.mean(-1), -jnp.sum(jnp.exp(logp) * logp, -1))


def measure(reduce: Reduce, *args: jax.Array) -> tuple[float, list[np.ndarray], float, float]:
    """Loss, its gradients, bytes and seconds."""

    def loss(decoded: jax.Array, head: jax.Array, targets: jax.Array) -> jax.Array:
        tokens = reduce(decoded, head, targets)
        mask = jnp.ones(targets.shape, bool)
        terms = losses.supervised(tokens, mask, SMOOTHING), losses.negative_entropy(tokens, mask)
        return (terms[0].sum + BETA * terms[1].sum) / targets.size

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*args).compile()
    times = []
    for _ in range(FLAGS.repeats + 1):
        started = time.perf_counter()
        value, gradients = jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - started)
    memory = compiled.memory_analysis().temp_size_in_bytes
    arrays = [np.asarray(gradient) for gradient in gradients]
    return float(value), arrays, memory, statistics.median(times[1:])


if __name__ == "__main__":
    app.run(main)
