"""Sampling: this engine beside Transformers, CTranslate2 and FlaxT5, on one model in one run.

    python -m benchmarks.sampling --tokenizer=T5_TOKENIZER --bigbench_dir=BENCHMARK_TASKS \
        --flax_python=OTHER_VENV/bin/python --output=sampling.json

Workloads, the model FLAN-T5-small's shape with random weights, sampled with top-k 50:

A  64 prompts of 128 random tokens, exactly 64 new tokens each.
B  256 questions of BIG-bench's twelve tasks, 4 samples each. The weights are fine-tuned until an
   output ends after each token with probability 1/12; at most 128 tokens.
C  B with 64 and with 1,024 questions.

Everyone computes in float32 with the same weights on all cores, is warmed up by a whole run, and
then takes turns with the others; medians are given. Times are from token ids to token ids. Peers
get the prompts sorted by length, and the best of several batch sizes. The limit is the time that
the model's matrix products (of real tokens alone) take at the rate of a large product, measured in
the same run.

Needs torch for Transformers; FlaxT5 needs a virtual environment of its own, with transformers
below 5.
"""

import json
import pathlib
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import jax
from absl import app, flags

from benchmarks import peers, workloads
from hir_jax import hf, metrics, sampler, sharding

FLAGS = flags.FLAGS
flags.DEFINE_list("workloads", ["A", "B", "C"], "Which to run.")
flags.DEFINE_list("peers", ["torch", "ctranslate2"], "Whom to run beside ours.")
flags.DEFINE_string(
    "flax_python", "", "Python of a virtual environment with FlaxT5; none: left out."
)
flags.DEFINE_string("tokenizer", None, "Folder of T5's tokenizer.", required=True)
flags.DEFINE_string("bigbench_dir", "", "A folder laid out like BIG-bench's benchmark_tasks/.")
flags.DEFINE_enum("shape", "small", list(workloads.SHAPES), "Of FLAN-T5.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of ours.")
flags.DEFINE_integer("rows", 0, "Outputs that ours decodes at once; 0: its own choice.")
flags.DEFINE_integer("buckets", 6, "Source lengths that ours pads to.")
flags.DEFINE_integer("repeats", 3, "Timed runs of each.")
flags.DEFINE_string("models", "", "Folder that keeps the models for the next run.")
flags.DEFINE_string("output", "", "A JSON file for all figures.")

Runner = Callable[[], tuple[int, dict]]  # gives the tokens drawn, and what else is to be told


def main(argv: Sequence[str]) -> None:
    """Runs what the flags ask for; prints a table and writes the JSON."""
    del argv
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for name in FLAGS.workloads:
            for workload in workloads.make(
                name,
                FLAGS.shape,
                FLAGS.tokenizer,
                FLAGS.bigbench_dir,
                pathlib.Path(FLAGS.models or folder),
            ):
                records += measure(workload)
                print(table(records), flush=True)
    if FLAGS.output:
        pathlib.Path(FLAGS.output).write_text(json.dumps(records, indent=1) + "\n")


def measure(workload: workloads.Workload) -> list[dict]:
    """A record for ours and each peer."""
    runners = {"hir_jax": ours(workload)}
    for name in FLAGS.peers:
        runners |= peers.make(name, workload, FLAGS.flax_python)
    if FLAGS.flax_python:
        runners |= peers.make("flax", workload, FLAGS.flax_python)
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    tokens: dict[str, list[int]] = {name: [] for name in runners}
    told, rates = {}, []
    for repeat in range(FLAGS.repeats + 1):
        for name, run in runners.items():
            started = time.perf_counter()
            count, told[name] = run()
            elapsed = time.perf_counter() - started
            if repeat:  # the first run compiles and warms up
                seconds[name].append(elapsed)
                tokens[name].append(count)
        rates.append(workloads.product_rate())
    rate = statistics.median(rates)
    records = []
    for name in runners:
        elapsed, count = statistics.median(seconds[name]), statistics.median(tokens[name])
        limit = workload.flops(count) / rate
        records.append(
            {
                "workload": workload.name,
                "runner": name,
                "seconds": elapsed,
                "samples_per_second": workload.outputs / elapsed,
                "tokens_per_second": count / elapsed,
                "tokens": count,
                "share_of_product_limit": limit / elapsed,
                "product_gflops": rate / 1e9,
                "all_seconds": seconds[name],
                "peak_memory_gb": peak_memory_gb(),
                "machine": machine(),
                "dtype": FLAGS.dtype,
                "shape": FLAGS.shape,
            }
            | told[name]
        )
    return records


def ours(workload: workloads.Workload) -> Runner:
    """The engine, as the loop uses it."""
    config = hf.read_config(workload.folder, FLAGS.dtype)
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    params = hf.load_params(workload.folder, config)
    params = jax.device_put(params, sharding.tree_shardings(mesh, params))
    engine = sampler.Sampler(
        config=config,
        mesh=mesh,
        buckets=workload.buckets(FLAGS.buckets),
        rows=FLAGS.rows,
        max_new_tokens=workload.max_new_tokens,
        eos_id=-1 if workload.exact else config.eos_token_id,
        top_k=50,
    )
    prompts = [sampler.Prompt(tuple(p), i) for i, p in enumerate(workload.prompts)]
    draws = iter(range(1 << 30))

    def run() -> tuple[int, dict]:
        key = jax.random.key(next(draws))
        _, cost = engine.run(params, prompts, key, 1.0, workload.samples)
        encoded = cost.source_tokens + cost.padded_tokens
        return cost.tokens, {
            "steps": cost.steps,
            "occupancy": cost.occupancy,
            "padded_share": cost.padded_tokens / encoded,
        }

    return run


def table(records: Sequence[dict]) -> str:
    """What a reader wants first."""
    first = {r["workload"]: r["seconds"] / r["tokens"] for r in records if r["runner"] == "hir_jax"}
    return metrics.format_table(
        (
            "workload",
            "runner",
            "s",
            "samples/s",
            "tokens/s",
            "ours is",
            "of the limit",
            "occupancy",
        ),
        [
            (
                r["workload"],
                r["runner"],
                f"{r['seconds']:.2f}",
                f"{r['samples_per_second']:.1f}",
                f"{r['tokens_per_second']:.0f}",
                f"{r['seconds'] / r['tokens'] / first[r['workload']]:.2f}x",
                f"{r['share_of_product_limit']:.0%}",
                f"{r['occupancy']:.1%}" if "occupancy" in r else "",
            )
            for r in records
        ],
    )


def peak_memory_gb() -> float:
    """Of the device where it tells; else of this process, peers in it included."""
    memory = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in memory:
        return memory["peak_bytes_in_use"] / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def machine() -> str:
    """The device, and how many."""
    device = jax.devices()[0]
    kind = device.device_kind if device.platform != "cpu" else platform.processor() or "cpu"
    return f"{jax.device_count()} x {kind}, jax {jax.__version__}"


if __name__ == "__main__":
    app.run(main)
