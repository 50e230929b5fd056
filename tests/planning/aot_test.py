"""The plan compiles what a run calls: the same functions, the same kinds of arguments."""

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest
import transformers

from hir_jax.decoding import records, sampler
from hir_jax.decoding.prompt import Guide, Prompt
from hir_jax.devices import hardware, sharding
from hir_jax.errors import UserError
from hir_jax.model import batching
from hir_jax.model.codec import Codec
from hir_jax.planning import aot, plan
from hir_jax.run import answering, fitting, models, trainers
from hir_jax.training.batch import make_batch
from tests import tiny

KIND = hardware.Kind("test", 1e9, 1e12, 1e9)
CHANGES = {
    "mesh.data": 1,
    "mesh.fsdp": 4,
    "mesh.tensor": 2,
    "data.max_source_tokens": 13,
    "train.batch_size": 16,
    "sample.rows": 8,
}


def setup(**changes):
    config = tiny.config(**CHANGES | changes)
    return config, aot.abstract_model(config, tiny.shape(), sharding.make_mesh(config.mesh))


class Stop(Exception):
    pass


class Recorder:
    """Stands in for a jitted function; keeps what it is called or lowered with, then stops."""

    def __call__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs
        raise Stop

    lower = __call__

    def leaves(self):
        """Path, shape, type and place of every argument (small ones lie where JAX puts them)."""
        flat, _ = jax.tree_util.tree_flatten_with_path(self.args)
        return [
            (
                jax.tree_util.keystr(path),
                leaf.shape,
                leaf.dtype,
                leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape,
            )
            for path, leaf in flat
        ]


@pytest.mark.parametrize("changes", [{"loss.kl_weight": 0.1}, {"lora.rank": 4}])
def test_training_is_compiled_for_the_arguments_of_a_run(monkeypatch, changes):
    config, model = setup(**changes)
    real = models.load_model(config)
    training = trainers.make_training(config, real)
    planned, called = Recorder(), Recorder()
    batch = jax.device_put(
        make_batch([], config.train.batch_size, (24, 8), training.layout),
        sharding.batch_sharding(real.mesh),
    )
    state, start = trainers.begin(config, real, training)
    with pytest.raises(Stop):
        called(state, batch, jax.random.key(0), start)
    fake = dataclasses.replace(training, step=planned)
    monkeypatch.setattr(trainers, "make_training", lambda *_: fake)
    with pytest.raises(Stop):
        aot.training(config, model, KIND)
    assert planned.leaves() == called.leaves()


@pytest.fixture
def two_ends(tmp_path):
    """A model that two ids end an output of."""
    folder = shutil.copytree(tiny.folder(), tmp_path / "two_ends")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 9]}))
    return folder


@pytest.fixture
def outputs(tmp_path):
    """A file of outputs."""
    file = tmp_path / "outputs.txt"
    file.write_text("True\nnot True\nw1\n")
    return file


@pytest.mark.parametrize(
    "changes",
    [
        {"sample.dtype": "bfloat16"},
        {"sample.temperature": 0.0},
        {"sample.guidance": 0.5},
        {"sample.among": "outputs.txt"},
        {"model.path": "two_ends"},
    ],
    ids=lambda changes: "".join(changes) or "plain",
)
def test_sampling_is_compiled_for_the_arguments_of_a_run(monkeypatch, two_ends, outputs, changes):
    monkeypatch.chdir(outputs.parent)
    config = setup(**changes)[0]
    model = aot.abstract_model(config, plan.model_shape(config), sharding.make_mesh(config.mesh))
    real = models.load_model(config)
    made = models.make_sampler(config, real, (16,))
    prompts = [Prompt((5,) * 16, i) for i in range(99)]
    guidance = config.sample.guidance
    guide = Guide([(6,) * 16] * 99, guidance) if guidance else None
    allowed = answering.load(config, "sample", real.codec, [])
    among = allowed and allowed.among([0] * 99)
    programs = sampler.programs
    recorders = []
    for call in (
        lambda: made(
            real.params,
            prompts,
            jax.random.key(0),
            config.sample.temperature,
            2,
            guide=guide,
            among=among,
        ),
        lambda: aot.sampling(config, model, KIND, aot.trie_of(config)),
    ):
        recorders.append(Recorder())

        def fake(*compiled_for, recorder=recorders[-1]):
            recorder.compiled_for = compiled_for
            return programs(*compiled_for)._replace(decode_pool=recorder)

        monkeypatch.setattr(sampler, "programs", fake)
        monkeypatch.setattr(aot, "programs", fake)
        with pytest.raises(Stop):
            call()
    called, planned = recorders
    assert planned.leaves() == called.leaves()
    assert planned.compiled_for == called.compiled_for
    wanted = {"model.path": "[5]", "sample.among": "[7].token_E"}  # EOS ids, and the trie's edges
    shapes = {path: shape for path, shape, *_ in planned.leaves()}
    for field in wanted.keys() & changes.keys():
        assert shapes[wanted[field]] == {"model.path": (2,), "sample.among": (7,)}[field]


