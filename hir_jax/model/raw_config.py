"""config.json of a model: read, and every field that shapes it checked."""

import pathlib
from typing import Any

from hir_jax.errors import UserError
from hir_jax.model.config import T5Config
from hir_jax.model.folder import check_code, read_json
from hir_jax.model.layers import ACTIVATIONS

# Kinds of models that are read, and what transformers calls their classes.
CLASSES = {
    "t5": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
    "umt5": "UMT5ForConditionalGeneration",  # Pile-T5 too
}
_MOST = 2**24  # of any size: far beyond every T5, and still of shapes that can be written down
_SIZES = {
    **dict.fromkeys(("vocab_size", "d_model", "d_kv", "d_ff", "num_heads"), _MOST),
    "num_layers": 1000,
}


GENERATION = "generation_config"  # a file's name, and its key in what `read_raw_config` gives


def read_raw_config(folder: pathlib.Path) -> dict[str, Any]:
    """config.json as it stands, with generation_config.json, if there is one, under its name.

    Raises:
        UserError: there is none, it is not JSON, of another kind of model, or asks for code.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(
            f"{folder}: expected a config.json (Hugging Face layout), found none. Copy the model's "
            "beside its weights."
        )
    raw = read_json(file)
    if raw.get("model_type") not in [*CLASSES]:
        raise UserError(
            f"{file}: expected model_type {', '.join(map(repr, CLASSES))}, found "
            f"{raw.get('model_type')!r}. Give a model of the T5 family (docs/models.md)."
        )
    check_code(file, raw)
    if raw.get("quantization_config"):
        raise UserError(
            f"{file}: expected weights as they are, found quantization_config. Give the model that "
            "was quantized; where these weights are whole, remove the field."
        )
    generation = folder / f"{GENERATION}.json"
    return raw | ({GENERATION: read_json(generation)} if generation.is_file() else {})


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
    optional = {
        buckets: count,
        distance: number(distance, count // 2 + 1, 2**31 - 1, default[distance], int),
        "dropout_rate": number("dropout_rate", 0, 1, default["dropout_rate"], float),
        "layer_norm_epsilon": number(
            "layer_norm_epsilon", 1e-12, 1, default["layer_norm_epsilon"], float
        ),
        **_token_ids(fields, sizes["vocab_size"], faults),
    }
    decoder = number("num_decoder_layers", 1, 1000, sizes["num_layers"], int)
    family, tied = fields.get("model_type", "t5"), flag("tie_word_embeddings", True)
    # As transformers has it: an mT5 never scales, whatever it calls itself.
    scaled = flag("scale_decoder_outputs", tied) and family != "mt5"
    kind = str(fields.get("feed_forward_proj", "relu" if family == "t5" else "gated-gelu"))
    gate, _, name = kind.rpartition("-")
    name = "gelu_new" if kind == "gated-gelu" else name
    known = ", ".join(ACTIVATIONS)
    if gate not in ("", "gated") or name not in ACTIVATIONS:
        faults.append(
            f"feed_forward_proj: expected '{{act}}' or 'gated-{{act}}' with act one of {known}; "
            f"found {kind!r}"
        )
    # These say the same again where files have them, and what they say counts.
    gated = flag("is_gated_act", gate == "gated")
    activation = fields.get("dense_act_fn", name)
    activation = "gelu_new" if activation == "gelu_pytorch_tanh" else activation
    if activation not in [*ACTIVATIONS, name]:
        faults.append(f"dense_act_fn: expected one of {known}; found {activation!r}")
    if faults:
        listed = "\n  ".join(faults)
        raise UserError(f"{folder}/config.json: no T5 has such a shape:\n  {listed}")
    return T5Config(
        **sizes,
        num_decoder_layers=decoder,
        activation=activation,
        gated=gated,
        layer_biases=family == "umt5",
        tie_lm_head=not has_head,
        scale_decoder_outputs=scaled,
        dtype=dtype,
        **optional,
    )


def _token_ids(fields: dict[str, Any], vocabulary: int, faults: list[str]) -> dict[str, Any]:
    """The ids that begin, end and pad texts; faults are added to `faults`.

    config.json counts before generation_config.json, but for what outputs begin and end with, which
    is the latter's to say: they end with what either names.
    """
    generation = fields.get(GENERATION, {})

    def listed(name: str, of: dict[str, Any]) -> list[int]:
        given = of.get(name)
        ids = given if isinstance(given, list) else [] if given is None else [given]
        if not all(type(each) is int and 0 <= each < vocabulary for each in ids):
            where = f"{GENERATION}.json's " if of is generation else ""
            faults.append(
                f"{where}{name}: expected a whole number from 0 to {vocabulary - 1}, found "
                f"{given!r}"
            )
            return []
        return ids

    def one(name: str, *sources: dict[str, Any]) -> int | None:
        found = [ids for of in sources if (ids := listed(name, of))]
        if found and len(found[0]) > 1:
            faults.append(f"{name}: expected one id, found {found[0]!r}")
        return found[0][0] if found else None

    pad, start, bos = "pad_token_id", "decoder_start_token_id", "forced_bos_token_id"
    padding = one(pad, fields, generation) or 0
    first = one(start, fields, generation)
    end = "eos_token_id"
    ends = [each for of in (fields, generation) for each in listed(end, of)]
    eos, *others = dict.fromkeys(ends or listed(end, {end: 1}) or [1])
    return {
        pad: padding,
        start: padding if first is None else first,
        end: eos,
        "other_eos_ids": tuple(others),
        bos: one(bos, generation, fields),
    }
