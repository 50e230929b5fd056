"""The HIR step: this one beside the same losses in Transformers (torch), same weights and batch.

    scripts/cpu.sh python -m benchmarks.training --tokenizer=T5_TOKENIZER --batch=4,16,64

FLAN-T5-small's shape by default, random weights, AdamW, the pairwise contrastive, smoothed and
entropy-regularised loss of one fused pass over [p*; p-]; no padding. Each runner has a process of
its own, stopped while another has its turn of three steps, of which the last two are timed; the
first turn compiles. The losses of all steps must agree. The limit is the time that the products
with weights take at the rate of a large product of the same type, measured in the same run; a step
is three forward passes' worth of them. MFU, model-FLOP utilisation, is the same against the
bfloat16 peak of all devices by their data sheet, where it is known.
"""

import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence

import jax
import numpy as np
import transformers
from absl import app, flags

from benchmarks import limits, machine, turns, workloads
from hir_jax.model import hf, remat, shapes
from hir_jax.run import metrics
from hir_jax.training.batch import TWO_PROMPTS, Batch

FLAGS = flags.FLAGS
flags.DEFINE_list("batch", ["16"], "Examples a step; one or several.")
flags.DEFINE_integer("source", 128, "Tokens of a prompt.")
flags.DEFINE_integer("target", 32, "Tokens of an output.")
flags.DEFINE_enum("shape", "small", list(shapes.FLAN_T5), "Of FLAN-T5.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of products; torch by autocast.")
flags.DEFINE_integer("accumulation", 0, "Parts of a batch, ours; 0 = by its size, see parts_for.")
flags.DEFINE_enum("remat", "", ["", remat.PRODUCTS, remat.INPUTS], "All that ours keeps.")
flags.DEFINE_list("peers", ["torch"], "Whom to run beside ours: torch, or nobody.")
flags.register_validator("peers", lambda names: set(names) <= {"torch"}, "expected torch or ''")
flags.DEFINE_integer("repeats", 3, "Turns of each, after the first.")
flags.DEFINE_string("tokenizer", None, "Folder of T5's tokenizer.", required=True)
flags.DEFINE_string("models", "", "Folder that keeps the model for the next run.")
flags.DEFINE_string("output", "", "A JSON file for all figures.")
flags.DEFINE_string("runner", "", "What a process that this one starts is to run.")

RATE = 1e-4
TURN = 3  # steps
ASKED = ("shape", "dtype", "source", "target", "accumulation", "remat")
SMOOTHING, ALPHA, BETA = 0.2, 1.0, 0.001
Step = Callable[[], float]  # does one, gives its loss


def main(argv: Sequence[str]) -> None:
    """Runs all batch sizes; prints a table and writes the JSON."""
    del argv
    if FLAGS.runner:
        return serve()
    jax.config.update("jax_platforms", "cpu")  # an accelerator is for those who take turns
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        codec = transformers.AutoTokenizer.from_pretrained(FLAGS.tokenizer)
        folder = pathlib.Path(FLAGS.models or scratch) / f"{FLAGS.shape}-random"
        folder = workloads.random_model(FLAGS.shape, codec, folder, ends=False)
        for batch in FLAGS.batch:
            records += measure(int(batch), folder)
            print(table(records), flush=True)
    if FLAGS.output:
        pathlib.Path(FLAGS.output).write_text(json.dumps(records, indent=1) + "\n")
    return None


def measure(batch: int, folder: pathlib.Path) -> list[dict]:
    """A record for each runner at one batch size."""
    command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:]]
    runners = {
        name: turns.Runner([*command, f"--runner={name}", f"--batch={batch}", f"--models={folder}"])
        for name in ["hir_jax", *FLAGS.peers]
    }
    told: dict[str, list[dict]] = {name: [] for name in runners}
    rates = []
    for _ in range(FLAGS.repeats + 1):
        rates.append(runners["hir_jax"].ask("rates"))
        for name, runner in runners.items():
            told[name] += [runner.ask() for _ in range(TURN)]
    for runner in runners.values():
        runner.close()
    tolerance = 1e-3 if FLAGS.dtype == "float32" else 3e-2
    for name in FLAGS.peers:
        for ours, theirs in zip(told["hir_jax"], told[name], strict=True):
            np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=tolerance)
    rate = statistics.median(each["product_rate"] for each in rates)
    peak = rates[0]["peak"]
    weights = limits.Weights.of(hf.read_raw_config(folder))
    flops = weights.step_flops(2 * batch * FLAGS.source, 2 * batch * FLAGS.target)
    records = []
    for name, answers in told.items():
        # The first turn compiles and warms up; the first step of each wakes up.
        seconds = [answer["seconds"] for i, answer in enumerate(answers) if i >= TURN and i % TURN]
        elapsed = statistics.median(seconds)
        records.append(
            {
                "batch": batch,
                "runner": name,
                "seconds": elapsed,
                "examples_per_second": batch / elapsed,
                "share_of_product_limit": flops / rate / elapsed,
                "model_flop_utilisation": flops / peak / elapsed if peak else None,
                "peak_memory_gb": answers[-1]["peak_memory_gb"],
                "losses": [answer["loss"] for answer in answers],
                "product_gflops": rate / 1e9,
                "all_seconds": seconds,
                "machine": rates[0]["machine"],
            }
            | {name: FLAGS[name].value for name in ASKED}
        )
    return records


