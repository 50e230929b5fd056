"""Every mesh is planned or refused, the fastest that fits comes first; with a false compiler."""

import dataclasses
import json

import jax
import pytest

from hir_jax.decoding import records
from hir_jax.decoding.trie import Trie
from hir_jax.devices import hardware, sharding
from hir_jax.errors import UserError
from hir_jax.planning import aot, hlo, iteration, plan, search
from hir_jax.planning.iteration import Work
from hir_jax.run import fitting
from tests import tiny

GB = hardware.GB


def test_meshes_from_cheap_to_dear():
    found = [tuple(mesh.values()) for mesh in search.meshes(8, tiny.shape())]  # two heads
    assert found == [(8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2), (1, 4, 2)]
    flan = plan.model_shape(tiny.config(**{"model.path": "google/flan-t5-xl"}))
    assert list(search.meshes(6, flan))[-1] == {"data": 1, "fsdp": 1, "tensor": 2} | {"data": 3}


KIND = hardware.Kind("v5e", 16 * GB, 200e12, 800e9, 1e9, 100e9)
ENGINE = records.Shape(8, 8, 2, 4)


def estimated(program, gigabytes, milliseconds=1.0, parts=1, shape=ENGINE):
    """A program that takes so much memory and time on a device of `KIND`."""
    cost = hlo.Cost(0, round(milliseconds * 1e6), 1, ())
    loops = [hlo.Loop(scope, cost) for scope in (aot.DECODING, aot.ENCODING, aot.FILLING)]
    made = hlo.Program(cost, tuple(loops) if program == "sampling" else ())
    memory = {"temporaries": gigabytes * GB, "caches": 0.0}
    return aot.Compiled(memory, program=made, seconds=1, parts=parts, shape=shape)


@pytest.fixture
def compile_as(monkeypatch):
    """Replaces the compiler: gives what is compiled, as `needs` has it.

    That takes a program's name, the sizes of a mesh and a config, and gives GB, and milliseconds if
    they are not one.
    """

    def install(needs, memory=16):
        done = []

        def compiled(program, config, model):
            sizes = tuple(model.mesh.shape[axis] for axis in sharding.AXES)
            done.append((program, sizes))
            found = needs(program, sizes, config)
            found = found if isinstance(found, tuple) else (found,)
            shape = dataclasses.replace(ENGINE, rows=config.sample.rows)
            return estimated(program, *found, parts=config.train.accumulation, shape=shape)

        monkeypatch.setattr(
            aot, "training", lambda config, model, kind: compiled("training", config, model)
        )
        monkeypatch.setattr(
            aot, "sampling", lambda config, model, kind, *_: compiled("sampling", config, model)
        )
        kind = dataclasses.replace(KIND, memory=memory * GB)
        monkeypatch.setattr(hardware, "topology", lambda name: (jax.devices(), kind))
        monkeypatch.setattr(fitting, "chooses_by_memory", lambda mesh: True)
        return done

    return install


def planned(questions=8, **changes):
    """The plan of a tiny model on eight devices, and the lines of its table of candidates."""
    batch = {"train.batch_size": 8, "train.accumulation": 0}
    text = plan.run(tiny.config(**batch | changes), "v5e:2x4", questions=questions)
    return text, [cells for cells in table_of(text) if " x " in cells[0]][1:]


