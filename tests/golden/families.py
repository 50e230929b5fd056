"""Tiny models in the layout of the hub's files: their config.json's keys, at a small size.

Weights are drawn here, under names written out here, so that only what torch makes of them is
stored: `families/NAME.npz`, recorded by `python -m tests.golden.record`.
"""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

FOLDER = pathlib.Path(__file__).parent / "families"

SMALL = {
    "vocab_size": 64,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 32,
    "dropout_rate": 0.1,
    "initializer_factor": 1.0,
    "layer_norm_epsilon": 1e-06,
    "is_encoder_decoder": True,
    "use_cache": True,
    "output_past": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
V1_1 = SMALL | {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
# As Transformers 4.3x writes it.
WRITTEN = {"relative_attention_max_distance": 128, "dense_act_fn": "gelu_new", "is_gated_act": True}


class Family(NamedTuple):
    """What is in a model's folder."""

    config: dict[str, Any]
    seed: int = 0  # of the weights; chosen so that no two best logits are too near
    dtype: type = np.float32  # that weights are stored in
    embedding: tuple[str, ...] = ("shared.weight",)  # all its names
    generation: dict[str, Any] | None = None  # generation_config.json


FAMILIES = {
    "mt5": Family(
        V1_1
        | {
            "model_type": "mt5",
            "architectures": ["MT5ForConditionalGeneration"],
            "tokenizer_class": "T5Tokenizer",
            "d_kv": 6,  # num_heads * d_kv != d_model
        },
        seed=1,
        embedding=("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    ),
    "byt5": Family(
        V1_1
        | {
            "tokenizer_class": "ByT5Tokenizer",
            "gradient_checkpointing": False,
            "vocab_size": 384,
            "num_layers": 3,
            "num_decoder_layers": 1,
            "d_kv": 6,
        },
        seed=1,
    ),
    "madlad": Family(
        V1_1
        | WRITTEN
        | {
            "n_positions": 512,
            "pad_token_id": 1,
            "eos_token_id": 2,
            "d_kv": 8,
            "num_heads": 2,
        },
        seed=2,
        embedding=("decoder.embed_tokens.weight",),
    ),
    "aya": Family(V1_1 | WRITTEN | {"d_kv": 2, "classifier_dropout": 0.0}, seed=2),
    "flan_ul2": Family(
        V1_1
        | WRITTEN
        | {
            "feed_forward_proj": "gated-silu",
            "dense_act_fn": "silu",
            "d_kv": 16,
            "num_heads": 1,
            "classifier_dropout": 0.0,
        },
        seed=8,
    ),
    "lm_adapt": Family(V1_1 | {"gradient_checkpointing": False}, seed=2),
    "umt5": Family(
        V1_1
        | WRITTEN
        | {
            "model_type": "umt5",
            "architectures": ["UMT5ForConditionalGeneration"],
            "scalable_attention": True,
            "classifier_dropout": 0.0,
            "tokenizer_class": "T5Tokenizer",
            "d_kv": 6,
        },
        seed=1,
    ),
    "pile_t5": Family(
        V1_1
        | WRITTEN
        | {
            "model_type": "umt5",
            "architectures": ["UMT5ForConditionalGeneration"],
            "dense_act_fn": "gelu_pytorch_tanh",
            "pad_token_id": 1,
            "eos_token_id": 2,
            "num_decoder_layers": 3,
        },
        seed=2,
    ),
    "codet5": Family(
        {key: value for key, value in V1_1.items() if key != "tie_word_embeddings"}
        | {
            "feed_forward_proj": "relu",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "n_positions": 512,
            "torch_dtype": "float16",
        },
        seed=50,
        dtype=np.float16,
    ),
    # Embeddings resized for tokens that were added; two ids end an output, another begins it.
    "resized": Family(
        V1_1 | {"vocab_size": 67},
        generation={
            "eos_token_id": [1, 65],
            "forced_bos_token_id": 66,
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
            "length_penalty": 0.6,
        },
    ),
}


def weights(family: Family) -> dict[str, np.ndarray]:
    """Random weights that all matter, by Hugging Face's names; norms are not 1."""
    rng = np.random.RandomState(family.seed)  # which draws the same for ever
    c = family.config
    d_model, d_ff, inner = c["d_model"], c["d_ff"], c["num_heads"] * c["d_kv"]
    tied = c.get("tie_word_embeddings", True)
    every = c["model_type"] == "umt5"
    wi = ("wi_0", "wi_1") if c["feed_forward_proj"].startswith("gated") else ("wi",)
    made: dict[str, np.ndarray] = {}

    def draw(name: str, scale: float, *shape: int, mean: float = 0.0) -> None:
        made[name] = (mean + scale * rng.standard_normal(shape)).astype(family.dtype)

    # A tied head would repeat a token for ever, were it not far smaller than what layers add to it.
    draw(family.embedding[0], 0.05 if tied else 0.2, c["vocab_size"], d_model)
    for stack, layers in (("encoder", c["num_layers"]), ("decoder", c["num_decoder_layers"])):
        attentions = ("SelfAttention", "EncDecAttention")[: 1 + (stack == "decoder")]
        for i in range(layers):
            for j, attention in enumerate(attentions):
                layer = f"{stack}.block.{i}.layer.{j}"
                for name in "qkv":
                    draw(f"{layer}.{attention}.{name}.weight", 0.25, inner, d_model)
                draw(f"{layer}.{attention}.o.weight", 0.25, d_model, inner)
                if attention == "SelfAttention" and (every or i == 0):
                    buckets = c["relative_attention_num_buckets"], c["num_heads"]
                    draw(f"{layer}.SelfAttention.relative_attention_bias.weight", 3.0, *buckets)
                draw(f"{layer}.layer_norm.weight", 0.2, d_model, mean=1.0)
            layer = f"{stack}.block.{i}.layer.{len(attentions)}"
            for name in wi:
                draw(f"{layer}.DenseReluDense.{name}.weight", 0.25, d_ff, d_model)
            draw(f"{layer}.DenseReluDense.wo.weight", 0.25, d_model, d_ff)
            draw(f"{layer}.layer_norm.weight", 0.2, d_model, mean=1.0)
        # And its logits, scaled down besides, would be too near to each other.
        last = 40.0 if stack == "decoder" and tied else 1.0
        draw(f"{stack}.final_layer_norm.weight", 0.2 * last, d_model, mean=last)
    if not tied:
        draw("lm_head.weight", 0.5, c["vocab_size"], d_model)
    made |= {name: made[family.embedding[0]].copy() for name in family.embedding[1:]}
    return made


def write(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes a family's folder, without a tokenizer; gives the folder."""
    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(family.config, indent=2))
    if family.generation:
        (folder / "generation_config.json").write_text(json.dumps(family.generation))
    # Transformers reads no file without this.
    metadata = {"format": "pt"}
    safetensors.numpy.save_file(weights(family), folder / "model.safetensors", metadata)
    return folder
