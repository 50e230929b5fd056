"""pytorch_model.bin: read without torch to the same numbers, and nothing of it is ever run."""

import builtins
import contextlib
import functools
import io
import json
import os
import pickle
import shutil
import struct
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from hir_jax.model import hf, torch_file
from tests.model import pickles
from tests.model.hf_test import fault, load


@pytest.mark.parametrize("recorded", [pickles.ZIP, pickles.LEGACY, pickles.SHARDED])
def test_files_of_torch_are_read_as_their_safetensors(recorded):
    params, config = load(recorded)
    expected, expected_config = load(recorded / "expected")
    assert config == expected_config
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


def test_a_tensor_may_be_a_view(tmp_path):
    file = tmp_path / pickles.FILE
    views = {"part": ((3, 4), (8, 1), 2), "turned": ((8, 12), (1, 8), 0), "one": ((), (), 95)}
    parts = [
        pickles.text(name) + pickles.tensor(offset=offset, shape=shape, strides=strides)
        for name, (shape, strides, offset) in views.items()
    ]
    file.write_bytes(pickles.with_pickle(b"\x80\x02}(" + b"".join(parts) + b"u."))
    read = torch_file.TorchFile(file)
    whole = np.frombuffer(pickles.entries()["data/0"], np.float32).reshape(12, 8)
    assert read.keys() == [*views]
    np.testing.assert_array_equal(read.get_tensor("part"), whole[:3, 2:6])
    np.testing.assert_array_equal(read.get_tensor("turned"), whole.T)
    assert read.get_tensor("one") == whole[-1, -1]
    np.testing.assert_array_equal(read.get_slice("turned")[2:4], whole.T[2:4])


@pytest.fixture
def single(tmp_path):
    return shutil.copytree(pickles.ZIP, tmp_path / "model")


# Beside torch and transformers ---------------------------------------------------------------


@pytest.fixture(scope="module")
def record():
    """The torch side."""
    pytest.importorskip("torch", reason="torch is not installed")
    from tests.golden import record

    return record


def as_transformers(folder, params, config):
    """Checks parameters against the model that transformers makes of the folder."""
    import transformers

    model = transformers.T5ForConditionalGeneration.from_pretrained(folder)
    assert (model.lm_head.weight is model.shared.weight) == config.tie_lm_head
    assert model.config.scale_decoder_outputs == config.scale_decoder_outputs
    weights = model.float().state_dict()
    for name, (path, transposed) in hf.name_table(config).items():
        ours = functools.reduce(dict.__getitem__, path, params)
        np.testing.assert_array_equal(ours.T if transposed else ours, weights[name].numpy())


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("variant", ["tiny_v1_0", "tiny_v1_1"])
def test_what_torch_writes_is_read_as_transformers_reads_it(
    tmp_path, record, variant, dtype, new, count
):
    model = record.build(variant, seed=2).to(getattr(record.torch, dtype))
    record.pickle(model, tmp_path, new, count)
    as_transformers(tmp_path, *load(tmp_path))


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
@pytest.mark.parametrize("head", ["the embedding", "a copy", "another"])
@pytest.mark.parametrize("said_tied", [None, True, False])
def test_a_head_is_tied_where_transformers_ties_it(tmp_path, record, head, said_tied, suffix):
    model = record.build("tiny_v1_0", seed=2)
    state = model.state_dict()
    if head != "the embedding":
        state["lm_head.weight"] = state["shared.weight"] + (head == "another")
    model.config.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    del raw["tie_word_embeddings"], raw["scale_decoder_outputs"]
    raw |= {} if said_tied is None else {"tie_word_embeddings": said_tied}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    if suffix == "bin":
        record.torch.save(state, tmp_path / pickles.FILE)
    else:
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        safetensors.numpy.save_file(arrays, tmp_path / hf.WEIGHTS, {"format": "pt"})
    params, config = load(tmp_path)
    assert config.tie_lm_head == (head != "another")
    as_transformers(tmp_path, params, config)


def test_our_own_files_are_torchs(tmp_path, record):
    """What the tests below build by hand, torch reads too."""
    (tmp_path / "zip").write_bytes(pickles.with_pickle(pickles.named(pickles.tensor())))
    stored = struct.pack("<Q", 96) + pickles.entries()["data/0"]
    named = pickles.named(pickles.tensor(pickles.storage(view=b"N")))
    made = pickles.legacy(named, ("0",), stored)
    (tmp_path / "legacy").write_bytes(made)
    for name in ("zip", "legacy"):
        theirs = record.torch.load(tmp_path / name, weights_only=True)["shared.weight"]
        ours = torch_file.TorchFile(tmp_path / name).get_tensor("shared.weight")
        np.testing.assert_array_equal(ours, theirs.numpy())


