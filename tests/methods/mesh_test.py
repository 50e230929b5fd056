"""Every method's terms, values and gradients on a mesh, in parts, and with padding."""

import dataclasses

import jax
import numpy as np
import pytest

from hir_jax.devices import sharding
from hir_jax.methods.grpo import Grpo
from hir_jax.methods.hir import Hir
from hir_jax.methods.maxrl import MaxRl
from hir_jax.methods.nft import Nft
from hir_jax.methods.ppo import Ppo
from hir_jax.methods.topr import Topr
from hir_jax.model import value_head
from hir_jax.training.batch import Layout, TrainingExample, make_batch
from hir_jax.training.objective import Objective
from tests import tiny
from tests.training import step_test
from tests.training.step_test import Trainer, descent, distance

# Each in its own way; the others have the terms of one of these.
METHODS = (
    Hir(smoothing=0.1, contrastive_weight=1.0),
    MaxRl(),
    Grpo(),
    Ppo(value_clip=0.05),
    Nft(least=0.9),
    Topr(),
)


def name_of(method):
    return type(method).__name__


def scalars_of(method, what):
    return tuple(f"{name_of(method)} {name}" for name in getattr(method, what))


LAYOUT = Layout(
    opposite=True,
    of_rows=sum((scalars_of(method, "of_rows") for method in METHODS), ()),
    of_tokens=sum((scalars_of(method, "of_tokens") for method in METHODS), ()),
)


def all_terms(statistics):
    """The terms of all methods, each with its own scalars: one compilation for all of them."""
    found = {}
    for method in METHODS:
        prefix = f"{name_of(method)} "
        own = {
            name.removeprefix(prefix): value
            for name, value in statistics.scalars.items()
            if name.startswith(prefix)
        }
        terms = method.terms(statistics._replace(scalars=own))
        found |= {prefix + name: term for name, term in terms.items()}
    return found


OBJECTIVE = Objective(
    all_terms, opposite=True, values=True, entropy_weight=0.1, kl_weight=0.2, average="examples"
)


@pytest.fixture(scope="module")
def params():
    made = jax.device_get(step_test.init_params(0))
    rng = np.random.default_rng(3)
    head = {"value_weight": rng.normal(size=16), "value_bias": np.array(0.3)}
    return made | {value_head.NAME: jax.tree.map(np.float32, head)}


def batch(real=6, size=8):
    rng = np.random.default_rng(1)
    words = lambda n: (*rng.integers(2, 40, n - 1).tolist(), 1)  # noqa: E731
    examples = []
    for i in range(real):
        target = words(1 + i % 4)
        scalars = {name: float(rng.uniform(0.1, 0.9)) for name in LAYOUT.of_rows}
        scalars |= {name: rng.normal(-3.5, 0.3, len(target)) for name in LAYOUT.of_tokens}
        example = TrainingExample(words(6), words(7), target, i % 3 > 0, 1.0, scalars)
        examples.append(example)
    return make_batch(examples, size, (8, 4), LAYOUT)


def ran(params, reference, **options):
    trainer = Trainer(OBJECTIVE, descent(), like=params, **options)
    placed = jax.device_put(reference, sharding.tree_shardings(trainer.mesh, reference))
    state, metrics = trainer.run(params, [batch()], reference=placed)
    return state.opt_state, metrics


def test_on_a_mesh_in_parts_every_method_does_what_it_does_on_one_device(params):
    reference = jax.device_get(step_test.init_params(1))
    reference[value_head.NAME] = params[value_head.NAME]
    gradient, metrics = ran(params, reference)
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    other, others = ran(params, reference, mesh=mesh, accumulation=2)
    for name, value in metrics.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert distance(other, gradient) < 1e-5
    assert distance(other[value_head.NAME], gradient[value_head.NAME]) < 1e-5
    # Each method has a loss, and the value head a gradient.
    for method in METHODS:
        assert any(
            name.startswith(name_of(method)) and abs(v) > 1e-3 for name, v in metrics.items()
        )
    assert np.abs(gradient[value_head.NAME]["value_weight"]).max() > 1e-3


def test_the_value_head_is_kept_with_the_model(tmp_path):
    config = tiny.shape()
    assert value_head.load(tmp_path, config).keys() == {"value_weight", "value_bias"}
    head = jax.tree.map(lambda x: x + 0.5, value_head.init_params(config))
    value_head.save(tmp_path, head)
    loaded = value_head.load(tmp_path, config)
    assert jax.tree.map(np.array_equal, loaded, head) == {"value_weight": True, "value_bias": True}
    with pytest.raises(value_head.UserError, match="of another model"):
        value_head.load(tmp_path, dataclasses.replace(config, d_model=8))
    (tmp_path / value_head.FILE).write_bytes(b"junk")
    with pytest.raises(value_head.UserError, match="a damaged file"):
        value_head.load(tmp_path, config)
