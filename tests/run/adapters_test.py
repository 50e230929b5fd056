"""Runs that train adapters: what is trained, kept, compared with, merged, and refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.commands.export import export_adapters, export_policy
from hir_jax.commands.policy import load_policy
from hir_jax.errors import UserError
from hir_jax.methods import table
from hir_jax.model import hf, lora, t5, value_head
from hir_jax.planning import aot
from hir_jax.run import adapters, loop, models, settings, trainers
from hir_jax.training.batch import TrainingExample, make_batch
from tests import tiny
from tests.commands.policy_test import without_dev
from tests.run import loop_test

METHODS = [name for name in table.METHODS if name != "raft"]  # which is farl
RANK = {"lora.rank": 4, "lora.targets": "attention,wo"}
KEPT = {"loss.kl_weight": 0.1, "sample.kl_to_start": True}  # both read the starting model


def config(**changes):
    return tiny.config(**RANK | changes)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    # Newest is best without development questions; the generated ones always have some.
    with tiny.compiled_once(), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(loop, "load_questions", without_dev)
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The workdir of a run that was never stopped."""
    workdir = tmp_path_factory.mktemp("straight")
    loop.run(config(**KEPT), str(workdir))
    return workdir


@pytest.fixture
def other_model(tmp_path):
    """A model of the same shape, of which one weight differs."""
    params = jax.tree.map(np.array, tiny.params())
    params["shared"][5, 5] += 1e-3
    folder = tmp_path / "other_model"
    hf.export(folder, params, tiny.shape(), tiny.tokenizer(), tiny.raw_config())
    return {"model.path": str(folder)}


def same(tree, other):
    return jax.tree.all(jax.tree.map(np.array_equal, tree, other))


# Every method -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_adapters_and_nothing_else(method):
    # The starting model is compared with by all of them, so that it is read in two ways.
    made = config(algorithm=method, **{"loss.kl_weight": 0.1, "train.accumulation": 1})
    model = aot.abstract_model(made, tiny.shape(), tiny.one_device())
    training = trainers.make_training(made, model)
    params = tiny.params()
    if value_head.NAME in model.params:
        params |= {value_head.NAME: value_head.init_params(tiny.shape())}
    params = jax.tree.map(jnp.array, params)
    model = models.Model(model.config, params, model.codec, {}, model.mesh)
    before = jax.device_get(params)
    state, start = trainers.begin(made, model, training)
    assert start is params  # no copy
    first = jax.device_get(state)
    layout = training.layout
    scalars = dict.fromkeys(layout.of_rows, 0.5)
    scalars |= dict.fromkeys(layout.of_tokens, (-0.5, -0.7))
    rows = [TrainingExample((5, 6, 1), (7, 6, 1), (t, 1), t == 5, 1.0, scalars) for t in (5, 9)]
    batch = make_batch(rows, 2, (8, 8), layout)
    metrics = []
    for _ in range(2):
        state, values = training.step(state, batch, jax.random.key(0), start)
        metrics.append(jax.device_get(values))
    assert same(before, start)
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-6) and metrics[1]["kl"] > 1e-6
    # By the second step B is no longer zero, so that A has a gradient too.
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), first, state)
    assert all(jax.tree.leaves(moved.params))
    stems = {jax.tree_util.keystr(path[-1:]) for path, _ in jax.tree.leaves_with_path(state.params)}
    head = {"['value_weight']", "['value_bias']"} if method == "ppo" else set()
    assert stems == {"['lora_a']", "['lora_b']"} | head


# A run --------------------------------------------------------------------------------------------


def test_a_stopped_run_ends_as_if_it_never_was(straight, tmp_path):
    for point in [(loop.Job, "_step", 2), (loop.Job, "_draw_samples", 1), (loop.Job, "_step", 3)]:
        loop_test.stopped_run(config(**KEPT), tmp_path, *point)
    loop.run(config(**KEPT), str(tmp_path))
    assert loop_test.records(tmp_path) == loop_test.records(straight)
    ours, theirs = (loop_test.final_state(config(**KEPT), run) for run in (tmp_path, straight))
    assert ours == theirs


