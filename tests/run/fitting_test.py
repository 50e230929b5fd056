"""Parts of a batch by the memory at hand, and models that can have no room."""

import jax
import pytest

from hir_jax.devices import compiling, hardware, keys, processes, sharding
from hir_jax.errors import UserError
from hir_jax.model import batching
from hir_jax.run import checkpoint, fitting, loop, models, trainers, workdirs
from hir_jax.run.fitting import Measured
from hir_jax.run.questions import load_questions
from hir_jax.training.batch import make_batch
from tests import tiny

BUCKETS = batching.Buckets((8, 16), (4, 8))


def abstract(**changes):
    config = tiny.config(**{"train.accumulation": 0, "mesh.data": 1, "mesh.fsdp": 8} | changes)
    return config, models.abstract_model(config)


def tried(config, model, memory, needs):
    """The numbers of parts that are tried, and what is chosen, where `needs` gives temporaries."""
    kept, asked = fitting.state_memory(config, model), []

    def measure(parts):
        asked.append(parts)
        return Measured(kept | {"temporaries": needs(parts)}, parts=parts)

    chosen = fitting.in_parts(config, model, memory + sum(kept.values()), measure)
    return asked, chosen


def test_the_fewest_parts_that_fit():
    config, model = abstract(**{"train.batch_size": 128})  # 16 examples on each device
    for memory, parts in ((160, [1]), (159, [1, 2]), (80, [1, 2]), (79, [1, 4]), (10, [1, 16])):
        asked, chosen = tried(config, model, memory, lambda parts: 160 / parts)
        assert (asked, chosen.parts) == (parts, parts[-1])
    # What does not shrink with the parts makes more of them be tried.
    asked, chosen = tried(config, model, 90, lambda parts: 40 + 120 / parts)
    assert asked == [1, 2, 4] and chosen.memory["temporaries"] == 70


def test_parts_divide_the_examples_of_a_device():
    config, model = abstract(**{"train.batch_size": 8 * 12})
    asked, _ = tried(config, model, 35, lambda parts: 100 + 1 / parts)
    assert asked == [1, 3, 12]  # 100 / 35 asks for 3 at least, and then 3 x 100 / 35 for 9


def test_what_fits_in_no_parts_is_told_with_the_last_one():
    config, model = abstract(**{"train.batch_size": 32})
    asked, chosen = tried(config, model, 5, lambda parts: 100)
    assert asked[-1] == chosen.parts == 4
    whole, model = abstract(**{"train.batch_size": 32, "loss.contrastive": "in_batch"})
    assert tried(whole, model, 5, lambda parts: 100)[0] == [1]  # it may not be parted
    kept = sum(fitting.state_memory(config, model).values())
    assert tried(config, model, 1 - kept, lambda parts: 100)[0] == [1]  # parts would not help


# In a run -----------------------------------------------------------------------------------------

RUN = {"train.accumulation": 0, "train.batch_size": 32, "data.max_train": 8, "mesh.data": 8}


@pytest.fixture
def device_of(monkeypatch):
    """Has the devices here be told to have so much memory, as an accelerator's."""

    def install(memory):
        monkeypatch.setattr(fitting, "chooses_by_memory", lambda mesh: True)
        monkeypatch.setattr(hardware, "memory_of", lambda device: memory)

    return install


@pytest.fixture(scope="module")
def totals():
    """Bytes of a step of the run below, by its parts."""
    config = tiny.config(**RUN)
    model = models.abstract_model(config)
    buckets = load_questions(config, model.codec).buckets
    steps = [fitting.step_in(config, model, buckets, parts) for parts in (1, 2, 4)]
    return [step.total for step in steps]


def progress_of(workdir):
    return checkpoint.newest_progress(workdirs.checkpoint_folder(str(workdir)))


