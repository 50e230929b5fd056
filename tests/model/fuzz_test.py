"""Model folders with anything in them: a model, or a sentence."""

import json
import pickletools
import shutil
import struct
import tracemalloc

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from hir_jax.model import hf, hub, value_head
from tests import fuzz, tiny
from tests.model import pickles

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
    found = hub.find(str(folder))
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


# Pickles -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pickled(tmp_path_factory):
    """A model that torch pickled, in a folder where a hostile one would make a file `ran`."""
    return shutil.copytree(pickles.ZIP, tmp_path_factory.mktemp("pickled") / "model")


def read_pickled(folder):
    """As a run does, but for the tokenizer."""
    found = hub.find(str(folder))
    params = hf.load_params(found, hf.read_config(found))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    return params


def tried_pickled(folder, content):
    """Reads the folder with this in place of its weights; nothing of it may run, or take much."""
    (folder / pickles.FILE).write_bytes(content)
    tracemalloc.start()
    try:
        return fuzz.outcome(read_pickled, folder)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**25 + 32 * len(content)
        assert not (folder.parent / "ran").exists()


@fuzz.cases(100)
@hypothesis.given(data=st.data(), recorded=st.sampled_from([pickles.ZIP, pickles.LEGACY]))
def test_damaged_pickles(pickled, data, recorded):
    whole = (recorded / pickles.FILE).read_bytes()
    shutil.copy(recorded / "config.json", pickled)
    tried_pickled(pickled, data.draw(fuzz.damaged(whole)))


@fuzz.cases(200)
@hypothesis.given(data=st.data())
def test_other_steps_in_a_pickle(pickled, data):
    shutil.copy(pickles.ZIP / "config.json", pickled)
    whole = pickles.entries()["data.pkl"]
    places = [place for _, _, place in pickletools.genops(whole)]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(places) - 1))
        end = min(start + data.draw(st.integers(0, 3)), len(places) - 1)
        put = b"".join(data.draw(st.lists(steps(pickled.parent / "ran"), max_size=5)))
        whole = whole[: places[start]] + put + whole[places[end] :]
        removed = places[end] - places[start]
        places = places[:start] + [place + len(put) - removed for place in places[end:]]
    tried_pickled(pickled, pickles.with_pickle(whole))


def steps(ran):
    """Steps of a pickle, hostile, odd or usual."""
    call = pickles.text(f"touch {ran}") + b"\x85R"
    return st.one_of(
        st.sampled_from(
            [
                b"cposix\nsystem\n" + call,
                pickles.text("posix") + pickles.text("system") + b"\x93" + call,
                b"(" + pickles.text(f"touch {ran}") + b"iposix\nsystem\n",
                *(b"ccollections\nOrderedDict\n)R", b"ctorch\nFloatStorage\n"),
                *(pickles.tensor(), pickles.storage(), pickles.storage("1", 2**40)),
                *(pickles.tensor(shape=(2**30, 2**30), strides=(0, 0)), pickles.text("storage")),
                *(
                    b"(",
                    b")",
                    b"}",
                    b"]",
                    b"R",
                    b"b",
                    b"Q",
                    b"t",
                    b"s",
                    b"u",
                    b"a",
                    b"e",
                    b"0",
                    b"2",
                ),
                *(b"\x85", b"\x86", b"\x87", b"\x81", b"o", b".", b"N", b"\x88", b"\x82\1"),
                *(b"q\0h\0\x86" * 100, b"h\0", b"q\0", b"j" + b"\xff" * 4, b"r" + b"\xff" * 4),
                *(
                    b"X" + b"\xff" * 4,
                    b"\x8b" + b"\xff" * 3 + b"\x7f",
                    b"\x8d" + b"\xff" * 7 + b"\0",
                ),
                *(b"\x8a\xff" + b"\x7f" * 255, b"L" + b"9" * 5000 + b"L\n"),
            ]
        ),
        st.integers(-(2**64), 2**64).map(pickles.number),
        st.binary(max_size=3),
    )
