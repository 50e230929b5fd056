"""Adapters as functions of arrays: what they compute, where they stand, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.errors import UserError
from hir_jax.model import hf, lora, t5
from hir_jax.model.lora import Lora
from tests import tiny

CONFIG = tiny.shape()
ALL = Lora(4, 8.0, ("all",))
TOKENS = jnp.arange(2, 26).reshape(2, 12)

forward = jax.jit(lambda params: t5.forward(params, CONFIG, TOKENS, TOKENS < 24, TOKENS[:, :7]))


@pytest.fixture(scope="module")
def params():
    return tiny.params()


def random_adapters(made, seed=0):
    """Both matrices random, so that they change what is computed."""
    own = lora.init_params(made, CONFIG, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), own)


def test_new_adapters_change_nothing(params):
    own = lora.init_params(ALL, CONFIG, jax.random.key(0))
    attached = lora.attach(params, own, ALL.scale)
    np.testing.assert_array_equal(forward(attached), forward(params))
    names = {path[-1].key for path, _ in jax.tree.leaves_with_path(own)}
    assert names == {"lora_a", "lora_b"}  # and nothing of the model


def test_merged_and_unmerged_compute_the_same(params):
    own = random_adapters(ALL)
    before = jax.tree.map(np.copy, params)
    unmerged = forward(lora.attach(params, own, ALL.scale))
    merged = lora.merge(lora.attach(params, own, ALL.scale), "float32")
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    np.testing.assert_allclose(forward(merged), unmerged, atol=1e-4)
    assert np.abs(unmerged - forward(params)).max() > 1  # of something
    jax.tree.map(np.testing.assert_array_equal, params, before)  # merging takes no part of it


def test_the_delta_by_hand(params):
    own = random_adapters(ALL)
    kernel = params["decoder"]["block_0"]["cross_attention"]["key"]["kernel"]
    pair = own["decoder"]["block_0"]["cross_attention"]["key"]
    merged = lora.merge(lora.attach(params, own, ALL.scale), "float32")
    expected = kernel + 8 / 4 * pair["lora_a"] @ pair["lora_b"]
    found = merged["decoder"]["block_0"]["cross_attention"]["key"]["kernel"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("rank", "same"), [(16, True), (15, False)])
def test_with_full_rank_they_are_what_full_training_can_come_to(params, rank, same):
    made = Lora(rank, 8.0, ("all",))
    rng = np.random.default_rng(0)
    trained = jax.tree.map(np.copy, params)
    own = {}
    for path in lora.modules(made, CONFIG).values():
        kernel = lora.at(trained, path)["kernel"]
        assert min(kernel.shape) == 16
        move = rng.normal(0, 0.3, kernel.shape).astype(np.float32)
        kernel += move
        left, size, right = np.linalg.svd(move, full_matrices=False)
        a, b = left[:, :rank] * size[:rank], right[:rank] / made.scale
        lora.put(own, path, {"lora_a": a, "lora_b": b})
    found, expected = forward(lora.attach(params, own, made.scale)), forward(trained)
    off = np.abs(found - expected).max()
    assert off < 1e-3 if same else off > 0.1


def test_a_model_without_a_gate_and_a_bfloat16_base_have_adapters_too():
    config = hf.parse_config(
        tiny.raw_config() | {"feed_forward_proj": "relu"}, None, "float32", has_head=False
    )
    names = [name.split(".")[-1] for name in lora.modules(ALL, config)]
    assert names.count("wi") == names.count("wo") == 2 and "wi_0" not in names
    params = t5.cast_weights(tiny.params(), "bfloat16")
    merged = lora.merge(lora.attach(params, random_adapters(ALL), ALL.scale), "float32")
    kernel = functools.partial(lora.at, path=("encoder", "block_0", "feed_forward", "wo", "kernel"))
    assert kernel(params).dtype == jnp.bfloat16 and kernel(merged).dtype == jnp.float32


# Where they stand ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("q, v", ["q", "v"]),
        ("attention", ["k", "o", "q", "v"]),
        ("feed_forward", ["wi_0", "wi_1", "wo"]),
        ("all", ["k", "o", "q", "v", "wi_0", "wi_1", "wo"]),
        ("wo,attention,q", ["k", "o", "q", "v", "wo"]),
    ],
)
def test_targets(text, found):
    names = lora.modules(Lora(1, 1.0, lora.parse_targets(text)), CONFIG)
    assert sorted({name.split(".")[-1] for name in names}) == found
    attentions = sum(name.endswith(".q") for name in names)
    assert attentions == (3 if "q" in found else 0)  # the encoder's, and two of the decoder


def test_faulty_targets_and_ranks_are_refused():
    for text in ("query", "", "q;v", "q,"):
        with pytest.raises(UserError, match=r"config\.lora\.targets: expected some of attention"):
            lora.parse_targets(text)
    with pytest.raises(UserError, match="matrices of the model, q, k, v, o, wi_0, wi_1, wo; found"):
        lora.modules(Lora(1, 1.0, ("q", "wi")), CONFIG)
    with pytest.raises(UserError, match=r"rank: expected at most 16, the smaller side of enc.*17"):
        lora.abstract(Lora(17, 1.0, ("all",)), CONFIG)


def test_each_matrix_is_drawn_by_its_name_and_the_key():
    own = lora.init_params(ALL, CONFIG, jax.random.key(0))
    few = lora.init_params(Lora(4, 8.0, ("v",)), CONFIG, jax.random.key(0))
    other = lora.init_params(ALL, CONFIG, jax.random.key(1))
    place = ("decoder", "block_0", "self_attention")
    q, v = (lora.at(own, (*place, name, "lora_a")) for name in ("query", "value"))
    np.testing.assert_array_equal(v, lora.at(few, (*place, "value", "lora_a")))
    assert not np.array_equal(q, v)
    assert not np.array_equal(q, lora.at(other, (*place, "query", "lora_a")))
    assert 0.2 < np.abs(q).max() <= 16**-0.5  # uniform to ± inputs^(-1/2)
