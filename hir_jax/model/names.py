"""What the weights of a T5 are called in Hugging Face files, and where they are in the parameters.

One table serves both directions.
"""

import functools
from collections.abc import Container
from typing import Any

from hir_jax.model.config import Params, T5Config

Path = tuple[str, ...]

# The embedding of both stacks; files have it under one of these names, or under several. MADLAD-400
# has the second alone, beside a head of its own, which is never taken for it.
EMBEDDINGS = ("shared.weight", "decoder.embed_tokens.weight", "encoder.embed_tokens.weight")

# Names some checkpoints carry for what is already under another name, or for what T5 never uses.
ALIASES = frozenset(
    {
        *EMBEDDINGS,
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        "lm_head.weight",  # of a tied model; of others it is in the table
    }
)


def at(tree: Params, path: Path) -> Any:
    """What stands in a tree at a path."""
    return functools.reduce(lambda part, name: part[name], path, tree)


def put(tree: Params, path: Path, value: Any) -> None:
    """Sets what stands in a tree at a path, which is made."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def embedding_name(names: Container[str]) -> str:
    """What the embedding is called among these names."""
    return next((name for name in EMBEDDINGS if name in names), EMBEDDINGS[0])


def name_table(config: T5Config, embedding: str = EMBEDDINGS[0]) -> dict[str, tuple[Path, bool]]:
    """Hugging Face name -> (path in the parameter tree, whether the matrix is transposed)."""
    table: dict[str, tuple[Path, bool]] = {embedding: (("shared",), False)}
    for stack, layers in (("encoder", config.num_layers), ("decoder", config.num_decoder_layers)):
        sub_layers = [("SelfAttention", "self_attention"), ("DenseReluDense", "feed_forward")]
        if stack == "decoder":
            sub_layers.insert(1, ("EncDecAttention", "cross_attention"))
        for i in range(layers if config.layer_biases else 1):
            owner = (stack, f"block_{i}") if config.layer_biases else (stack,)
            name = f"{stack}.block.{i}.layer.0.SelfAttention.relative_attention_bias.weight"
            table[name] = ((*owner, "relative_bias"), False)
        for i in range(layers):
            for j, (theirs, ours) in enumerate(sub_layers):
                prefix, path = f"{stack}.block.{i}.layer.{j}", (stack, f"block_{i}")
                for their_name, our_name in _kernels(config, ours):
                    key = f"{prefix}.{theirs}.{their_name}.weight"
                    table[key] = ((*path, ours, our_name, "kernel"), True)
                table[f"{prefix}.layer_norm.weight"] = ((*path, f"{ours}_norm", "scale"), False)
        table[f"{stack}.final_layer_norm.weight"] = ((stack, "final_norm", "scale"), False)
    if not config.tie_lm_head:
        table["lm_head.weight"] = (("lm_head",), True)
    return table


def _kernels(config: T5Config, sub_layer: str) -> list[tuple[str, str]]:
    if sub_layer != "feed_forward":
        return [("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")]
    return [(n, n) for n in (("wi_0", "wi_1", "wo") if config.gated else ("wi", "wo"))]
