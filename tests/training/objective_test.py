"""What each example counts for: row weights, and means over tokens or over examples."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from hir_jax.devices import sharding
from hir_jax.errors import UserError
from hir_jax.training.batch import TWO_PROMPTS, TrainingExample, make_batch
from hir_jax.training.objective import counts_of, token_weights
from tests.training import step_test
from tests.training.step_test import ALL_TERMS, IN_BATCH, distance

LENGTHS = (4, 1, 2, 3, 1, 4)
WEIGHTS = (0.5, 2.0, 1.0, 0.0, 2.5, 1.0)
SIZE = 8
BY_EXAMPLE = dataclasses.replace(ALL_TERMS, average="examples")


@pytest.fixture(scope="module")
def params():
    return jax.device_get(step_test.init_params(0))


@pytest.fixture(scope="module")
def reference():
    return jax.device_get(step_test.init_params(1))


@functools.cache
def trainer_of(settings, mesh=None, accumulation=1):
    """One for all tests that ask for the same: a step is traced and compiled once."""
    return step_test.Trainer(settings, step_test.descent(), mesh, accumulation=accumulation)


def examples(weights=WEIGHTS):
    """Targets of 1 to 4 tokens; the same whatever the weights."""
    rng = np.random.default_rng(5)

    def tokens(length):
        return (*rng.integers(2, 40, length - 1).tolist(), 1)

    return [
        TrainingExample(tokens(6), tokens(7), tokens(length), bool(i % 2), weight)
        for i, (length, weight) in enumerate(zip(LENGTHS, weights, strict=True))
    ]


def batch_of(rows):
    return make_batch(rows, SIZE, (8, 4), TWO_PROMPTS)


def test_token_weights_as_drawn():
    rows = [TrainingExample((1,), (1,), (5, 6, 7, 1), True, 1.0)]
    rows += [TrainingExample((1,), (1,), (5, 1), True, 3.0)]
    batch = make_batch(rows, 3, (8, 4))
    assert token_weights(batch, "tokens").tolist() == [[1] * 4, [3, 3, 0, 0], [0] * 4]
    constant = token_weights(batch, "constant", 8).tolist()
    assert constant == [[0.125] * 4, [0.375, 0.375, 0, 0], [0] * 4]
    assert token_weights(batch, "examples").tolist() == [[0.25] * 4, [1.5, 1.5, 0, 0], [0] * 4]
    # Weights are 1 on average over an epoch: a batch is divided by what is in it, unweighed.
    assert counts_of(batch, "tokens") == {"tokens": 6, "examples": 2}
    for average in ("examples", "constant"):
        assert counts_of(batch, average) == {"tokens": 2, "examples": 2}


def test_one_long_output_among_short_ones():
    rows = [TrainingExample((1,), (1,), (5,) * length, True) for length in (256, *63 * [4])]
    batch = make_batch(rows, 64, (8, 256))

    def share(average):
        weight_BxT = token_weights(batch, average)
        return float(weight_BxT[0].sum() / weight_BxT.sum())

    assert share("tokens") == pytest.approx(256 / (256 + 63 * 4))  # half
    assert share("examples") == pytest.approx(1 / 64)


def alone(settings, params, reference):
    """The metrics of each example in a batch of its own, with weight 1."""
    trainer = trainer_of(settings)
    rows = examples([1.0] * len(LENGTHS))
    return [trainer.run(params, [batch_of([row])], reference=reference)[1] for row in rows]


def test_terms_are_weighed_means_of_the_examples_own(params, reference):
    each = alone(BY_EXAMPLE, params, reference)
    batch = batch_of(examples())
    _, by_example = trainer_of(BY_EXAMPLE).run(params, [batch], reference=reference)
    _, by_token = trainer_of(ALL_TERMS).run(params, [batch], reference=reference)
    weights, lengths = np.array(WEIGHTS), np.array(LENGTHS)
    for name in ("supervised", "negative_entropy", "contrastive", "loss"):
        own = np.array([metrics[name] for metrics in each])
        np.testing.assert_allclose(by_example[name], (weights * own).mean(), rtol=1e-5)
        if name in ("supervised", "negative_entropy"):
            expected = (weights * lengths * own).sum() / lengths.sum()
            np.testing.assert_allclose(by_token[name], expected, rtol=1e-5, err_msg=name)


def test_entropy_and_divergence_are_nats_a_token_whatever_tokens_count_for(params, reference):
    each = alone(BY_EXAMPLE, params, reference)
    weights, lengths = np.array(WEIGHTS), np.array(LENGTHS)
    rows = examples([weight / 10 for weight in WEIGHTS])  # a batch of light ones
    for average, of_a_row in (("tokens", lengths), ("examples", 1), ("constant", lengths)):
        trainer = trainer_of(dataclasses.replace(ALL_TERMS, average=average, length=8))
        _, metrics = trainer.run(params, [batch_of(rows)], reference=reference)
        for name, of_one in (("entropy", "negative_entropy"), ("kl", "kl")):
            own = np.abs([metrics[of_one] for metrics in each])
            expected = np.average(own, weights=weights * of_a_row)
            np.testing.assert_allclose(metrics[name], expected, rtol=1e-5, err_msg=name)
    nothing = [row._replace(weight=0.0) for row in rows]
    _, metrics = trainer.run(params, [batch_of(nothing)], reference=reference)
    assert metrics["loss"] == 0 and np.isnan([metrics["entropy"], metrics["kl"]]).all()


@pytest.mark.parametrize("settings", [ALL_TERMS, BY_EXAMPLE], ids=["tokens", "examples"])
def test_an_example_of_weight_two_in_place_of_another_is_that_example_twice(
    params, reference, settings
):
    first, second, *rest = examples([1.0] * len(LENGTHS))
    second = second._replace(target=first.target)  # as many tokens
    weighed = [first._replace(weight=2.0), second._replace(weight=0.0), *rest]
    trainer = trainer_of(settings)
    state, _ = trainer.run(params, [batch_of(weighed)], reference=reference)
    twice, _ = trainer.run(params, [batch_of([first, first, *rest])], reference=reference)
    assert distance(state.opt_state, twice.opt_state) < 1e-6


def test_an_example_of_weight_zero_is_no_candidate_of_the_in_batch_form(params, reference):
    rows = examples([1.0] * len(LENGTHS))
    trainer = trainer_of(IN_BATCH)
    without = [rows[0]._replace(weight=0.0), *rows[1:]]
    _, metrics = trainer.run(params, [batch_of(without)], reference=reference)
    _, five = trainer.run(params, [batch_of(rows[1:])], reference=reference)
    assert metrics["contrastive"] == pytest.approx(5 / 6 * five["contrastive"], rel=1e-5)


@pytest.mark.parametrize("settings", [ALL_TERMS, BY_EXAMPLE], ids=["tokens", "examples"])
@pytest.mark.parametrize("mesh", [None, (2, 2, 2)], ids=str)
def test_weighed_parts_add_up_on_every_mesh(params, reference, settings, mesh):
    batch = batch_of(examples())
    whole, metrics = trainer_of(settings).run(params, [batch], reference=reference)
    if mesh:
        mesh = sharding.make_mesh(dict(zip(sharding.AXES, mesh, strict=True)))
    other = trainer_of(settings, mesh, accumulation=1 if mesh else 4)
    placed = jax.device_put(reference, sharding.tree_shardings(other.mesh, reference))
    state, again = other.run(params, [batch], reference=placed)
    assert distance(state.opt_state, whole.opt_state) < 2e-6
    for name, value in metrics.items():
        np.testing.assert_allclose(again[name], value, rtol=2e-5, err_msg=name)


def test_terms_of_a_users_method_that_are_none(params, reference):
    for terms in (lambda s: {}, lambda s: {"policy": s.weight_B.sum()}, lambda s: s.weight_B.sum()):
        trainer = trainer_of(dataclasses.replace(ALL_TERMS, terms=terms))
        with pytest.raises(UserError, match="`terms` of a method to give a dict of terms, as"):
            trainer.run(params, [batch_of(examples())], reference=reference)
