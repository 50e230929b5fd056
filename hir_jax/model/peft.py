"""Adapters as a folder of Hugging Face's PEFT, in and out; no torch and no `peft` needed."""

import json
import pathlib
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hir_jax.errors import UserError
from hir_jax.model import lora
from hir_jax.model.config import Params, T5Config
from hir_jax.model.folder import check_links, read_json
from hir_jax.model.lora import Lora

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
DTYPES = ("float64", "float32", "float16", "bfloat16")  # of adapters that are read
# What adapters of another kind say, beside fields called use_...: values of those that are none.
USUAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layer_replication": (None, []),
    "init_lora_weights": (True, False, None, "gaussian"),  # others change the matrices themselves
}


def write(folder: pathlib.Path, adapters: Params, made: Lora, config: T5Config, base: str) -> None:
    """Writes `CONFIG` and `WEIGHTS` to a folder that is there.

    Args:
        folder: to write to.
        adapters: on any devices.
        made: how they were made.
        config: the model's shape.
        base: path or hub name of the model that they belong to.
    """
    paths = lora.modules(made, config)
    fields = {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": made.rank,
        "lora_alpha": made.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({name.split(".")[-1] for name in paths}),
        "bias": "none",
    }
    (folder / CONFIG).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    arrays = {}
    for name, (path, part) in _names(made, config).items():
        array = np.asarray(lora.at(adapters, path)[part], np.float32)
        arrays[name] = np.ascontiguousarray(array.T)
    save_file(arrays, folder / WEIGHTS, metadata={"format": "pt"})


def load(folder: pathlib.Path, wanted: Lora, config: T5Config) -> Params:
    """The adapters in a folder, float32.

    Raises:
        UserError: there are none, they are damaged, or they are not those that are wanted.
    """
    if not folder.is_dir() or not (folder / CONFIG).is_file():
        raise UserError(
            f"config.lora.path: expected a PEFT folder with {CONFIG} and {WEIGHTS}, found none in "
            f"{str(folder)!r}."
        )
    check_links(folder)
    _check(folder / CONFIG, read_json(folder / CONFIG), wanted)
    file = folder / WEIGHTS
    if not file.is_file():
        raise UserError(
            f"{folder}: expected {WEIGHTS}, found none. Adapters in adapter_model.bin, a pickle, "
            "are never loaded; load them with peft where you trust them, and save them anew."
        )
    try:
        stored = load_file(file)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise UserError(
            f"{file}: expected a whole safetensors file, found a damaged one ({e}). Copy or "
            "download it again."
        ) from e
    shapes = lora.abstract(wanted, config)
    names, adapters = _names(wanted, config), {}
    faults = [f"missing: {name}" for name in names if name not in stored]
    faults += [f"unknown: {name}" for name in sorted(stored.keys() - names)]
    for name in names.keys() & stored.keys():
        path, part = names[name]
        expected, found = lora.at(shapes, path)[part].shape[::-1], stored[name].shape
        if expected != found:
            faults.append(f"misshapen: {name}: expected {expected}, found {found}")
        if (dtype := stored[name].dtype.name) not in DTYPES:
            faults.append(f"mistyped: {name}: expected {', '.join(DTYPES)}, found {dtype}")
        lora.put(adapters, (*path, part), stored[name].astype(np.float32).T)
    if faults:
        raise UserError(
            f"{folder}: the adapters are not those of this model and config.lora.targets; "
            f"{len(faults)} faults:\n  "
            + "\n  ".join(sorted(faults)[:20])
            + "\nGive the model, and the targets, that they were made with."
        )
    return adapters


def _check(file: pathlib.Path, fields: dict[str, Any], wanted: Lora) -> None:
    """Raises UserError where adapters are of another kind, or another size."""
    kind = fields.get("peft_type")
    if kind != "LORA":
        raise UserError(f"{file}: expected peft_type LORA, found {kind!r}.")
    usual = {name: (False, None) for name in fields if name.startswith("use_")} | USUAL
    faults = [
        f"{name}: expected {values[0]!r}, found {fields[name]!r}"
        for name, values in usual.items()
        if fields.get(name, values[0]) not in values
    ]
    for name, field, value in (("r", "rank", wanted.rank), ("lora_alpha", "alpha", wanted.alpha)):
        if fields.get(name) != value:
            found = fields.get(name)
            faults.append(f"{name}: expected {value:g}, as config.lora.{field}; found {found!r}")
    if faults:
        raise UserError(f"{file}: adapters that are not read:\n  " + "\n  ".join(faults))


def _names(made: Lora, config: T5Config) -> dict[str, tuple[lora.Path, str]]:
    """PEFT's name of each array -> (where it is, "lora_a" or "lora_b"); theirs is the transpose."""
    return {
        f"base_model.model.{name}.{theirs}.weight": (path, ours)
        for name, path in lora.modules(made, config).items()
        for theirs, ours in (("lora_A", lora.A), ("lora_B", lora.B))
    }