def test_a_run_chooses_its_parts_once_and_keeps_them(tmp_path, device_of, totals, monkeypatch):
    assert totals[0] > totals[1] > totals[2]
    made = []
    make_step = trainers.make_step
    monkeypatch.setattr(
        trainers,
        "make_step",
        lambda *args, **kwargs: [made.append(kwargs["accumulation"]), make_step(*args, **kwargs)][
            1
        ],
    )
    device_of(totals[1])
    loop.run(tiny.config(**RUN | {"iterations": 1}), str(tmp_path))
    assert list(progress_of(tmp_path)["parts"].values()) == [2]
    device_of(2 * totals[0])  # whatever is there when it goes on, on the same mesh
    made.clear()
    loop.run(tiny.config(**RUN | {"iterations": 2}), str(tmp_path))
    assert made[-1] == 2
    assert list(progress_of(tmp_path)["parts"].values()) == [2]


@pytest.mark.parametrize("changes", [{}, {"loss.kl_weight": 0.1}, {"sample.kl_to_start": True}])
def test_the_step_that_fits_is_not_compiled_again(device_of, changes):
    device_of(1e12)
    config = tiny.config(**RUN | changes)
    real, compiled = models.load_model(config), []
    training = fitting.make_training(config, real, BUCKETS, {})
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **named: compiled.append((event, named.get("fun_name")))
    )
    state, start = trainers.begin(config, real, training)
    batch = make_batch([], config.train.batch_size, (16, 8), training.layout)
    batch = processes.place(batch, sharding.batch_sharding(real.mesh))
    key = jax.random.fold_in(keys.make(0), 1)
    training.step(state, batch, key, start)
    assert (compiling.ENDED, "jit(step)") not in compiled


def test_nothing_is_chosen_where_the_config_says_or_on_a_cpu(device_of, monkeypatch):
    monkeypatch.setattr(fitting, "in_parts", lambda *_: pytest.fail("chose"))
    config, known = tiny.config(**RUN), {}
    fitting.make_training(config, models.abstract_model(config), BUCKETS, known)
    device_of(1e12)
    config = tiny.config(**RUN | {"train.accumulation": 4})
    fitting.make_training(config, models.abstract_model(config), BUCKETS, known)
    assert known == {}


def test_what_parts_depend_on_is_chosen_anew(device_of, monkeypatch):
    device_of(1e12)
    config = tiny.config(**RUN)
    model, known = models.abstract_model(config), {}
    step = Measured({}, parts=2)
    monkeypatch.setattr(fitting, "in_parts", lambda *_: step)
    fitting.make_training(config, model, BUCKETS, known)
    again = tiny.config(**RUN | {"train.remat": True})
    fitting.make_training(again, models.abstract_model(again), BUCKETS, known)
    assert sorted(name.partition(", remat=")[2] for name in known) == [
        "False, logits_mib=64",
        "products, logits_mib=64",
    ]


def test_a_step_that_does_not_fit_is_refused_before_weights_are_read(
    tmp_path, device_of, totals, monkeypatch
):
    monkeypatch.setattr(models, "read_params", lambda *_: pytest.fail("read weights"))
    device_of(totals[2] - 1)
    with pytest.raises(UserError) as caught:
        loop.run(tiny.config(**RUN), str(tmp_path))
    said = str(caught.value)
    assert "with a batch of 32 in 4 parts (parameters 0.0" in said
    assert "--config.train.remat=true" in said and "--config.train.optimizer=adafactor" in said
    assert "adapters, as with --config.lora.rank=16; a larger --config.mesh.fsdp" in said


def test_where_activations_are_computed_again_less_of_them_may_be_kept():
    def said(**changes):
        config = tiny.config(**RUN | changes)
        mesh = sharding.make_mesh(config.mesh)
        return fitting.does_not_fit(config, mesh, Measured({"temporaries": 2e9}), 1e9)

    assert "remat_keeps" not in said()
    assert "--config.train.remat_keeps=inputs" in said(**{"train.remat": True})
    assert "remat" not in said(**{"train.remat": True, "train.remat_keeps": "inputs"})


def test_a_model_that_can_have_no_room_is_refused_before_weights_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "read_params", lambda *_: pytest.fail("read weights"))
    monkeypatch.setattr(hardware, "memory_of", lambda device: 1000)
    with pytest.raises(
        UserError, match=r"decoding copy alone take 0\.00 GB of a device's 0\.00\. "
    ):
        loop.run(tiny.config(), str(tmp_path))
    assert list((tmp_path / "checkpoints").glob("*")) == []
