"""config.json of a model: read, and every field that shapes it checked."""

import pathlib
from typing import Any

from hir_jax.errors import UserError
from hir_jax.model.config import T5Config
from hir_jax.model.folder import check_code, read_json
from hir_jax.model.layers import ACTIVATIONS

_MOST = 2**24  # of any size: far beyond every T5, and still of shapes that can be written down
_SIZES = {
    **dict.fromkeys(("vocab_size", "d_model", "d_kv", "d_ff", "num_heads"), _MOST),
    "num_layers": 1000,
}


def read_raw_config(folder: pathlib.Path) -> dict[str, Any]:
    """config.json as it stands.

    Raises:
        UserError: there is none, it is not JSON, of another kind of model, or asks for code.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"{folder}: expected a config.json (Hugging Face layout), found none.")
    raw = read_json(file)
    if raw.get("model_type") != "t5":
        raise UserError(
            f"{file}: expected model_type 't5', found {raw.get('model_type')!r}. Give a T5 or "
            "FLAN-T5 model."
        )
    check_code(file, raw)
    return raw


def parse_config(raw: dict[str, Any], folder: pathlib.Path, dtype: str, has_head: bool) -> T5Config:
    """The shape that a config.json asks for; `has_head`: whether there is an `lm_head.weight`.

    Raises:
        UserError: a field is missing, of another type or out of its range, or the activation is
            unknown; all are listed.
    """
    fields = {name: value for name, value in raw.items() if value is not None}
    faults: list[str] = []

    def number(name: str, low: float, high: float, default: float | None, kind: type) -> Any:
        value = fields.get(name, default)
        types = (int,) if kind is int else (int, float)
        if type(value) not in types or not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            faults.append(f"{name}: expected {what} from {low} to {high}, found {value!r}")
            return high if default is None else default
        return value

    def flag(name: str, default: bool) -> bool:
        if type(value := fields.get(name, default)) is not bool:
            faults.append(f"{name}: expected true or false, found {value!r}")
        return bool(value)

    sizes = {name: number(name, 1, most, None, int) for name, most in _SIZES.items()}
    default = {name: field.default for name, field in T5Config.__dataclass_fields__.items()}
    # Of a direction's buckets half are exact, and the others grow up to the largest distance.
    buckets = "relative_attention_num_buckets"
    count = number(buckets, 4, 2**16, default[buckets], int)
    distance = "relative_attention_max_distance"
    ids = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    optional = {
        buckets: count,
        distance: number(distance, count // 2 + 1, 2**31 - 1, default[distance], int),
        "dropout_rate": number("dropout_rate", 0, 1, default["dropout_rate"], float),
        "layer_norm_epsilon": number(
            "layer_norm_epsilon", 1e-12, 1, default["layer_norm_epsilon"], float
        ),
        **{name: number(name, 0, sizes["vocab_size"] - 1, default[name], int) for name in ids},
    }
    decoder = number("num_decoder_layers", 1, 1000, sizes["num_layers"], int)
    scaled = flag("scale_decoder_outputs", flag("tie_word_embeddings", True))
    kind = str(fields.get("feed_forward_proj", "relu"))
    gated, _, activation = kind.rpartition("-")
    activation = "gelu_new" if kind == "gated-gelu" else activation
    if gated not in ("", "gated") or activation not in ACTIVATIONS:
        faults.append(
            "feed_forward_proj: expected '{act}' or 'gated-{act}' with act one of "
            f"{', '.join(ACTIVATIONS)}; found {kind!r}"
        )
    if faults:
        listed = "\n  ".join(faults)
        raise UserError(f"{folder}/config.json: no T5 has such a shape:\n  {listed}")
    return T5Config(
        **sizes,
        num_decoder_layers=decoder,
        activation=activation,
        gated=gated == "gated",
        tie_lm_head=not has_head,
        scale_decoder_outputs=scaled,
        dtype=dtype,
        **optional,
    )