def test_a_run_goes_on_on_another_mesh(straight, tmp_path):
    workdir = shutil.copytree(straight, tmp_path / "run")
    changes = KEPT | {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2, "iterations": 3}
    loop.run(config(**changes), str(workdir))
    assert json.loads((workdir / "eval.json").read_text())["iterations"] == 3


def test_adapters_are_merged_once_between_steps_and_let_go_of_before_them(tmp_path, monkeypatch):
    merged, held = [], []
    decoding, step, annotate = adapters.decoding, loop.Job._step, loop.Job._annotate
    monkeypatch.setattr(adapters, "decoding", lambda *args: merged.append(1) or decoding(*args))
    for name, work in {"_step": step, "_annotate": annotate}.items():
        monkeypatch.setattr(
            loop.Job, name, lambda job, x, work=work: held.append(job.policy) or work(job, x)
        )
    loop.run(config(), str(tmp_path))
    assert len(merged) == 1 + 2 + 1  # at the start, after each iteration, and of the best
    assert set(held) == {None}


def test_checkpoints_hold_adapters_alone(straight):
    newest = max((straight / "checkpoints").iterdir(), key=lambda path: int(path.name))
    leaves = json.loads((newest / "leaves" / "leaves.json").read_text())["content"]
    rest = [name for name in leaves if not name.endswith(("/lora_a", "/lora_b"))]
    assert rest and all(name == "step" or name.endswith("/count") for name in rest)
    assert sum(name.startswith("params/") for name in leaves) == 2 * (3 * 4 + 2)


def test_samples_move_away_from_the_start(straight):
    distances = [line["kl_to_start"] for line in loop_test.lines(straight, "sample")]
    assert abs(distances[0]) < 1e-5 < 1e-3 < abs(distances[1])


def test_another_base_is_refused(straight, tmp_path, other_model):
    workdir = shutil.copytree(straight, tmp_path / "run")
    said = "read something else than what is here now:\n  weights: the model's weights"
    with pytest.raises(UserError, match=said):
        loop.run(config(**KEPT, **other_model, iterations=3), str(workdir))
    with pytest.raises(UserError, match=said):
        load_policy(config(**other_model), str(workdir))


def test_another_scale_than_they_were_trained_with_is_refused(straight, tmp_path):
    other = config(**{"lora.alpha": 64.0})
    said = r"config\.lora\.alpha: expected 32\.0, .* trained; found 64\.0"
    with pytest.raises(UserError, match=said):
        load_policy(other, str(straight))
    with pytest.raises(UserError, match=said):
        export_adapters(other, str(straight), str(tmp_path / "adapters"))


# Merged, and as a PEFT folder ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(straight):
    return load_policy(config(), str(straight))[0]


def test_the_policy_is_the_base_with_the_adapters_merged(policy):
    base = tiny.params()
    assert jax.tree.structure(policy.params) == jax.tree.structure(base)
    block, own = base["decoder"]["block_0"], policy.params["decoder"]["block_0"]
    for name, changed in (("wo", True), ("wi_0", False)):
        kernels = (tree["feed_forward"][name]["kernel"] for tree in (block, own))
        assert np.array_equal(*kernels) is not changed
    assert not same(block["cross_attention"], own["cross_attention"])
    assert same(base["shared"], policy.params["shared"])


def test_it_is_exported_merged(straight, policy, tmp_path):
    export_policy(config(), str(straight), str(tmp_path / "merged"))
    assert same(hf.load_params(tmp_path / "merged", policy.config), policy.params)