# No code runs --------------------------------------------------------------------------------


class Touch:
    """Pickled, it makes a file where it is unpickled."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def hostile(ran):
    """Pickles that make the file `ran` where Python's own reader reads them, and what is said of
    each: by name."""
    touch, code = f"touch {ran}", f"open({str(ran)!r}, 'w')"
    said, body = pickles.text(touch), b"cposix\nsystem\n"
    system, evaluated = Touch(os.system, touch), Touch(eval, code)
    stored = pickles.storage(kind="chostile_module\nx\n")
    return {
        "system": (pickle.dumps(system, 2), "the name 'posix.system'"),
        "eval": (pickle.dumps(evaluated, 2), "the name '__builtin__.eval'"),
        "exec": (pickle.dumps(Touch(exec, code), 2), "the name '__builtin__.exec'"),
        "in a dict": (pickle.dumps({"shared.weight": system}, 2), "the name 'posix.system'"),
        "in a key": (pickle.dumps({(1, evaluated): 1}, 2), "the name '__builtin__.eval'"),
        "protocol 0": (pickle.dumps(system, 0), "the name 'posix.system'"),
        "protocol 4": (pickle.dumps(system, 4), "the pickle's step FRAME"),
        "an import": (b"chostile_module\nx\n.", "the name 'hostile_module.x'"),
        "its name ours": (b"chostile_module\nOrderedDict\n.", "'hostile_module.OrderedDict'"),
        "STACK_GLOBAL": (
            pickles.text("posix") + pickles.text("system") + b"\x93" + said + b"\x85R.",
            "the pickle's step STACK_GLOBAL",
        ),
        "INST": (b"(" + said + b"iposix\nsystem\n.", "the pickle's step INST"),
        "OBJ": (b"(" + body + said + b"o.", "the name 'posix.system'"),
        "popped": (body + said + b"\x85R0" + pickles.named(pickles.tensor()), "'posix.system'"),
        "a storage's kind": (
            pickles.named(pickles.tensor(stored)),
            "the name 'hostile_module.x'",
        ),
    }


HOSTILE = [*hostile("ran")]


@pytest.fixture
def on_path(monkeypatch, tmp_path):
    """The hostile module may be imported, and is not yet."""
    module = f"open({str(tmp_path / 'ran')!r}, 'w')\nx = OrderedDict = dict"
    (tmp_path / "hostile_module.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("hostile_module", None)


@pytest.fixture
def no_imports(monkeypatch, on_path):
    """Within it, an import of anything is an error, but for what is imported already."""
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        assert name in sys.modules, f"imported {name}"
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_hostile(tmp_path, on_path, name):
    """Or the next test would show nothing."""

    class Reader(pickle.Unpickler):
        def persistent_load(self, given):
            return given

    with contextlib.suppress(ImportError, TypeError, AttributeError, pickle.UnpicklingError):
        Reader(io.BytesIO(hostile(tmp_path / "ran")[name][0])).load()  # what comes after may fail
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("place", ["zip", "legacy", "legacy, first", "shard"])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_code_of_a_pickle_runs(tmp_path, no_imports, name, place):
    pickled, says = hostile(tmp_path / "ran")[name]
    recorded = pickles.SHARDED if place == "shard" else pickles.ZIP
    folder = shutil.copytree(recorded, tmp_path / "model")
    file = folder / ("pytorch_model-00002-of-00002.bin" if place == "shard" else pickles.FILE)
    if place == "legacy":
        file.write_bytes(pickles.legacy(pickled))
    elif place == "legacy, first":
        file.write_bytes(b"\x80\x02" + pickled)
    else:
        file.write_bytes(pickles.with_pickle(pickled))
    message = fault(load, folder)
    assert message.startswith(f"{file}: expected tensors by name and no code, found ")
    assert says in message
    assert message.endswith(
        "None of it was run. Take the model from whom you trust, as safetensors."
    )
    assert not (tmp_path / "ran").exists()
    assert "hostile_module" not in sys.modules
