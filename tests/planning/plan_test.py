import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

from hir_jax.devices import hardware, sharding
from hir_jax.errors import UserError
from hir_jax.model import t5
from hir_jax.planning import aot, hlo, plan, table
from tests import tiny

GB = hardware.GB


def parameters(shape):
    tree = t5.abstract_params(shape)
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "count"),
    [
        # What Hugging Face counts in the published weights.
        ("small", 76_961_152),
        ("base", 247_577_856),
        ("large", 783_150_080),
        ("xl", 2_849_757_184),
        ("xxl", 11_135_332_352),
    ],
)
def test_published_models_without_their_files(size, count):
    shape = plan.model_shape(tiny.config(**{"model.path": f"google/flan-t5-{size}"}))
    assert parameters(shape) == count
    assert not shape.scale_decoder_outputs and shape.gated


@pytest.fixture
def folder(tmp_path):
    """Writes a folder that has a config.json alone; gives a config of that model."""

    def write(without=(), **changes):
        raw = {key: v for key, v in (tiny.raw_config() | changes).items() if key not in without}
        (tmp_path / "config.json").write_text(json.dumps(raw))
        return tiny.config(**{"model.path": str(tmp_path)})

    return write


def test_tying_without_weights(folder):
    key = "tie_word_embeddings"
    assert not plan.model_shape(folder(**{key: False})).tie_lm_head
    assert plan.model_shape(folder(**{key: True})).tie_lm_head
    assert not plan.model_shape(folder(without=[key])).tie_lm_head  # v1.1
    old = {"without": [key], "feed_forward_proj": "relu"}
    assert plan.model_shape(folder(**old)).tie_lm_head  # v1.0
    assert plan.model_shape(folder(**old)).scale_decoder_outputs


def test_weights_decide_on_tying_where_there_are_any(tmp_path):
    raw = json.loads((tiny.folder() / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    shutil.copy(tiny.folder() / "model.safetensors", tmp_path)
    assert not plan.model_shape(tiny.config(**{"model.path": str(tmp_path)})).tie_lm_head


def test_no_such_model(tmp_path):
    with pytest.raises(UserError, match=r"model\.path: expected a folder"):
        plan.model_shape(tiny.config(**{"model.path": "./nowhere"}))
    with pytest.raises(UserError, match=r"expected a config\.json"):
        plan.model_shape(tiny.config(**{"model.path": str(tmp_path)}))


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "arguments", "says"),
    [
        ({"mesh.data": 3}, {}, r"config\.mesh: expected .* number of devices, 8 .*found data=3"),
        ({"train.batch_size": 12}, {}, r"batch_size: expected a multiple of 8 .*found 12"),
        ({"model.dtype": "float16"}, {}, r"config\.model\.dtype: expected one of float32, bfloat"),
        ({}, {"programs": ["training", "tea"]}, r"--programs: expected .*; found \['training', '"),
        ({}, {"programs": []}, "--programs: expected one or both of training, sampling; found"),
        ({}, {"topology": "v5e"}, "--topology: expected a kind of TPU"),
    ],
)
def test_what_cannot_be_planned(changes, arguments, says):
    with pytest.raises(UserError, match=says):
        plan.run(tiny.config(**changes), **{"searched": False} | arguments)


# The text -----------------------------------------------------------------------------------------


def program(flops, *loops, cycles=0, collectives=()):
    cost = hlo.Cost(flops, cycles, 0, collectives)
    return hlo.Program(cost, tuple(hlo.Loop(scope, turn) for scope, turn in loops))


MESH = sharding.make_mesh({"data": 8, "fsdp": 1, "tensor": 1})


def rows_of(text):
    """Cells of each row of the tables in a text, by the first."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return {
        cells[0]: cells[1:] for cells in ([c.strip() for c in x.split("|")[1:-1]] for x in lines)
    }


def test_the_tables():
    kind = hardware.Kind("v5e", 16 * GB, 200e12, 800e9, 1.5e9)
    gathers = (hlo.Collective("all-gather", 3, 2 * GB),)
    step = hlo.Cost(4 * 10**12, 15_000_000, 1234, gathers)
    turn = hlo.Cost(7 * 10**9, 0, 5, ())
    made = {
        "training": aot.Compiled(
            {"parameters": 2 * GB, "optimizer state": 4 * GB, "temporaries": 3 * GB},
            program=program(10**12, ("odd", turn), cycles=30_000_000, collectives=gathers),
            accessed=5 * GB,
            seconds=12,
        ),
        "sampling": aot.Compiled(
            {"parameters": 2 * GB, "caches": 15 * GB},
            program=program(10**9, ("a/T5.decode_step/b", step)),
            notes="8 rows",
        ),
    }
    text = table.of_mesh(MESH, kind, made)
    rows = rows_of(text)
    assert rows["total"] == ["9.00", "17.00"]
    assert rows["fits"] == ["yes", "NO"]
    assert rows["caches"] == ["", "15.00"]
    assert rows["of one device"] == [
        "a training step",
        "a turn of loop 0",
        "a decode step",
        "rest of a pool",
    ]
    assert rows["GFLOP"] == ["1,000.0", "7.0", "4,000.0", "1.0"]
    assert rows["kernels"] == ["0", "5", "1,234", "0"]
    assert rows["all-gather, GB (count)"] == ["2.000 (3)", "", "2.000 (3)", ""]
    assert rows["compiler's estimate, ms"] == ["20.00", "0.00", "10.00", "0.00"]
    # 6 GB read and written at 800 GB/s; 4 TFLOP at 200 TFLOP/s (reading 15 GB takes 18.75 ms).
    assert rows["roofline, ms"] == ["15.00", "", "20.00", ""]
    assert "sampling (8 rows): compiled in 0 s" in text
    assert "counts each loop once: 5.0 GB." in text


def test_adapters_in_the_table():
    kind = hardware.Kind("v5e", 16 * GB, 200e12, 800e9)
    kept = {"frozen model": 4 * GB, "adapters": 1 * GB, "optimizer state": 2 * GB}
    made = {"training": aot.Compiled(kept, program=program(10**9))}
    # The frozen model is read, the rest read and written: 10 GB at 800 GB/s.
    rows = rows_of(table.of_mesh(MESH, kind, made))
    assert rows["total"] == ["7.00"] and rows["roofline, ms"] == ["12.50"]


def test_a_program_that_did_not_compile_in_the_table():
    made = {"training": aot.Compiled({"parameters": 2 * GB}, "out of memory: Used 20G", seconds=7)}
    text = table.of_mesh(MESH, hardware.Kind("odd", 16 * GB), made)
    rows = rows_of(text)
    assert rows["total"] == ["over 2.00"] and rows["fits"] == ["NO"]
    assert "training (a batch in 1 part): out of memory: Used 20G (after 7 s)" in text


def test_a_tpu_program_of_a_tiny_model():
    pytest.importorskip("libtpu", reason="the TPU compiler is an optional extra")
    # In a process of its own: the compiler ends one that has XLA_FLAGS which are a CPU's alone.
    flags = ["--mode=plan", "--topology=v5e:2x2", "--config=tests/tiny.py", "--compilation_cache="]
    sizes = {"model.path": tiny.folder(), "mesh.fsdp": 4, "data.max_source_tokens": 16}
    flags += [f"--config.{name}={value}" for name, value in sizes.items()]
    done = subprocess.run(
        [sys.executable, "main.py", *flags],
        cwd=pathlib.Path(__file__).parents[2],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    assert rows["fits"] == ["yes", "yes"]
    assert float(rows["compiler's estimate, ms"][0]) > 0
    assert "all-gather, GB (count)" in rows
