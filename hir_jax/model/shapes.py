"""The shapes of FLAN-T5, so that a model may be planned and measured without its files."""

from typing import Any

# d_model, d_kv, d_ff, layers of each stack, heads (Chung et al., 2022, arXiv 2210.11416).
FLAN_T5 = {
    "small": (512, 64, 1024, 8, 6),
    "base": (768, 64, 2048, 12, 12),
    "large": (1024, 64, 2816, 24, 16),
    "xl": (2048, 64, 5120, 24, 32),
    "xxl": (4096, 64, 10240, 24, 64),
}
VOCABULARY = 32128
HUB_PREFIX = "google/flan-t5-"


def flan_t5(size: str) -> dict[str, Any]:
    """config.json of a FLAN-T5; `size` is a key of `FLAN_T5`."""
    d_model, d_kv, d_ff, layers, heads = FLAN_T5[size]
    return {
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
        "dropout_rate": 0.1,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "is_encoder_decoder": True,
    }