def serve() -> None:
    """Takes a step for each line that comes in; answers with its cost."""
    make = {"hir_jax": jax_step, "torch": torch_step}[FLAGS.runner]
    given = (int(FLAGS.batch[0]), FLAGS.source, FLAGS.target, TWO_PROMPTS)
    step = make(pathlib.Path(FLAGS.models), workloads.random_batch(*given))

    def run() -> dict:
        return {"loss": step(), "peak_memory_gb": machine.peak_memory_gb()}

    def rates() -> dict:
        return {
            "product_rate": limits.product_rate(FLAGS.dtype),
            "peak": limits.peak_flops(FLAGS.dtype),
            "machine": machine.name(),
        }

    turns.serve(run=run, rates=rates)


def jax_step(folder: pathlib.Path, batch: Batch) -> Step:
    """The step as the loop uses it."""
    from hir_jax.devices import sharding
    from hir_jax.methods.hir import Hir
    from hir_jax.training.optimizer import make_optimizer
    from hir_jax.training.state import init_state, state_shardings
    from hir_jax.training.step import make_step

    config = dataclasses.replace(hf.read_config(folder, FLAGS.dtype), remat=FLAGS.remat)
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    params = hf.load_params(folder, config)
    params = jax.device_put(params, sharding.tree_shardings(mesh, params))
    optimizer = make_optimizer("adamw", RATE)
    hir = Hir(smoothing=SMOOTHING, contrastive_weight=ALPHA, contrastive_smoothing=SMOOTHING)
    shardings = state_shardings(params, optimizer, mesh)
    step = make_step(
        config, hir.objective(entropy_weight=BETA), optimizer, shardings, FLAGS.accumulation
    )
    states = [init_state(params, optimizer, mesh)]
    placed = jax.device_put(batch, sharding.batch_sharding(mesh))

    def run() -> float:
        state, values = step(states.pop(), placed, jax.random.key(0), None)
        states.append(state)
        jax.block_until_ready(state)
        return float(values["loss"])

    return run


def torch_step(folder: pathlib.Path, batch: Batch) -> Step:
    """The same in torch: logits of both prompts in one pass, autodiff, AdamW."""
    import os

    import torch

    torch.set_num_threads(os.cpu_count())
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    size = batch.targets_BxT.shape[0]
    sources = torch.tensor(batch.sources_BxPxS.reshape(2 * size, -1), dtype=torch.long)
    masks = torch.tensor(batch.source_masks_BxPxS.reshape(2 * size, -1))
    targets = torch.tensor(batch.targets_BxT, dtype=torch.long)
    inputs = torch.nn.functional.pad(targets[:, :-1], (1, 0)).repeat_interleave(2, 0)

    def run() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=FLAGS.dtype == "bfloat16"):
            logits = model(
                input_ids=sources, attention_mask=masks, decoder_input_ids=inputs, use_cache=False
            ).logits
        logp = logits.float().log_softmax(-1).unflatten(0, (size, 2))
        target = logp.gather(-1, targets[:, None, :, None].expand(-1, 2, -1, -1))[..., 0]
        own = logp[:, 0]
        supervised = -(1 - SMOOTHING) * target[:, 0] - SMOOTHING * own.mean(-1)
        scores = target.mean(-1)
        margin = scores[:, 0] - scores[:, 1]
        log_sigmoid = torch.nn.functional.logsigmoid
        contrastive = -(1 - SMOOTHING) * log_sigmoid(margin) - SMOOTHING * log_sigmoid(-margin)
        negative_entropy = (own.exp() * own).sum(-1)
        loss = supervised.mean() + ALPHA * contrastive.mean() + BETA * negative_entropy.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def table(records: Sequence[dict]) -> str:
    """What a reader wants first."""
    first = {r["batch"]: r["seconds"] for r in records if r["runner"] == "hir_jax"}
    return metrics.format_table(
        ("batch", "runner", "s a step", "examples/s", "ours is", "of the limit", "MFU", "memory"),
        [
            (
                r["batch"],
                r["runner"],
                f"{r['seconds']:.2f}",
                f"{r['examples_per_second']:.2f}",
                f"{r['seconds'] / first[r['batch']]:.2f}x",
                f"{r['share_of_product_limit']:.0%}",
                f"{r['model_flop_utilisation']:.0%}" if r["model_flop_utilisation"] else "",
                f"{r['peak_memory_gb']:.2f} GB",
            )
            for r in records
        ],
    )


if __name__ == "__main__":
    app.run(main)
