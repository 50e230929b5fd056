"""Model folders of strangers: refused in a sentence, without a look outside of them."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy

from hir_jax.errors import UserError
from hir_jax.model import hf, hub, value_head
from tests.model.hf_test import SHARDED, edit_json, fault, load, make_tokenizer


@pytest.fixture
def sharded(tmp_path) -> pathlib.Path:
    return shutil.copytree(SHARDED, tmp_path / "sharded", ignore=shutil.ignore_patterns("*.npz"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("d_model", 0),
        ("d_model", "2"),
        ("d_model", True),
        ("d_kv", -8),
        ("num_heads", 1e30),
        ("num_layers", 10**9),
        ("vocab_size", 10**30),
        ("num_decoder_layers", 0),
        ("relative_attention_num_buckets", 3),  # half a direction's are exact: of one there is none
        ("relative_attention_max_distance", 16),  # is in the exact half of 32
        ("dropout_rate", "0.1"),
        ("layer_norm_epsilon", 0),
        ("eos_token_id", 10**6),
        ("pad_token_id", -1),
        ("scale_decoder_outputs", "yes"),
        ("tie_word_embeddings", 1),
    ],
)
def test_a_shape_that_no_model_has(sharded, field, value):
    edit_json(sharded / "config.json", **{field: value})
    message = fault(hf.read_config, sharded)
    assert f"{sharded}/config.json: no T5 has such a shape:\n  {field}: expected" in message
    assert message.endswith(f"found {value!r}")


def test_an_id_of_generation_config_that_no_token_has(sharded):
    (sharded / "generation_config.json").write_text('{"eos_token_id": [1, 96]}')
    message = fault(hf.read_config, sharded)
    assert message.endswith(
        "\n  generation_config.json's eos_token_id: expected a whole number from 0 to 95, found "
        "[1, 96]"
    )


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"d_model": NaN}', "\xff"])
@pytest.mark.parametrize("name", ["config.json", hf.INDEX, "tokenizer_config.json"])
def test_json_that_is_none(sharded, name, text):
    make_tokenizer(90).save_pretrained(sharded)
    config = hf.read_config(sharded)
    (sharded / name).write_bytes(text.encode("latin-1"))

    def read() -> None:
        hf.read_config(sharded)
        hf.load_tokenizer(sharded, config)

    message = fault(read)
    assert message.startswith(f"{sharded / name}: expected JSON, found a fault")
    assert len(message) < 500


@pytest.mark.parametrize("relative", [False, True])
def test_an_index_that_names_files_elsewhere(sharded, relative):
    index = json.loads((sharded / hf.INDEX).read_text())
    file = index["weight_map"]["shared.weight"]
    elsewhere = shutil.copy(sharded / file, sharded.parent / file)
    index["weight_map"]["shared.weight"] = f"../{file}" if relative else str(elsewhere)
    (sharded / hf.INDEX).write_text(json.dumps(index))
    assert "expected names of files beside it, found" in fault(hf.read_config, sharded)
    index["weight_map"]["shared.weight"] = 3
    (sharded / hf.INDEX).write_text(json.dumps(index))
    assert "found 3" in fault(hf.read_config, sharded)


@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00003.safetensors"])
def test_a_link_out_of_the_folder(sharded, name):
    elsewhere = shutil.move(sharded / name, sharded.parent / "elsewhere")
    (sharded / name).symlink_to(elsewhere)
    message = fault(hub.find, str(sharded))
    assert f"{sharded}: expected files of its own, found links out of it: {name}" in message
    (sharded / name).unlink()
    shutil.move(elsewhere, sharded / "moved")
    (sharded / name).symlink_to("moved")
    (sharded.parent / "link").symlink_to(sharded)  # the folder's own name may be a link
    assert hub.find(str(sharded.parent / "link"))
    (sharded / "circle").symlink_to("circle")
    assert "circle" in fault(hub.find, str(sharded))


def test_links_of_the_hubs_cache_are_its_own(sharded, tmp_path):
    cached, blobs = tmp_path / "models--a--b" / "snapshots" / "1", tmp_path / "models--a--b/blobs"
    cached.parent.mkdir(parents=True)
    sharded.rename(cached)
    blobs.mkdir()
    for number, file in enumerate(sorted(cached.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(f"../../blobs/{number}")
    assert load(hub.find(str(cached)))
    (cached / "more").symlink_to("../../../elsewhere")
    assert "found links out of it: more" in fault(hub.find, str(cached))


@pytest.mark.parametrize(
    ("name", "field", "value", "says"),
    [
        ("config.json", "auto_map", {"AutoModel": "code.M"}, "found auto_map, which asks to run"),
        ("tokenizer_config.json", "auto_map", {"AutoTokenizer": ["code.T", None]}, "auto_map"),
        ("tokenizer_config.json", "trust_remote_code", True, "found trust_remote_code"),
        ("tokenizer_config.json", "vocab_file", "/etc/passwd", "found '/etc/passwd'"),
        ("tokenizer_config.json", "fast_tokenizer_files", ["../tokenizer.1.json"], "found '../tok"),
        ("tokenizer_config.json", "fast_tokenizer_files", [3], "found 3"),
    ],
)
def test_code_and_files_from_elsewhere(sharded, monkeypatch, name, field, value, says):
    make_tokenizer(90).save_pretrained(sharded)
    (sharded / "code.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(sharded)
    config = hf.read_config(sharded)
    edit_json(sharded / name, **{field: value})

    def read() -> None:
        hf.load_tokenizer(sharded, config)
        hf.read_raw_config(sharded)

    message = fault(read)
    assert message.startswith(f"{sharded / name}: expected ")
    assert says in message


def test_weights_of_no_floats(sharded):
    file = json.loads((sharded / hf.INDEX).read_text())["weight_map"]["shared.weight"]
    weights = safetensors.numpy.load_file(sharded / file)
    weights["shared.weight"] = np.zeros(weights["shared.weight"].shape, np.int32)
    safetensors.numpy.save_file(weights, sharded / file)
    assert "mistyped: shared.weight: expected F64, F32, F16, BF16, found I32" in fault(
        load, sharded
    )


def test_an_export_that_fails_leaves_nothing(sharded, tmp_path, monkeypatch):
    params, config = load(sharded)
    raw = hf.read_raw_config(sharded)
    given = (params, config, make_tokenizer(90), raw)
    folder = tmp_path / "out" / "exported"
    folder.mkdir(parents=True)  # an empty one is written into

    def fails(*args, **kwargs):
        assert not any(folder.iterdir())  # what is written so far lies aside
        raise OSError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(safetensors.numpy, "save", fails)
        with pytest.raises(OSError, match="no room"):
            hf.export(folder, *given)
    assert [*folder.parent.iterdir()] == [folder]
    hf.export(folder, *given)
    assert [*folder.parent.iterdir()] == [folder]
    assert load(folder)[1] == config
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        hf.export(tmp_path / "file" / "exported", *given)


def test_a_value_head_of_other_types(tmp_path):
    weights = {"value_weight": np.zeros(16, np.int64), "value_bias": np.zeros((), np.int64)}
    safetensors.numpy.save_file(weights, tmp_path / value_head.FILE)
    config = hf.read_config(SHARDED)
    assert value_head.load(tmp_path, config)["value_weight"].dtype == np.float32
    (tmp_path / value_head.FILE).unlink()
    (tmp_path / value_head.FILE).mkdir()
    assert "expected a value head, found a damaged file" in fault(value_head.load, tmp_path, config)
