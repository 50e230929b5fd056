"""Model folders with anything in them: a model, or a sentence."""

import json
import shutil
import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from hir_jax.model import hf, value_head
from tests import fuzz, tiny

WHOLE = ("config.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model in two files with an index, and a file outside of it that nothing may name."""
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    given = (tiny.params(), tiny.shape(), tiny.tokenizer(), tiny.raw_config())
    hf.export(folder, *given, shard_bytes=8_000)
    assert (folder / hf.INDEX).exists()
    shutil.copy(folder / "config.json", folder.parent / "elsewhere.safetensors")
    return folder


def read(folder):
    """As a run does; weights stay where they are."""
    found = hf.find(str(folder))
    config = hf.read_config(found)
    params = hf.load_params(found, config, lambda path, array: np.asarray(array).dtype)
    assert params["shared"] == np.float32
    hf.load_tokenizer(found, config)
    value_head.load(found, config)
    return config


def tried(folder, name, content):
    """Reads the folder with other content in one of its files, which is put back."""
    file = folder / name
    before = file.read_bytes() if file.exists() else None
    file.write_bytes(content)
    try:
        whole = fuzz.contents(folder)
        found = fuzz.outcome(read, folder)
        assert fuzz.contents(folder) == whole
    finally:
        file.unlink() if before is None else file.write_bytes(before)
    return found


@fuzz.cases(100)
@hypothesis.given(data=st.data())
def test_config(folder, data):
    content = data.draw(fuzz.files(json.loads((folder / "config.json").read_text())))
    found = tried(folder, "config.json", content)
    if found is not None:
        assert min(found.d_model, found.num_heads, found.relative_attention_num_buckets // 4) >= 1


@fuzz.cases(100)
@hypothesis.given(data=st.data())
def test_index(folder, data):
    content = data.draw(fuzz.files(json.loads((folder / hf.INDEX).read_text())))
    tried(folder, hf.INDEX, content)


@fuzz.cases(40)
@hypothesis.given(data=st.data())
def test_tokenizer(folder, data):
    name = data.draw(st.sampled_from(["tokenizer_config.json", "tokenizer.json"]))
    content = data.draw(fuzz.files(json.loads((folder / name).read_text())))
    tried(folder, name, content)


@fuzz.cases(100)
@hypothesis.given(data=st.data())
def test_safetensors_headers(folder, data):
    name = data.draw(st.sampled_from(sorted(f.name for f in folder.glob("model-*"))))
    whole = (folder / name).read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header, rest = whole[8 : 8 + size], whole[8 + size :]
    changed = data.draw(fuzz.files(json.loads(header)))
    length = data.draw(st.sampled_from([len(changed), len(changed), 0, size, 2**62]))
    tried(folder, name, struct.pack("<Q", length) + changed + rest)


@fuzz.cases(40)
@hypothesis.given(dtype=st.sampled_from(["F16", "F32", "BF16", "F8_E5M2", "I64", "BOOL", "C64"]))
def test_value_heads(folder, dtype):
    bytes_of = {"F16": 2, "F32": 4, "BF16": 2, "F8_E5M2": 1, "I64": 8, "BOOL": 1, "C64": 8}[dtype]
    ends = (0, 16 * bytes_of, 17 * bytes_of)
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        for name, shape, start, end in zip(
            ("value_weight", "value_bias"), ([16], []), ends, ends[1:], strict=False
        )
    }
    text = json.dumps(header).encode()
    tried(folder, value_head.FILE, struct.pack("<Q", len(text)) + text + bytes(ends[-1]))
