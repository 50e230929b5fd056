"""Sampling: this engine beside other systems, on one model in one run.

    JAX_NUM_CPU_DEVICES=2 python -m benchmarks.sampling --tokenizer=T5_TOKENIZER \
        --bigbench_dir=BENCHMARK_TASKS --transformers4_python=OTHER_VENV/bin/python \
        --output=sampling.json

Workloads, the model FLAN-T5-small's shape with random weights, sampled with top-k 50:

A  64 prompts of 128 random tokens, exactly 64 new tokens each.
B  256 questions of BIG-bench's twelve tasks, 4 samples each. The weights are fine-tuned until an
   output ends after each token with probability 1/12; at most 128 tokens.
C  B with 64 and with 1,024 questions.
D  256 and 1,024 prompts of 256 random tokens, exactly 64 new tokens each: for an accelerator, ours
   alone, `--workloads=D --peers= --shape=base --dtype=bfloat16`.

Peers are Transformers (`generate`), CTranslate2 (`translate_batch`), OpenVINO and ONNX Runtime
(both in a decode loop of our own, `benchmarks.peers.loop`) and, in another environment, FlaxT5 and
optimum's models (`generate`). Each is first tried with all settings of its grid
(`benchmarks.peers.table`: workers, which share the cores; batches; samples by encoding once) on at
most 128 of the prompts, and has the best; what was tried is printed, and is in the JSON.

Everyone computes in float32 with the same weights on all cores in a process of its own (with
`--dtype=bfloat16` each in its nearest to that: `benchmarks.peers.table`), is warmed up by a whole
run, and then takes turns with the others, which are stopped meanwhile; medians are given. Times are
from token ids to token ids. Peers get the prompts sorted by length. The limit is the time that the
model's matrix products (of real tokens alone) take at the rate of a large product; the roofline is
longer where a decode step's reads through the memory are (see `limits.sampling_seconds`). Both
rates are measured in the same run, once a turn, on all devices at once.

Needs torch, ctranslate2, openvino, onnxruntime and onnx. FlaxT5 and optimum need transformers 4, in
a virtual environment of their own; measured with torch and

    pip install "transformers==4.57.6" "flax==0.10.2" "jax==0.4.38" "optimum-intel==1.27.0" \
        "openvino==2025.4.1" "optimum-onnx==0.1.0" "onnxruntime==1.32.0"
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks import limits, machine, turns, workloads
from benchmarks.peers.settings import Settings
from benchmarks.peers.table import PEERS
from hir_jax.decoding import sampler
from hir_jax.decoding.prompt import Prompt
from hir_jax.devices import sharding
from hir_jax.model import hf, shapes
from hir_jax.run import metrics

FLAGS = flags.FLAGS
flags.DEFINE_list("workloads", ["A", "B", "C"], "Which to run.")
flags.DEFINE_list("peers", list(PEERS), "Whom to run beside ours.")
flags.register_validator(
    "peers", lambda names: set(names) <= set(PEERS), f"expected some of {list(PEERS)}"
)
flags.DEFINE_string(
    "transformers4_python",
    "",
    "Python of a virtual environment for the peers that need transformers 4; none: left out.",
)
flags.DEFINE_string("tokenizer", None, "Folder of T5's tokenizer.", required=True)
flags.DEFINE_string("bigbench_dir", "", "A folder laid out like BIG-bench's benchmark_tasks/.")
flags.DEFINE_enum("shape", "small", list(shapes.FLAN_T5), "Of FLAN-T5.")
flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Of ours, and of peers their nearest."
)
flags.DEFINE_integer("rows", 0, "Outputs that ours decodes at once; 0: its own choice.")
flags.DEFINE_integer("buckets", 6, "Source lengths that ours pads to.")
flags.DEFINE_integer("repeats", 3, "Timed runs of each.")
flags.DEFINE_float(
    "patience", 1800, "Seconds after which a peer that has not answered is left out."
)
flags.DEFINE_string("models", "", "Folder that keeps the models for the next run.")
flags.DEFINE_string("output", "", "A JSON file for all figures.")
flags.DEFINE_bool("serve", False, "Whether this is the process that runs ours.")

OURS = "hir_jax"


def main(argv: Sequence[str]) -> None:
    """Runs what the flags ask for; prints a table and writes the JSON."""
    del argv
    if FLAGS.serve:
        return serve()
    jax.config.update("jax_platforms", "cpu")  # an accelerator is for those who take turns
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(FLAGS.models or scratch)
        for name in FLAGS.workloads:
            for workload in workloads.make(
                name, FLAGS.shape, FLAGS.tokenizer, FLAGS.bigbench_dir, folder
            ):
                workload = dataclasses.replace(workload, dtype=FLAGS.dtype)
                workload.save(pathlib.Path(scratch) / "workload.json")
                records += measure(workload, scratch)
                print(table(records), flush=True)
    if FLAGS.output:
        pathlib.Path(FLAGS.output).write_text(json.dumps(records, indent=1) + "\n")
    return None


def serve() -> None:
    """Samples the workload for each line that comes in; answers with its cost."""
    workload = workloads.load(pathlib.Path(FLAGS.models) / "workload.json")
    turns.serve(run=ours(workload), rates=rates)


def rates() -> dict:
    """What this machine can do, now."""
    found = limits.measured(FLAGS.dtype)
    return {
        "product_gflops": found.product / 1e9,
        "read_gb_a_second": found.read / 1e9,
        "devices": found.devices,
        "machine": machine.name(),
    }


def measure(workload: workloads.Workload, scratch: str) -> list[dict]:
    """A record for ours and each peer."""
    names = [name for name in FLAGS.peers if FLAGS.transformers4_python or not PEERS[name].old]
    found = {}
    for name in names:
        with left_out(name):
            found[name] = find_settings(name, scratch)
    command = [sys.executable, "-m", "benchmarks.sampling", *sys.argv[1:]]
    own = turns.Runner([*command, "--serve", f"--models={scratch}"])
    peers = {
        name: start_peer(name, scratch, json.dumps(best["settings"]))
        for name, best in found.items()
    }
    answers: dict[str, list[dict]] = collections.defaultdict(list)
    rates = []
    for repeat in range(FLAGS.repeats + 1):
        rates.append(own.ask("rates"))
        told = {OURS: own.ask()}
        for name, peer in peers.items():
            with left_out(name):
                told[name] = peer.ask()
        peers = {name: peer for name, peer in peers.items() if name in told}
        workload.check_lengths({name: answer["tokens"] for name, answer in told.items()})
        for name in told if repeat else ():  # the first run compiles and warms up
            answers[name].append(told[name])
    for runner in (own, *peers.values()):
        runner.close()
    return [record(workload, name, answers, rates) | found.get(name, {}) for name in told]


@contextlib.contextmanager
def left_out(name: str) -> Iterator[None]:
    """A peer that hangs or ends is none; the others are measured all the same."""
    try:
        yield
    except RuntimeError as error:
        print(f"{name} is left out: {error}", flush=True)


def start_peer(name: str, scratch: str, *settings: str) -> turns.Runner:
    """See `benchmarks.peers.__main__`."""
    python = FLAGS.transformers4_python if PEERS[name].old else sys.executable
    # FlaxT5's JAX has its own idea of devices.
    env = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    command = [python, "-m", "benchmarks.peers", name, f"{scratch}/workload.json", *settings]
    return turns.Runner(command, env, FLAGS.patience)


def find_settings(name: str, scratch: str) -> dict:
    """The settings with which a peer is fastest, and all that were tried."""
    runner = start_peer(name, scratch)
    found = runner.ask("search")
    runner.close()
    tried = found["tried"]
    print(f"{name}, settings tried on {found['prompts']} prompts:", *tried, sep="\n  ", flush=True)
    keys = [field.name for field in dataclasses.fields(Settings)]
    return {
        "settings": {key: tried[0][key] for key in keys},
        "settings_tried": tried,
        "settings_tried_on": found["prompts"],
    }


def record(
    workload: workloads.Workload, name: str, answers: dict[str, list[dict]], rates: list[dict]
) -> dict:
    """What a runner's turns come to."""
    told, rows = answers[name], answers[OURS][0]["rows"]
    elapsed, tokens = median(told, "seconds"), median(told, "tokens")
    product, read = median(rates, "product_gflops"), median(rates, "read_gb_a_second")
    itemsize = jnp.dtype(FLAGS.dtype).itemsize
    found = limits.Rates(product * 1e9, read * 1e9, rates[0]["devices"])
    roofline = workload.roofline(tokens, rows, found, itemsize)
    return told[-1] | {
        "workload": workload.name,
        "runner": name,
        "seconds": elapsed,
        "samples_per_second": workload.outputs / elapsed,
        "tokens_per_second": tokens / elapsed,
        "tokens": tokens,
        "share_of_product_limit": workload.flops(tokens) / (product * 1e9) / elapsed,
        "share_of_roofline": roofline / elapsed,
        "product_gflops": product,
        "read_gb_a_second": read,
        "all_seconds": [each["seconds"] for each in told],
        "machine": rates[0]["machine"],
        "dtype": FLAGS.dtype if name == OURS else PEERS[name].dtypes[FLAGS.dtype],
        "shape": FLAGS.shape,
    }


