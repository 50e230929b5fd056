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
    tree = jax.eval_shape(lambda: t5.init_params(shape, jax.random.key(0)))
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


# Meshes -------------------------------------------------------------------------------------------


def test_candidates_from_cheap_to_dear():
    meshes = [tuple(mesh.values()) for mesh in plan.candidates(8, tiny.shape())]  # two heads
    assert meshes == [(8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2), (1, 4, 2)]
    flan = plan.model_shape(tiny.config(**{"model.path": "google/flan-t5-xl"}))
    assert list(plan.candidates(6, flan))[-1] == {"data": 1, "fsdp": 1, "tensor": 2} | {"data": 3}


@pytest.fixture
def compile_as(monkeypatch):
    """Replaces the compiler: gives what is compiled, for memory in GB by (program, mesh)."""

    def install(needs, memory=16):
        done = []

        def compiled(program, model):
            sizes = tuple(model.mesh.shape[axis] for axis in sharding.AXES)
            done.append((program, sizes))
            return aot.Compiled({"temporaries": needs(program, sizes) * GB}, seconds=1)

        monkeypatch.setattr(aot, "training", lambda config, model: compiled("training", model))
        monkeypatch.setattr(
            aot, "sampling", lambda config, model, kind, trie: compiled("sampling", model)
        )
        kind = hardware.Kind("v5e", memory * GB)
        monkeypatch.setattr(hardware, "topology", lambda name: (jax.devices(), kind))
        return done

    return install


def test_the_search_ends_at_the_first_mesh_that_fits_both(compile_as):
    def needs(program, sizes):
        return 9 if (sizes[0] <= 2 if program == "training" else sizes[2] == 2) else 17

    done = compile_as(needs)
    text = plan.run(tiny.config(**{"train.batch_size": 8}), "v5e:2x4")
    assert done == [
        ("training", (8, 1, 1)),  # too large; sampling is not compiled then
        ("training", (4, 2, 1)),
        ("training", (2, 4, 1)),
        ("sampling", (2, 4, 1)),
        ("training", (1, 8, 1)),
        ("sampling", (1, 8, 1)),
        ("training", (4, 1, 2)),
        ("training", (2, 2, 2)),
        ("sampling", (2, 2, 2)),
    ]
    assert text.endswith(
        "The cheapest mesh that fits: --config.mesh.data=2 --config.mesh.fsdp=2 "
        "--config.mesh.tensor=2"
    )


def test_the_search_tells_that_nothing_fits(compile_as):
    done = compile_as(lambda program, sizes: 17)
    text = plan.run(tiny.config(**{"train.batch_size": 8}), "v5e:2x4")
    assert len(done) == 7 and {program for program, _ in done} == {"training"}
    assert text.split("\n\n")[-1].startswith("No mesh fits. Give more devices, a smaller --config")


def test_a_mesh_that_is_given_is_the_only_one_and_both_programs_are_compiled(compile_as):
    done = compile_as(lambda program, sizes: 17)
    text = plan.run(tiny.config(**{"mesh.data": 4, "mesh.fsdp": 2}), "v5e:2x4", search=False)
    assert done == [("training", (4, 2, 1)), ("sampling", (4, 2, 1))]
    assert "data=4 fsdp=2 tensor=1" in text
    assert text.count(" NO ") == 2


def test_meshes_that_cannot_fit_are_not_compiled(compile_as):
    done = compile_as(lambda program, sizes: 0.3, memory=0.4)
    changes = {"model.path": "google/flan-t5-small", "train.optimizer": "adafactor"}
    text = plan.run(tiny.config(**changes, **{"sample.dtype": "bfloat16"}), "v5e:2x4")
    # float32 parameters in one part and a bfloat16 copy: 0.31 + 0.15 GB; in two: 0.15 + 0.15.
    reason = "parameters, optimizer state and decoding copy alone take 0.46 GB of a device's 0.40"
    assert f"data=8 fsdp=1 tensor=1: not compiled, {reason}" in text
    assert done == [("training", (4, 2, 1)), ("sampling", (4, 2, 1))]


def test_meshes_that_do_not_divide_the_batch_are_not_compiled(compile_as):
    done = compile_as(lambda program, sizes: 9)
    text = plan.run(tiny.config(**{"train.batch_size": 12}), "v5e:2x4")
    assert "batch_size=12 is no multiple of 8 (accumulation x data x fsdp)" in text
    assert done == [("training", (4, 1, 2)), ("sampling", (4, 1, 2))]


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
        plan.run(tiny.config(**changes), **{"search": False} | arguments)


# The text -----------------------------------------------------------------------------------------


def program(flops, *loops, cycles=0, collectives=()):
    cost = hlo.Cost(flops, cycles, 0, collectives)
    return hlo.Program(cost, tuple(hlo.Loop(scope, turn) for scope, turn in loops))


def rows_of(text):
    """Cells of each row of the tables in a text, by the first."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return {
        cells[0]: cells[1:] for cells in ([c.strip() for c in x.split("|")[1:-1]] for x in lines)
    }


def test_the_tables():
    config = tiny.config(**{"train.batch_size": 8, "sample.dtype": "bfloat16"})
    model = aot.abstract_model(
        config, tiny.shape(), sharding.make_mesh({"data": 8, "fsdp": 1, "tensor": 1})
    )
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
    text = table.mesh(config, model, kind, made)
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


def test_adapters_in_the_table(compile_as):
    compile_as(lambda program, sizes: 9)
    changes = {"lora.rank": 4, "lora.targets": "attention", "lora.base_dtype": "bfloat16"}
    text = plan.run(tiny.config(**changes), "v5e:2x4")
    assert "Training: 0.0 million of adapters beside bfloat16 weights, 8 examples" in text
    kind = hardware.Kind("v5e", 16 * GB, 200e12, 800e9)
    kept = {"frozen model": 4 * GB, "adapters": 1 * GB, "optimizer state": 2 * GB}
    made = {"training": aot.Compiled(kept, program=program(10**9))}
    config = tiny.config(**changes)
    model = aot.abstract_model(config, tiny.shape(), sharding.make_mesh(config.mesh))
    # The frozen model is read, the rest read and written: 10 GB at 800 GB/s.
    rows = rows_of(table.mesh(config, model, kind, made))
    assert rows["total"] == ["7.00"] and rows["roofline, ms"] == ["12.50"]


def test_a_program_that_did_not_compile_in_the_table():
    config = tiny.config(**{"train.batch_size": 8})
    model = aot.abstract_model(config, tiny.shape(), sharding.make_mesh(config.mesh))
    made = {"training": aot.Compiled({"parameters": 2 * GB}, "out of memory: Used 20G", seconds=7)}
    text = table.mesh(config, model, hardware.Kind("odd", 16 * GB), made)
    rows = rows_of(text)
    assert rows["total"] == ["over 2.00"] and rows["fits"] == ["NO"]
    assert "training: out of memory: Used 20G (after 7 s)" in text


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