def table_of(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_the_search_sorts_what_fits_by_seconds_and_compiles_the_first_in_full(compile_as):
    def needs(program, sizes, config):
        return (17 if sizes[0] == 8 else 9), {4: 3.0, 2: 2.0, 1: 2.5}.get(sizes[0], 1.0)

    done = compile_as(needs)
    text, lines = planned()
    # Sampling is estimated first; where it does not fit training is not. Each from two depths.
    assert done[:2] == [("sampling", (8, 1, 1))] * 2 and ("training", (8, 1, 1)) not in done
    assert done[-2:] == [("training", (2, 4, 1)), ("sampling", (2, 4, 1))]  # in full
    seconds = [float(line[-2]) for line in lines if line[-1] == "yes"]
    assert seconds == sorted(seconds) and lines[0][0] == "2 x 4 x 1"
    assert (lines[-1][0], lines[-1][-1]) == ("8 x 1 x 1", "NO")
    assert text.endswith(
        "The fastest that fits: --config.mesh.data=2 --config.mesh.fsdp=4 --config.mesh.tensor=1 "
        "--config.train.remat=false --config.train.accumulation=1 --config.sample.rows=8"
    )


def test_an_iteration_by_hand(compile_as):
    compile_as(lambda program, sizes, config: (1, {"training": 5.0, "sampling": 1.0}[program]))
    grpo = {"algorithm": "grpo", "sample.top_k": 0, "train.epochs": 3, "train.batch_size": 8}
    _, lines = planned(**grpo)
    # 8 questions x 2 outputs are two batches, thrice: 30 ms. On each of eight shards one question
    # is encoded, put into the cache and decoded for 4 tokens, in one pool: 7 ms.
    assert lines[0][0] == "8 x 1 x 1" and float(lines[0][-2]) == 0.04
    config = tiny.config(**{"train.batch_size": 8, "train.epochs": 3, "iterations": 5})
    # HIR's buffer is of four iterations.
    assert Work.of(config, 8) == Work(8, 2, 3 * 8)
    work = Work.of(tiny.config(**grpo), 8)
    one = estimated("training", 1, 5.0)
    assert iteration.training_seconds(work, one, KIND) == pytest.approx(0.030)
    pool = estimated("sampling", 1, 1.0)
    assert iteration.sampling_seconds(work, 8, pool, KIND) == pytest.approx(0.007)
    # On one shard: 16 outputs in 8 rows; a question is encoded at a time; pools of 8.
    assert iteration.sampling_seconds(work, 1, pool, KIND) == pytest.approx(0.001 * (8 + 8 + 8 + 1))


def test_time_without_the_compilers_and_of_collectives():
    kind = dataclasses.replace(KIND, clock=0)
    sums = (hlo.Collective("all-reduce", 1, GB), hlo.Collective("all-gather", 1, GB))
    cost = hlo.Cost(4 * 10**12, 0, 1, sums)
    # 4 TFLOP at 200 TFLOP/s, or 8 GB at 800 GB/s; 2 x 1 + 1 GB at 100 GB/s.
    assert iteration.seconds(cost, kind, 8 * GB) == pytest.approx(0.020 + 0.030)
    assert iteration.seconds(cost, kind, 24 * GB) == pytest.approx(0.030 + 0.030)


def test_parts_and_computing_again_follow_from_the_memory(compile_as):
    def needs(program, sizes, config):
        train = config.train
        less, slower = {"products": (2, 1.5), "inputs": (4, 2.0)}[train.remat_keeps]
        less, slower = (less, slower) if train.remat else (1, 1.0)
        own = 40 / (train.accumulation or 1) / less
        return (own if program == "training" else 1), slower

    compile_as(needs)

    def ways(**changes):
        _, lines = planned(**{"train.batch_size": 32} | changes)
        return [line[1:3] for line in lines if line[0] == "8 x 1 x 1"]

    assert ways() == [["4", "no"], ["2", "products"], ["1", "inputs"]]
    asked = {"train.accumulation": 1, "train.remat": True}
    assert ways(**asked) == [["1", "products"]]
    assert ways(**asked | {"train.remat_keeps": "inputs"}) == [["1", "inputs"]]


def test_rows_are_halved_until_they_fit(compile_as, monkeypatch):
    def needs(program, sizes, config):
        return config.sample.rows / 2 if program == "sampling" else 1

    compile_as(needs)
    monkeypatch.setattr(fitting, "chooses_by_memory", lambda mesh: True)
    asked = {"sample.samples": 8}  # to 64 questions, that is at least 64 outputs on each shard
    _, lines = planned(64, **asked | {"sample.rows": 0})
    assert {(line[3], line[-1]) for line in lines} == {("16", "yes")}
    _, lines = planned(64, **asked | {"sample.rows": 64})  # what is asked for stays
    assert {(line[3], line[-1]) for line in lines} == {("64", "NO")}


def test_given_outputs_are_read_once_a_plan(compile_as, monkeypatch):
    trie, read = Trie.make([[(5, 1), (6, 1)]]), []
    monkeypatch.setattr(aot, "trie_of", lambda config: read.append(config) or trie)
    done = compile_as(lambda program, sizes, config: 1)
    planned(**{"sample.among": "outputs.txt"})
    assert len({sizes for _, sizes in done}) > 1
    assert len(read) == 1


def test_more_of_what_does_not_pay_is_left_out(compile_as):
    done = compile_as(lambda program, sizes, config: (1, float(sizes[1])))
    text, _ = planned()
    assert "data=2 fsdp=4 tensor=1: fsdp=2 is slower than less of it" in text
    assert not [sizes for _, sizes in done if sizes[1] > 2]


def test_without_a_time_the_first_that_fits_is_the_best(compile_as, monkeypatch):
    done = compile_as(lambda program, sizes, config: 17 if sizes[0] == 8 else 1)
    unknown = hardware.Kind("odd", 16 * GB)
    monkeypatch.setattr(hardware, "topology", lambda name: (jax.devices(), unknown))
    text, lines = planned()
    assert [(line[0], line[-2]) for line in lines] == [("4 x 2 x 1", ""), ("8 x 1 x 1", "")]
    assert "data=2 fsdp=4 tensor=1: one with less communication fits" in text
    assert {sizes for _, sizes in done} == {(8, 1, 1), (4, 2, 1)}


def test_the_next_one_is_taken_where_the_best_does_not_fit_in_full(compile_as, monkeypatch):
    compile_as(lambda program, sizes, config: 1)
    monkeypatch.setattr(
        plan,
        "compiled",
        lambda config, shape, mesh, *_: {
            "training": estimated("training", 17 if mesh.shape["data"] == 8 else 1)
        },
    )
    text, lines = planned()
    assert lines[0][0] == "8 x 1 x 1"
    assert "Compiled in full: --config.mesh.data=8" in text
    assert text.rpartition("The fastest that fits: ")[2].startswith("--config.mesh.data=4 ")


def test_dollars_where_a_price_is_given(compile_as, monkeypatch):
    compile_as(lambda program, sizes, config: (1, 1000.0))
    asked = tiny.config(**{"train.batch_size": 8})
    text = plan.run(asked, "v5e:2x4", questions=8, price=1.2, confirm=False)
    first = table_of(text)[1]
    seconds = float(first[-3].replace(",", ""))
    assert float(first[-2]) == pytest.approx(seconds * 8 * 1.2 / 3600, abs=1e-4)
    assert "by the estimates alone: --config.mesh.data=8" in text
    assert "$" not in plan.run(asked, "v5e:2x4", questions=8, confirm=False)


def test_the_search_tells_that_nothing_fits(compile_as):
    compile_as(lambda program, sizes, config: 17)
    text, lines = planned()
    assert {line[-1] for line in lines} == {"NO"}
    assert text.split("\n\n")[-1].startswith("Nothing fits. Give more devices, a smaller --config")


def test_a_mesh_that_is_given_is_the_only_one_and_both_programs_are_compiled(compile_as):
    done = compile_as(lambda program, sizes, config: 17)
    text = plan.run(tiny.config(**{"mesh.data": 4, "mesh.fsdp": 2}), "v5e:2x4", searched=False)
    assert done == [("training", (4, 2, 1)), ("sampling", (4, 2, 1))]
    assert "data=4 fsdp=2 tensor=1" in text
    assert text.count(" NO ") == 2


def test_meshes_that_cannot_fit_are_not_compiled(compile_as, tmp_path):
    done = compile_as(lambda program, sizes, config: 0.01, memory=0.4)
    # Large in few arrays: each is looked at for every mesh.
    raw = tiny.raw_config() | {"vocab_size": 40960, "d_model": 1024}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    changes = {"model.path": str(tmp_path), "train.optimizer": "adafactor"}
    text, _ = planned(**changes, **{"sample.dtype": "bfloat16"})
    # float32 parameters in one part and a bfloat16 copy: 0.34 + 0.17 GB; in two: 0.17 + 0.17.
    reason = "parameters, optimizer state and decoding copy alone take 0.51 GB of a device's 0.40"
    assert f"data=8 fsdp=1 tensor=1: {reason}" in text
    assert (8, 1, 1) not in {sizes for _, sizes in done} and ("training", (4, 2, 1)) in done


def test_meshes_that_do_not_divide_the_batch_are_not_compiled(compile_as):
    done = compile_as(lambda program, sizes, config: 9)
    text, lines = planned(**{"train.batch_size": 12})
    assert "config.train.batch_size: expected a multiple of 8 (accumulation x data x fsdp)" in text
    assert {line[0] for line in lines} == {"4 x 1 x 2", "2 x 2 x 2", "1 x 4 x 2"}
    assert {sizes[2] for _, sizes in done} == {2}


def test_meshes_that_cannot_be_laid_out_are_listed(compile_as, monkeypatch):
    compile_as(lambda program, sizes, config: 9)
    make_mesh = sharding.make_mesh

    def refusing(sizes, *args):
        if sizes["fsdp"] == 2:
            raise UserError("config.mesh: they cannot be laid out so.")
        return make_mesh(sizes, *args)

    monkeypatch.setattr(sharding, "make_mesh", refusing)
    text, _ = planned()
    assert "data=4 fsdp=2 tensor=1: config.mesh: they cannot be laid out so." in text


@pytest.mark.parametrize(
    "name",
    [f"{kind}:{shape}" for kind in ("v4", "v5p", "v7x") for shape in ("2x2x1", "2x2x4", "4x4x4")]
    + [f"{kind}:{shape}" for kind in ("v5e", "v6e") for shape in ("2x2", "2x4", "4x4", "8x8")]
    + ["v5e:4x4*2", "h100:8"],
)
def test_every_mesh_of_a_topology_is_planned_or_refused_with_a_sentence(name, monkeypatch):
    if name[0] == "h":
        pytest.importorskip("jax_plugins.xla_cuda12", reason="the GPU compiler is optional")
    else:
        pytest.importorskip("libtpu", reason="the TPU compiler is an optional extra")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    for program in ("training", "sampling"):
        monkeypatch.setattr(aot, program, lambda *_, program=program: estimated(program, 1))
    wide = {"num_heads": 64, "d_model": 64, "d_ff": 64, "vocab_size": 64}
    shape = dataclasses.replace(tiny.shape(), **wide)
    config = tiny.config(**{"train.accumulation": 0, "train.batch_size": 64})
    devices, kind = hardware.topology(name)
    found = search.search(config, shape, devices, kind, plan.PROGRAMS, Work(8, 2, 3), None)
    assert [each.sizes for each in found] == list(search.meshes(len(devices), shape))
    assert all(each.fits or each.reason for each in found) and any(each.fits for each in found)


def test_adapters_in_the_head(compile_as):
    compile_as(lambda program, sizes, config: 9)
    changes = {"lora.rank": 4, "lora.targets": "attention", "lora.base_dtype": "bfloat16"}
    text = plan.run(tiny.config(**changes), "v5e:2x4")
    assert "Training: 0.0 million of adapters beside bfloat16 weights, 8 examples" in text
