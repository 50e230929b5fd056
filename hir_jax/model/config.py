"""The shape of a T5, and what its parameters are."""

import dataclasses
from typing import Any

# A nested dict of float32 arrays: "encoder", "decoder", "shared", and, where not tied, "lm_head".
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The shape of a T5 and the precision it computes in.

    Attributes:
        activation: a key of `layers.ACTIVATIONS`.
        gated: v1.1's feed-forward, act(x W0) * (x W1), instead of v1.0's act(x W).
        tie_lm_head: logits use the embedding matrix instead of an `lm_head` of their own.
        layer_biases: each layer has a table of relative positions of its own (UMT5), instead of one
            for a stack.
        scale_decoder_outputs: multiply the decoder's output by d_model ** -0.5 before the head.
        eos_token_id: closes sources and targets, and ends an output.
        other_eos_ids: end an output, too.
        forced_bos_token_id: begins every output, whatever the model would say first.
        dtype: of activations and matrix products; norms, softmax and logits are float32 always.
        remat: what is kept of a block's activations, where the rest is computed again for the
            gradient: `remat.INPUTS` or `remat.PRODUCTS`; empty: all. (With either the training step
            gathers weights that are split over devices again, too.)
        shards: devices that split the batch of what is encoded, or of whole targets.
        cache_dtype: of the keys and values that decoding keeps, and of their products; where it is
            empty, `dtype`.
        heads_together: heads whose keys and values decoding keeps side by side, as of one that is
            as wide; a divisor of the heads.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    activation: str = "gelu_new"
    gated: bool = True
    layer_biases: bool = False
    tie_lm_head: bool = False
    scale_decoder_outputs: bool = False
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0
    other_eos_ids: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    dtype: str = "float32"
    remat: str = ""
    shards: int = 1
    cache_dtype: str = ""
    heads_together: int = 1