def median(told: list[dict], key: str) -> float:
    """Over a runner's turns."""
    return statistics.median(each[key] for each in told)


def ours(workload: workloads.Workload) -> Callable[[], dict]:
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
    prompts = [Prompt(tuple(p), i) for i, p in enumerate(workload.prompts)]
    longest, shards = max(len(p) for p in workload.prompts), sharding.batch_multiple(mesh)
    draws = iter(range(1 << 30))

    def run() -> dict:
        key = jax.random.key(next(draws))
        _, cost = engine.run(params, prompts, key, 1.0, workload.samples)
        encoded = cost.source_tokens + cost.padded_tokens
        return {
            "tokens": cost.tokens,
            "peak_memory_gb": machine.peak_memory_gb(),
            "rows": engine.shape(len(prompts), workload.samples, longest).rows * shards,
            "steps": cost.steps,
            "occupancy": cost.occupancy,
            "padded_share": cost.padded_tokens / encoded,
        }

    return run


def table(records: Sequence[dict]) -> str:
    """What a reader wants first."""
    first = {r["workload"]: r["seconds"] / r["tokens"] for r in records if r["runner"] == OURS}
    return metrics.format_table(
        (
            "workload",
            "runner",
            "dtype",
            "s",
            "samples/s",
            "tokens/s",
            "ours is",
            "of the limit",
            "of the roofline",
            "occupancy",
            "padding",
            "memory",
            "workers x threads, batch",
        ),
        [
            (
                r["workload"],
                r["runner"],
                r["dtype"],
                f"{r['seconds']:.2f}",
                f"{r['samples_per_second']:.1f}",
                f"{r['tokens_per_second']:.0f}",
                f"{r['seconds'] / r['tokens'] / first[r['workload']]:.2f}x",
                f"{r['share_of_product_limit']:.0%}",
                f"{r['share_of_roofline']:.0%}",
                *(f"{r[key]:.1%}" if key in r else "" for key in ("occupancy", "padded_share")),
                f"{r['peak_memory_gb']:.2f} GB",
                described(r["settings"]) if "settings" in r else "",
            )
            for r in records
        ],
    )


def described(settings: dict) -> str:
    """A peer's, in a few characters."""
    used = Settings(**settings)
    again = "" if used.encode_once else ", each sample encoded"
    return f"{used.workers} x {used.threads}, {used.batch}{again}"


if __name__ == "__main__":
    app.run(main)
