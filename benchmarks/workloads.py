"""What is sampled: models, prompts and how long outputs get."""

import dataclasses
import functools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import transformers

from configs import flan_t5
from hir_jax import batching, data, hf, sharding, t5, train_step
from hir_jax.data.example import format_prompt

# d_model, d_kv, d_ff, layers, heads of FLAN-T5 (Chung et al., 2022; T5 v1.1's shapes).
SHAPES = {
    "small": (512, 64, 1024, 8, 6),
    "base": (768, 64, 2048, 12, 12),
    "large": (1024, 64, 2816, 24, 16),
    "xl": (2048, 64, 5120, 24, 32),
}
VOCABULARY = 32128
MEAN_LENGTH = 12

TASKS = (
    "logical_deduction_three_objects",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "date_understanding",
    "object_counting",
    "geometric_shapes",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "word_sorting",
)


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
    """

    name: str
    folder: pathlib.Path
    prompts: list[list[int]]
    samples: int
    max_new_tokens: int
    exact: bool

    @property
    def outputs(self) -> int:
        """Samples in all."""
        return len(self.prompts) * self.samples

    def buckets(self, count: int) -> tuple[int, ...]:
        """Source lengths to pad to."""
        return batching.best_lengths([len(prompt) for prompt in self.prompts], count)

    def flops(self, new_tokens: float) -> float:
        """Of the model's matrix products: each prompt encoded once, each new token decoded once.

        Products with the keys and values of attention are left out; so is all padding.
        """
        config = json.loads((self.folder / "config.json").read_text())
        width, heads = config["d_model"], config["num_heads"] * config["d_kv"]
        feed_forward = 3 * width * config["d_ff"]
        encoder = config["num_layers"] * (4 * width * heads + feed_forward)
        cross = config["num_decoder_layers"] * 2 * width * heads
        decoder = config["num_decoder_layers"] * (6 * width * heads + feed_forward)
        source_tokens = sum(len(prompt) for prompt in self.prompts)
        a_token = decoder + width * config["vocab_size"]
        return 2 * (source_tokens * (encoder + cross) + new_tokens * a_token)


def make(
    name: str, shape: str, tokenizer: str, bigbench_dir: str, folder: pathlib.Path
) -> list[Workload]:
    """The workloads of a letter; C has two."""
    codec = transformers.AutoTokenizer.from_pretrained(tokenizer)
    rng = np.random.default_rng(0)
    if name == "A":
        model = random_model(shape, codec, folder / f"{shape}-random", ends=False)
        prompts = [[*rng.integers(3, 32000, 127).tolist(), 1] for _ in range(64)]
        return [Workload("A", model, prompts, 1, 64, exact=True)]
    model = random_model(shape, codec, folder / f"{shape}-ends", ends=True)
    counts = {"B": (256,), "C": (64, 1024)}[name]
    return [
        Workload(f"{name} ({count})", model, prompts[:count], 4, 128, exact=False)
        for count in counts
        for prompts in [real_prompts(codec, bigbench_dir)]
    ]


def real_prompts(codec: transformers.PreTrainedTokenizerBase, bigbench_dir: str) -> list[list[int]]:
    """Questions of the twelve tasks in one fixed random order."""
    config = flan_t5.get_config()
    config.data.bigbench_dir = bigbench_dir
    config.data.task = ",".join(TASKS)
    examples = data.load(config.data).train
    order = np.random.default_rng(0).permutation(len(examples))
    texts = [format_prompt(config.instruction.correct, examples[i]) for i in order[:1024]]
    return [ids for ids in codec(texts)["input_ids"] if len(ids) <= 512]


def random_model(
    shape: str, codec: transformers.PreTrainedTokenizerBase, folder: pathlib.Path, ends: bool
) -> pathlib.Path:
    """Random weights, written once; if asked, tuned so that outputs end after some 12 tokens."""
    if folder.exists():
        return folder
    d_model, d_kv, d_ff, layers, heads = SHAPES[shape]
    raw = {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": VOCABULARY,
        "d_model": d_model,
        "d_kv": d_kv,
        "d_ff": d_ff,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "dropout_rate": 0.0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "is_encoder_decoder": True,
    }
    config = hf.parse_config(raw, folder, "float32", has_head=True)
    params = t5.init_params(config, jax.random.key(0))
    if ends:
        params = _tune(params, config)
    hf.export(folder, params, config, codec, raw)
    return folder


def _tune(params: t5.Params, config: t5.T5Config, steps: int = 50) -> t5.Params:
    """Teaches that any token is followed by EOS with probability 1/12, whatever the prompt."""
    rng = np.random.default_rng(1)
    optimizer = train_step.make_optimizer("adamw", 1e-3, warmup_steps=10, clip_norm=1.0)
    mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": -1})
    shardings = train_step.state_shardings(params, optimizer, mesh)
    settings = train_step.LossSettings(smoothing=0.0)
    step = train_step.make_step(config, settings, optimizer, shardings)
    state = train_step.init_state(params, optimizer, mesh)
    for _ in range(steps):
        rows = []
        for length in np.minimum(rng.geometric(1 / MEAN_LENGTH, 16), 32):
            source = tuple(rng.integers(3, 32000, 8).tolist())
            target = (*rng.integers(3, 32000, length - 1).tolist(), 1)
            rows.append(batching.TrainingExample(source, (), target, correct=True))
        state, _ = step(state, batching.make_batch(rows, 16, (8, 32)), jax.random.key(0), None)
    return state.params


@functools.cache
def _product(size: int) -> tuple:
    x = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    return product, x


def product_rate(size: int = 2048, times: int = 5) -> float:
    """Floating-point operations a second of a large float32 product, here and now."""
    product, x = _product(size)
    started = time.perf_counter()
    for _ in range(times):
        product(x, x).block_until_ready()
    return times * 2 * size**3 / (time.perf_counter() - started)