def test_the_letters_of_a_plan_are_those_of_the_questions(monkeypatch, tmp_path):
    file = tmp_path / "questions.jsonl"
    options = (["a", "b"], ["a", "b", "c"])
    lines = [{"question": f"w{i}", "options": options[i % 2], "answer": "A"} for i in range(9)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    of_bytes = Codec(transformers.ByT5Tokenizer(), 1)
    monkeypatch.setattr(models, "load_codec", lambda config: of_bytes)
    changes = {"data.source": "jsonl", "data.task": "", "data.path": str(file)}
    trie = aot.trie_of(setup(**changes, **{"sample.among": "options"})[0])
    assert (trie.roots, trie.degree, len(trie.token_E)) == (2, 3, 7 + 10)  # "(", "A" "B" ...


def test_a_plan_takes_the_parts_of_a_run(monkeypatch):
    changes = {"train.accumulation": 0, "train.batch_size": 32, "data.max_source_tokens": 16}
    config, model = setup(**changes)
    longest = []

    def step_in(config, model, buckets, parts):
        longest.append((buckets.source[-1], buckets.target[-1]))
        return fitting.Measured({"temporaries": 100 / parts}, parts=parts)

    monkeypatch.setattr(fitting, "step_in", step_in)
    monkeypatch.setattr(fitting, "state_memory", lambda *_: {})
    monkeypatch.setattr(fitting, "chooses_by_memory", lambda mesh: True)
    monkeypatch.setattr(hardware, "memory_of", lambda device: 30)
    buckets = batching.make_buckets([9, 16], config.sample.max_new_tokens, 2, 2)
    known = {}
    fitting.make_training(config, model, buckets, known)
    planned = aot.training(config, model, dataclasses.replace(KIND, memory=30))
    assert [planned.parts] == list(known.values()) == [4]
    assert set(longest) == {(24, 8)}
    assert aot.training(setup(**changes | {"train.accumulation": 2})[0], model, KIND).parts == 2


def test_memory_of_the_state_by_hand():
    config, model = setup()
    kept = aot.state_memory(config, model)
    arrays = jax.tree.leaves(model.params)
    placed = sum(np.prod(x.sharding.shard_shape(x.shape)) * 4 for x in arrays)
    whole = sum(x.size * 4 for x in arrays)
    # Norms and position biases are whole on every device, all else is in eight parts.
    assert whole / 8 < kept["parameters"] < whole / 6
    assert kept["parameters"] == placed
    assert 0 <= kept["optimizer state"] - 2 * placed <= 16  # AdamW's moments, and step counts
    config, model = setup(**{"loss.kl_weight": 0.1})
    assert aot.state_memory(config, model)["starting model"] == placed


def test_rows_by_the_memory_that_the_state_leaves(monkeypatch):
    asked = []
    monkeypatch.setattr(aot, "programs", lambda *_: (None, None))
    monkeypatch.setattr(fitting, "chooses_by_memory", lambda mesh: True)

    def shape(self, prompts, samples, source_length, free, greedy, guided, among):
        asked.append((prompts, samples, source_length, free))
        raise Stop

    monkeypatch.setattr(sampler.Sampler, "shape", shape)
    for dtype in ("float32", "bfloat16"):  # with fsdp=4, decoding reads a copy in either case
        config, model = setup(**{"sample.dtype": dtype})
        with pytest.raises(Stop):
            aot.sampling(config, model, KIND, None)
        kept = sum(aot.state_memory(config, model).values())
        decoding = dataclasses.replace(model.config, dtype=dtype)
        kept += sharding.device_bytes(fitting.decoding_copy(model.params, decoding, model.mesh))
        assert asked.pop() == (aot.MANY, 2, 16, KIND.memory - kept)
    config, model = setup(**{"mesh.fsdp": 1, "mesh.data": 4, "sample.dtype": "float32"})
    with pytest.raises(Stop):
        aot.sampling(config, model, KIND, None)
    kept = sum(aot.state_memory(config, model).values())
    assert asked.pop() == (aot.MANY, 2, 16, KIND.memory - kept)


def test_decoding_copy_is_the_parameters_where_nothing_differs():
    config, model = setup(**{"mesh.fsdp": 1, "mesh.data": 4})
    float32 = models.make_sampler(config, model, (16,)).config
    assert fitting.decoding_copy(model.params, float32, model.mesh) is model.params
    merged = fitting.decoding_copy(model.params, float32, model.mesh, merged=True)
    assert sharding.device_bytes(merged) == sharding.device_bytes(model.params)
    assert merged is not model.params
    half = dataclasses.replace(float32, dtype="bfloat16")
    copy = fitting.decoding_copy(model.params, half, model.mesh)
    assert 0.45 < sharding.device_bytes(copy) / sharding.device_bytes(model.params) < 0.6
    config, model = setup()  # fsdp=4: whole along it in decoding
    copy = fitting.decoding_copy(model.params, float32, model.mesh)
    assert sharding.device_bytes(copy) > 3 * sharding.device_bytes(model.params)


@pytest.fixture(scope="module")
def compiled():
    config, model = setup()
    return {
        "training": aot.training(config, model, KIND),
        "sampling": aot.sampling(config, model, KIND, None),
    }


def test_memory_is_all_that_is_there(compiled):
    config, model = setup()
    kept = aot.state_memory(config, model)
    for name, program in compiled.items():
        assert program.fault == ""
        assert {key: program.memory[key] for key in kept} == kept, name
        assert program.memory["temporaries"] > 0
        assert program.total == sum(program.memory.values())
        assert program.fits(KIND.memory)
        assert not program.fits(program.total - 1)
    sampling = compiled["sampling"].memory
    # Keys and values of self- and cross-attention, float32, one head of two on each device.
    shape = records.Shape(8, records.places_for(8, 2), 2, 4)
    columns = shape.rows * 4 + shape.places * 16
    masks = shape.places * 16
    assert sampling["caches"] == 2 * columns * 8 * 4 + masks


def test_work_is_that_of_the_model(compiled):
    model = setup()[1]
    size = {name: model.params[name].size for name in ("shared", "lm_head")}
    cost = compiled["training"].program.cost
    # 16 pairs under two prompts, on 4 shards; forward and twice that backward; tensor splits in 2.
    rows = 16 * 2 / 4
    head = 3 * 2 * rows * 8 * size["lm_head"] / 2
    assert head < cost.flops < 20 * head
    step = compiled["sampling"].program.loop(aot.DECODING).turn
    assert step.flops >= 2 * 8 * size["lm_head"] / 2
    encoding = compiled["sampling"].program.loop(aot.ENCODING).turn
    assert encoding.flops > 0
    # The keys and values of one question of 16 tokens, in one layer, on one of two devices.
    filling = compiled["sampling"].program.loop(aot.FILLING).turn
    assert filling.flops == 2 * (2 * 16 * 16 * 16) / 2
    # Decoding reads weights that are where they are needed: sums of activations alone.
    assert {each.kind for each in step.collectives} <= {"all-reduce", "all-gather"}
    assert sum(each.bytes for each in step.collectives) < sharding.device_bytes(model.params)
    # Outside its loops a pool sends a few counters, no cache.
    assert sum(each.bytes for each in compiled["sampling"].program.cost.collectives) <= 16


@pytest.mark.parametrize(
    ("message", "fault", "temporaries"),
    [
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total "
            "memory required for HLO temporaries (18.04G) exceeds available HBM (15.75G).",
            "the compiler refused: RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory",
            18.04 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.50G of 15.75G hbm. "
            "Exceeded hbm capacity by 5.75G.\n\nTotal hbm usage",
            "the compiler ran out of memory: Used 21.50G of 15.75G hbm. Exceeded hbm capacity by",
            21.50 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: E1001:\nRan out of memory in memory space vmem for %gather",
            "the compiler refused: Ran out of memory in memory space vmem for %gather",
            None,
        ),
        ("INTERNAL: odd", "the compiler refused: INTERNAL: odd", None),
    ],
)
def test_a_program_that_does_not_compile_says_why(monkeypatch, message, fault, temporaries):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(message)

    config, model = setup()
    training = dataclasses.replace(trainers.make_training(config, model), step=None)
    step = type("Step", (), {"lower": lambda *_: Lowered()})()
    training = dataclasses.replace(training, step=step)
    monkeypatch.setattr(trainers, "make_training", lambda *_: training)
    made = aot.training(config, model, KIND)
    assert made.fault.startswith(fault)
    assert made.program is None and not made.fits(KIND.memory)
    assert made.memory["parameters"] > 0
    named = made.total - made.memory.get("temporaries", 0)
    assert 0 < named < 2**20  # of what is used the arguments are a part
    assert made.memory.get("temporaries") == pytest.approx(temporaries, abs=named)


@pytest.mark.parametrize(
    ("platform", "mend"),
    [("tpu", "libtpu 1 is installed"), ("gpu", "Install the compiler that jax asks for")],
)
def test_a_program_that_jaxlib_cannot_read_is_refused_with_a_sentence(monkeypatch, platform, mend):
    """As what a TPU compiler of another version makes may be."""

    def as_text():
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure\nmore")

    program = types.SimpleNamespace(as_text=as_text, cost_analysis=lambda: None)
    mesh = types.SimpleNamespace(devices=np.array([types.SimpleNamespace(platform=platform)]))
    monkeypatch.setattr(hardware, "another_libtpu", lambda: "libtpu 1 is installed")
    with pytest.raises(UserError, match=rf"cannot \(INTERNAL: RET_CHECK failure\)\. {mend}\.$"):
        aot._compiled(fitting.Measured({}, program=program), mesh)
