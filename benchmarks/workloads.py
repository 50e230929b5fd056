"""What is sampled: models, prompts and how long outputs get."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
import transformers

from benchmarks import limits
from configs import flan_t5
from hir_jax import data
from hir_jax.data.bigbench.tasks import RAW_FOLDER
from hir_jax.data.example import format_prompt
from hir_jax.devices import sharding
from hir_jax.methods.sft import Sft
from hir_jax.model import batching, hf, shapes, t5
from hir_jax.model.config import Params, T5Config
from hir_jax.training.batch import Batch, Layout, TrainingExample, make_batch
from hir_jax.training.optimizer import make_optimizer
from hir_jax.training.state import init_state, state_shardings
from hir_jax.training.step import make_step

MEAN_LENGTH = 12
# Workloads of random prompts: how many, and their length.
EXACT = {"A": ((64,), 128), "D": ((256, 1024), 256)}


@dataclasses.dataclass(frozen=True)
class Workload:
    """Prompts, and how long their outputs get.

    Attributes:
        name: of the workload.
        folder: the model's, in the Hugging Face layout.
        prompts: token ids, EOS included.
        samples: of each prompt.
        max_new_tokens: the longest output.
        exact: every output has so many tokens.
        dtype: that ours computes in; of peers see `benchmarks.peers.table`.
    """

    name: str
    folder: pathlib.Path
    prompts: list[list[int]]
    samples: int
    max_new_tokens: int
    exact: bool
    dtype: str = "float32"

    @property
    def outputs(self) -> int:
        """Samples in all."""
        return len(self.prompts) * self.samples

    def buckets(self, count: int) -> tuple[int, ...]:
        """Source lengths to pad to."""
        return batching.best_lengths([len(prompt) for prompt in self.prompts], count)

    def save(self, file: pathlib.Path) -> None:
        """Writes it as JSON."""
        fields = dataclasses.asdict(self) | {"folder": str(self.folder)}
        file.write_text(json.dumps(fields))

    def check_lengths(self, tokens: Mapping[str, int]) -> None:
        """Raises a RuntimeError unless what everyone made is as long as it ought to be."""
        if self.exact:
            expected = self.outputs * self.max_new_tokens
            if set(tokens.values()) != {expected}:
                raise RuntimeError(f"expected {expected} tokens from everyone, found {tokens}")
        elif max(tokens.values()) > 1.2 * min(tokens.values()):
            raise RuntimeError(f"expected outputs of like lengths from everyone, found {tokens}")

    @property
    def source_tokens(self) -> int:
        """Of all prompts."""
        return sum(len(prompt) for prompt in self.prompts)

    @property
    def weights(self) -> limits.Weights:
        """Of its model."""
        return limits.Weights.of(hf.read_raw_config(self.folder))

    def flops(self, new_tokens: float) -> float:
        """Of the model's matrix products: each prompt encoded once, each new token decoded once."""
        return self.weights.forward_flops(self.source_tokens, new_tokens)

    def roofline(self, new_tokens: float, rows: int, rates: limits.Rates, itemsize: int) -> float:
        """Seconds at least; see `limits.sampling_seconds`."""
        prompts = len(self.prompts)
        asked = limits.Sampled(prompts, self.source_tokens / prompts, self.samples, new_tokens)
        return limits.sampling_seconds(self.weights, asked, rows, rates, itemsize)


def load(file: pathlib.Path) -> Workload:
    """What `Workload.save` wrote."""
    fields = json.loads(file.read_text())
    return Workload(**fields | {"folder": pathlib.Path(fields["folder"])})


def make(
    name: str, shape: str, tokenizer: str, bigbench_dir: str, folder: pathlib.Path
) -> list[Workload]:
    """The workloads of a letter; C and D have two."""
    codec = transformers.AutoTokenizer.from_pretrained(tokenizer)
    rng = np.random.default_rng(0)
    if name in EXACT:
        model = random_model(shape, codec, folder / f"{shape}-random", ends=False)
        counts, length = EXACT[name]
        return [
            Workload(
                name if len(counts) == 1 else f"{name} ({count})",
                model,
                [[*rng.integers(3, 32000, length - 1).tolist(), 1] for _ in range(count)],
                samples=1,
                max_new_tokens=64,
                exact=True,
            )
            for count in counts
        ]
    model = random_model(shape, codec, folder / f"{shape}-ends", ends=True)
    prompts = real_prompts(codec, bigbench_dir)
    return [
        Workload(f"{name} ({count})", model, prompts[:count], 4, 128, exact=False)
        for count in {"B": (256,), "C": (64, 1024)}[name]
    ]


def real_prompts(codec: transformers.PreTrainedTokenizerBase, bigbench_dir: str) -> list[list[int]]:
    """Questions of the twelve tasks in one fixed random order."""
    config = flan_t5.get_config()
    config.data.bigbench_dir = bigbench_dir
    config.data.task = ",".join(RAW_FOLDER)
    examples = data.load(config.data).train
    order = np.random.default_rng(0).permutation(len(examples))
    texts = [format_prompt(config.instruction.correct, examples[i]) for i in order[:1024]]
    return [ids for ids in codec(texts)["input_ids"] if len(ids) <= 512]


def random_batch(
    size: int, source: int, target: int, layout: Layout, vocabulary: int = 32000
) -> Batch:
    """Full rows of random tokens, the same in every process."""
    rng = np.random.default_rng(0)
    row = lambda length: tuple(rng.integers(3, vocabulary, length).tolist())  # noqa: E731
    examples = [
        TrainingExample(row(source), row(source), row(target), correct=True) for _ in range(size)
    ]
    return make_batch(examples, size, (source, target), layout)


def random_model(
    shape: str, codec: transformers.PreTrainedTokenizerBase, folder: pathlib.Path, ends: bool
) -> pathlib.Path:
    """Random weights, written once; if asked, tuned so that outputs end after some 12 tokens."""
    if folder.exists():
        return folder
    raw = shapes.flan_t5(shape) | {"dropout_rate": 0.0}
    config = hf.parse_config(raw, folder, "float32", has_head=True)
    params = t5.init_params(config, jax.random.key(0))
    if ends:
        params = _tune(params, config)
    hf.export(folder, params, config, codec, raw)
    return folder


def _tune(params: Params, config: T5Config, steps: int = 100) -> Params:
    """Teaches that any token is followed by EOS with probability 1/12, whatever the prompt.

    Other tokens are few enough that top-k 50 cuts none of them off.
    """
    rng = np.random.default_rng(1)
    optimizer = make_optimizer("adamw", 1e-3, warmup_steps=10, clip_norm=1.0)
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    params = jax.device_put(params, sharding.tree_shardings(mesh, params))
    shardings = state_shardings(params, optimizer, mesh)
    step = make_step(config, Sft().objective(), optimizer, shardings)
    state = init_state(params, optimizer, mesh)
    for _ in range(steps):
        rows = []
        for length in np.minimum(rng.geometric(1 / MEAN_LENGTH, 16), 32):
            source = tuple(rng.integers(3, 32000, 8).tolist())
            target = (*rng.integers(3, 43, length - 1).tolist(), 1)
            rows.append(TrainingExample(source, (), target, correct=True))
        state, _ = step(state, make_batch(rows, 16, (8, 32)), jax.random.key(0), None)
    return state.params
