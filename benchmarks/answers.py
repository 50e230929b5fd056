"""What beams and given outputs cost: ways of finding outputs, taking turns in one process.

    python -m benchmarks.answers --tokenizer=T5_TOKENIZER

A model of FLAN-T5's shape with random weights; prompts and outputs of random tokens, all of one
length, so that every way takes as many steps. Tokens are those of the outputs that are given: of a
search the best one's. The given outputs are `--members` texts of that length.
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
import transformers
from absl import app, flags

from benchmarks import machine, workloads
from hir_jax.decoding import beam
from hir_jax.decoding.beam import Beams
from hir_jax.decoding.prompt import Among, Prompt
from hir_jax.decoding.sampler import Sampler
from hir_jax.decoding.trie import Trie
from hir_jax.devices import sharding
from hir_jax.model import hf, shapes
from hir_jax.run import metrics

FLAGS = flags.FLAGS
flags.DEFINE_string("tokenizer", None, "Folder of T5's tokenizer.")
flags.DEFINE_enum("shape", "small", list(shapes.FLAN_T5), "Of FLAN-T5.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the products.")
flags.DEFINE_integer("prompts", 64, "Prompts.")
flags.DEFINE_integer("source", 128, "Tokens of each.")
flags.DEFINE_integer("target", 16, "Tokens of an output.")
flags.DEFINE_integer("members", 1000, "Given outputs.")
flags.DEFINE_integer("beams", 4, "Beams of a search.")
flags.DEFINE_integer("repeats", 5, "Turns of each, after the first, which compiles.")

EOS = 1


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    with tempfile.TemporaryDirectory() as scratch:
        codec = transformers.AutoTokenizer.from_pretrained(FLAGS.tokenizer)
        folder = workloads.random_model(
            FLAGS.shape, codec, pathlib.Path(scratch) / "model", ends=False
        )
        config = hf.read_config(folder, FLAGS.dtype)
        params = hf.load_params(folder, config)
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    params = jax.device_put(params, sharding.tree_shardings(mesh, params))
    ways = ways_of(Sampler(config, mesh, (FLAGS.source,), FLAGS.target, eos_id=EOS, top_k=50))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(FLAGS.repeats + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run(params)
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    print(machine.name())
    print(table(seconds, FLAGS.prompts * FLAGS.target))


def ways_of(sampler: Sampler) -> dict[str, Callable]:
    """What is timed, by name: functions of the parameters."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 32000, (FLAGS.prompts, FLAGS.source - 1))
    prompts = [Prompt((*own.tolist(), EOS), i) for i, own in enumerate(tokens)]
    members = rng.integers(3, 32000, (FLAGS.members, FLAGS.target - 1))
    trie = Trie.make([[(*own.tolist(), EOS) for own in members]])
    given, beams = Among(trie, [0] * len(prompts)), Beams(FLAGS.beams, early_stopping="never")
    # What is not among given outputs must not end early either.
    endless = dataclasses.replace(sampler, eos_id=-1)

    def way(temperature: float, among: Among | None) -> Callable:
        engine = endless if among is None else sampler
        return lambda params: engine(
            params, prompts, jax.random.key(0), temperature, samples=1, among=among
        )

    def search(among: Among | None) -> Callable:
        engine = endless if among is None else sampler
        return lambda params: beam.search(engine, params, prompts, beams, among=among)

    return {
        "greedy": way(0.0, None),
        "sampled": way(1.0, None),
        f"{FLAGS.beams} beams": search(None),
        "greedy, among": way(0.0, given),
        "sampled, among": way(1.0, given),
        f"{FLAGS.beams} beams, among": search(given),
    }


def table(seconds: dict[str, list[float]], tokens: int) -> str:
    """Medians; and how many times as long as greedy, the median over turns."""
    rows = [
        (
            name,
            f"{statistics.median(own):.2f}",
            f"{tokens / statistics.median(own):,.0f}",
            f"{statistics.median(a / b for a, b in zip(own, seconds['greedy'], strict=True)):.2f}",
        )
        for name, own in seconds.items()
    ]
    return metrics.format_table(("", "s", "tokens/s", "times greedy's time"), rows)


if __name__ == "__main__":
    flags.mark_flag_as_required("tokenizer")
    app.run(main)