def test_exported_adapters_are_read_back(straight, policy, tmp_path):
    folder = tmp_path / "adapters"
    export_adapters(config(), str(straight), str(folder))
    fields = json.loads((folder / "adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == str(tiny.folder())
    assert fields["target_modules"] == ["k", "o", "q", "v", "wo"]
    again, name = load_policy(config(**{"lora.path": str(folder)}), None)
    assert same(again.params, policy.params) and name == str(folder)
    made = config(**{"lora.path": str(folder)})
    model = models.load_model(made)
    attached = adapters.attach(made, model.params, adapters.begin(made, model))
    assert same(lora.merge(attached, "float32"), policy.params)
    with pytest.raises(UserError, match=r"r: expected 2, as config\.lora\.rank; found 4"):
        load_policy(config(**{"lora.path": str(folder), "lora.rank": 2}), None)


def test_a_value_head_goes_with_its_adapters(tmp_path):
    made = config(algorithm="ppo", **{"sample.top_k": None})
    model = models.load_model(made)
    own = adapters.begin(made, model)
    assert own[value_head.NAME]["value_weight"] is not model.params[value_head.NAME]["value_weight"]
    folder = tmp_path / "adapters"
    first = {"lora.path": str(tiny.folder() / "none")}
    with pytest.raises(UserError, match="expected a PEFT folder"):
        export_adapters(config(**first), None, str(folder))
    with pytest.raises(UserError, match="found none with rank 4"):
        export_adapters(config(), None, str(folder))
    loop.run(made, str(tmp_path / "run"))
    export_adapters(made, str(tmp_path / "run"), str(folder))
    head = value_head.load(folder, model.config)
    assert np.abs(head["value_weight"]).max() > 0
    path = {"lora.path": str(folder)}
    again = adapters.begin(config(algorithm="ppo", **path), model)
    assert same(again[value_head.NAME], head)


# Memory, and what is refused ----------------------------------------------------------------------


def test_a_base_in_bfloat16_takes_half(straight):
    made = config(**{"lora.base_dtype": "bfloat16"})
    params = models.load_model(made).params
    like = t5.cast_weights(tiny.params(), "bfloat16")
    assert jax.tree.map(lambda x: x.dtype, params) == jax.tree.map(lambda x: x.dtype, like)
    assert same(params, like)
    with pytest.raises(UserError, match="weights: the model's weights"):
        load_policy(made, str(straight))


def test_what_plan_says_is_kept():
    def memory(**changes):
        made = tiny.config(**{"sample.rows": 8} | changes)
        model = aot.abstract_model(made, tiny.shape(), tiny.one_device())
        return aot.state_memory(made, model)

    everything = memory(**{"loss.kl_weight": 0.1})
    assert everything["starting model"] == everything["parameters"]
    beside = memory(**RANK, **{"loss.kl_weight": 0.1})
    # Rank 4 of 12 matrices of 16 x 16 in attention, and of 2 of 32 x 16.
    assert beside["adapters"] == 4 * 4 * (12 * 32 + 2 * 48)
    assert beside["frozen model"] == everything["parameters"]
    assert 0 <= beside["optimizer state"] - 2 * beside["adapters"] <= 16
    assert beside.keys() == {"frozen model", "adapters", "optimizer state"}  # and no copy of it
    half = memory(**RANK, **{"lora.base_dtype": "bfloat16"})["frozen model"]
    assert 0.5 < half / beside["frozen model"] < 0.6  # norms and position biases are float32


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lora.rank": -1}, "lora.rank: expected 0 or more; found -1"),
        ({"lora.alpha": 0.0}, "lora.alpha: expected above 0; found 0.0"),
        ({"lora.targets": "query"}, "lora.targets: expected some of attention, feed_forward, all"),
        ({"lora.base_dtype": "float16"}, "lora.base_dtype: expected one of float32, bfloat16"),
    ],
)
def test_faulty_fields_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        settings.check(config(**changes))


def test_fields_that_are_not_read_are_refused():
    settings.check_given(config(), {"lora.rank", "lora.alpha"})
    with pytest.raises(UserError, match=r"config\.lora\.alpha: it is for lora\.rank"):
        settings.check_given(tiny.config(), {"lora.alpha"})
    with pytest.raises(UserError, match="rank: expected at most 16"):
        made = config(**{"lora.rank": 17})
        trainers.make_training(made, models.abstract_model(made))
