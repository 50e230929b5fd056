"""Several files of weights in one folder: which is read, and what is said of the others."""

import importlib.util
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy
from absl import logging

from hir_jax.model import hf
from tests.model import pickles
from tests.model.hf_test import edit_json, load, make_tokenizer

BIN = pickles.FILE


@pytest.fixture
def warnings(monkeypatch):
    """What is warned of."""
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    return said


def change(file, by):
    """Adds to every weight of a safetensors file."""
    weights = safetensors.numpy.load_file(file)
    changed = {name: array + array.dtype.type(by) for name, array in weights.items()}
    safetensors.numpy.save_file(changed, file, {"format": "pt"})


def several(folder):
    """Makes a folder of four sets of weights, each others: by the value in a norm's scale."""
    single = folder / hf.WEIGHTS
    shutil.copy(folder / "expected" / hf.WEIGHTS, single)
    part = folder / "model-00001-of-00001.safetensors"
    shutil.copy(single, part)
    change(single, 1)
    change(part, 2)
    names = dict.fromkeys(safetensors.numpy.load_file(part), part.name)
    (folder / hf.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    shutil.copy(folder / BIN, folder / "pytorch_model-00001-of-00001.bin")
    pickled = {"weight_map": dict.fromkeys(names, "pytorch_model-00001-of-00001.bin")}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}} | pickled))
    for age, file in enumerate([single, folder / hf.INDEX, part, folder / BIN]):
        os.utime(file, (1e9 - age, 1e9 - age))


def scale(params):
    """A number by which weights are told apart."""
    return params["encoder"]["final_norm"]["scale"][0]


def test_the_file_that_transformers_takes_is_taken(tmp_path, warnings):
    folder = shutil.copytree(pickles.ZIP, tmp_path / "model")
    several(folder)
    original = scale(load(pickles.ZIP)[0])
    shard, pickle = "model-00001-of-00001.safetensors", "pytorch_model-00001-of-00001.bin"
    given = [(hf.WEIGHTS, 1), (hf.INDEX, 2), (BIN, 0), ("pytorch_model.bin.index.json", 0)]
    for name, by in given:
        params, _ = load(folder)
        assert scale(params) == pytest.approx(original + by)
        as_transformers(folder, params)
        assert warnings.pop().startswith(
            f"{folder}: weights are read from {name}, as transformers does, and not from what lies "
            "beside it: "
        )
        (folder / name).unlink()
    assert not warnings
    assert {shard, pickle} <= {file.name for file in folder.iterdir()}


def as_transformers(folder, params):
    """Checks that transformers, where torch is installed, reads the same."""
    if importlib.util.find_spec("torch"):
        import transformers

        model = transformers.T5ForConditionalGeneration.from_pretrained(folder)
        theirs = model.encoder.final_layer_norm.weight.detach().numpy()
        np.testing.assert_array_equal(params["encoder"]["final_norm"]["scale"], theirs)


def test_what_is_passed_over_is_named(tmp_path, warnings):
    folder = shutil.copytree(pickles.ZIP, tmp_path / "model")
    several(folder)
    (folder / "model.fp16.safetensors").touch()
    load(folder)
    assert warnings == [
        f"{folder}: weights are read from model.safetensors, as transformers does, and not from "
        "what lies beside it: model-00001-of-00001.safetensors, model.fp16.safetensors, "
        "model.safetensors.index.json, pytorch_model-00001-of-00001.bin and 2 more (newer: "
        "model.fp16.safetensors, pytorch_model-00001-of-00001.bin, "
        "pytorch_model.bin.index.json). Remove what is not of this model."
    ]


def test_weights_alone_are_read_without_a_word(tmp_path, warnings):
    folder = shutil.copytree(pickles.SHARDED, tmp_path / "model")
    (folder / "value_head.safetensors").touch()
    load(folder)
    load(pickles.ZIP)
    assert not warnings


def test_weights_by_the_name_that_config_gives(tmp_path, warnings):
    folder = shutil.copytree(pickles.ZIP, tmp_path / "model")
    several(folder)
    shutil.copy(folder / "model-00001-of-00001.safetensors", folder / "mine.safetensors")
    edit_json(folder / "config.json", transformers_weights="mine.safetensors")
    params, config = load(folder)
    assert scale(params) == pytest.approx(scale(load(pickles.ZIP)[0]) + 2)
    as_transformers(folder, params)
    assert "weights are read from mine.safetensors" in warnings[0]
    # An export has its own.
    hf.export(tmp_path / "out", params, config, make_tokenizer(60), hf.read_raw_config(folder))
    assert scale(load(tmp_path / "out")[0]) == scale(params)
