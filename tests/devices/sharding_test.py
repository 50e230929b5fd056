import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from hir_jax.devices import sharding
from hir_jax.errors import UserError
from hir_jax.model import t5
from hir_jax.training.optimizer import make_optimizer
from hir_jax.training.state import new_state
from tests import tiny

# 2 divides every dimension of every kernel; 8 does not divide 12, the width of all heads.
CONFIG = dataclasses.replace(tiny.EVEN, d_kv=6)


def mesh(data, fsdp, tensor):
    return sharding.make_mesh({"data": data, "fsdp": fsdp, "tensor": tensor})


def shapes(config=CONFIG):
    """The parameters' shapes, without computing any."""
    return t5.abstract_params(config)


def by_name(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {sharding.path_name(path): leaf for path, leaf in leaves}


def specs(mesh, tree):
    return {name: s.spec for name, s in by_name(sharding.tree_shardings(mesh, tree)).items()}


ATTENTION = {
    "query/kernel": P("fsdp", "tensor"),
    "key/kernel": P("fsdp", "tensor"),
    "value/kernel": P("fsdp", "tensor"),
    "out/kernel": P("tensor", "fsdp"),
}
FEED_FORWARD = {
    "wi_0/kernel": P("fsdp", "tensor"),
    "wi_1/kernel": P("fsdp", "tensor"),
    "wo/kernel": P("tensor", "fsdp"),
}


def block(path, attentions):
    """The specs of one block: kernels of its sub-layers, and a norm before each."""
    kernels = dict.fromkeys(attentions, ATTENTION) | {"feed_forward": FEED_FORWARD}
    table = {f"{path}/{name}_norm/scale": P() for name in kernels}
    for name, layer in kernels.items():
        table |= {f"{path}/{name}/{kernel}": spec for kernel, spec in layer.items()}
    return table


EXPECTED = {
    "shared": P("tensor", "fsdp"),
    "lm_head": P("fsdp", "tensor"),
    "encoder/relative_bias": P(),
    "decoder/relative_bias": P(),
    "encoder/final_norm/scale": P(),
    "decoder/final_norm/scale": P(),
    **block("encoder/block_0", ["self_attention"]),
    **block("decoder/block_0", ["self_attention", "cross_attention"]),
}


def test_the_spec_of_every_parameter():
    assert specs(mesh(2, 2, 2), shapes()) == EXPECTED


def test_version_1_0_feed_forward_and_tied_head():
    config = dataclasses.replace(CONFIG, gated=False, tie_lm_head=True)
    found = specs(mesh(2, 2, 2), shapes(config))
    assert "lm_head" not in found
    assert found["encoder/block_0/feed_forward/wi/kernel"] == P("fsdp", "tensor")


def test_each_parameter_is_named_by_exactly_one_rule():
    for kind in ({}, {"gated": False}, {"layer_biases": True}):
        config = dataclasses.replace(CONFIG, **kind)
        for name in by_name(shapes(config)):
            matching = [pattern for pattern, _ in sharding.RULES if re.search(pattern, name)]
            assert len(matching) == 1, name


def test_a_dimension_that_its_axis_does_not_divide_is_whole():
    found = specs(mesh(1, 1, 8), shapes())
    # 2 heads of 6 are 12 wide, which 8 does not divide; 32 and 40 it does. fsdp has one device.
    assert found["decoder/block_0/self_attention/query/kernel"] == P("fsdp", None)
    assert found["decoder/block_0/self_attention/out/kernel"] == P(None, "fsdp")
    assert found["decoder/block_0/feed_forward/wo/kernel"] == P("tensor", "fsdp")
    assert sharding.leaf_spec(mesh(2, 2, 2), "shared", (41, 16)) == P(None, "fsdp")
    assert sharding.leaf_spec(mesh(2, 2, 2), "shared", (40, 15)) == P("tensor", None)


def test_leaves_that_no_rule_names_or_of_fewer_axes_are_whole():
    assert sharding.leaf_spec(mesh(2, 2, 2), "step", ()) == P()
    assert sharding.leaf_spec(mesh(2, 2, 2), "opt_state/1/0/v_row/shared", (40,)) == P()
    assert sharding.leaf_spec(mesh(2, 2, 2), "elsewhere/kernel", (16, 16)) == P()


def state_specs(optimizer):
    state = jax.eval_shape(lambda p: new_state(p, optimizer), shapes())
    return state, specs(mesh(2, 2, 2), state)


def under(marker, found):
    """Leaves whose path holds `marker`, by the name of the parameter they belong to."""
    return {
        name.split(f"/{marker}/")[1]: spec for name, spec in found.items() if f"/{marker}/" in name
    }


def test_adamw_moments_lie_where_their_parameters_do():
    _, found = state_specs(make_optimizer("adamw", 1e-3))
    parameters = {n.removeprefix("params/"): s for n, s in found.items() if n.startswith("params/")}
    assert len(parameters) == len(EXPECTED)
    assert under("mu", found) == parameters
    assert under("nu", found) == parameters
    rest = [n for n in found if not n.startswith("params/") and "/mu/" not in n and "/nu/" not in n]
    assert rest and all(found[name] == P() for name in rest)  # step counts


def test_adafactor_factored_moments_are_whole():
    state, found = state_specs(optax.adafactor(1e-3, min_dim_size_to_factor=8))
    moments = by_name(state)
    factored = {n for n, leaf in moments.items() if "/v_row/" in n and leaf.shape != (1,)}
    assert len(factored) == sum(spec != P() for spec in EXPECTED.values())
    assert all(found[name] == P() for name in moments if name.startswith("opt_state/"))


def test_make_mesh():
    assert mesh(2, 2, 2).shape == {"data": 2, "fsdp": 2, "tensor": 2}
    assert mesh(-1, 1, 1).shape == {"data": 8, "fsdp": 1, "tensor": 1}
    assert mesh(2, -1, 2).shape == {"data": 2, "fsdp": 2, "tensor": 2}
    assert mesh(2, 4, -1).shape == {"data": 2, "fsdp": 4, "tensor": 1}
    assert mesh(1, 1, 8).axis_names == sharding.AXES


@pytest.mark.parametrize(
    "shape", [(2, 2, 1), (-1, -1, 8), (3, -1, 1), (0, -1, 1), (16, 1, 1), (-2, -2, 2), (8, 1, 0)]
)
def test_make_mesh_refuses_other_sizes(shape):
    data, fsdp, tensor = shape
    with pytest.raises(UserError) as caught:
        mesh(*shape)
    message = str(caught.value)
    assert "config.mesh" in message and "number of devices, 8" in message
    assert f"data={data} x fsdp={fsdp} x tensor={tensor}" in message


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU as `mesh_utils` sees it."""

    device_kind: str
    coords: tuple[int, int, int]
    slice_index: int = 0
    core_on_chip: int = 0
    platform: str = "tpu"
    process_index: int = 0


def chips(kind, *bounds, slices=1):
    coords = list(itertools.product(*map(range, bounds)))
    return [Chip(kind, at, i) for i in range(slices) for at in coords]


@pytest.mark.parametrize(
    "kind, bounds", [("TPU v6 lite", (4, 4, 1)), ("TPU v5", (4, 4, 4)), ("TPU v4", (2, 2, 4))]
)
def test_every_mesh_can_be_laid_out(kind, bounds):
    made = chips(kind, *bounds)
    powers = [2**i for i in range(8)]
    for data, fsdp in itertools.product(powers, powers):
        if len(made) % (data * fsdp) == 0:
            sizes = (data, fsdp, len(made) // data // fsdp)
            found = sharding.laid_out(sizes, made)
            assert found.shape == sizes and set(found.flat) == set(made)


def test_one_axis_alone_crosses_the_network_between_slices():
    made = chips("TPU v5 lite", 2, 4, 1, slices=2)
    for sizes, across in (((2, 8, 1), 0), ((4, 2, 2), 0), ((1, 8, 2), 1)):
        found = np.vectorize(lambda chip: chip.slice_index)(sharding.laid_out(sizes, made))
        first, second = np.split(found, 2, axis=across)
        assert (first == 0).all() and (second == 1).all()
    with pytest.raises(UserError, match="data or fsdp to be a multiple of 2, the number of slices"):
        sharding.laid_out((1, 1, 16), made)


def test_devices_that_cannot_be_laid_out_are_refused():
    halves = [dataclasses.replace(chip, core_on_chip=1) for chip in chips("TPU v4", 2, 2, 1)]
    with pytest.raises(UserError, match=r"4 x TPU v4 cannot be laid out as .* one device a chip"):
        sharding.laid_out((4, 1, 1), halves)


@pytest.mark.parametrize("shape, rows", [((8, 1, 1), 1), ((2, 2, 2), 2), ((1, 1, 8), 8)])
def test_batches_are_split_over_data_and_fsdp(shape, rows):
    on = mesh(*shape)
    assert sharding.batch_multiple(on) == 8 // rows
    batch = jax.device_put(np.zeros((8, 3)), sharding.batch_sharding(on))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(rows, 3)}


def test_replicated_is_whole_on_every_device():
    array = jax.device_put(jnp.arange(6), sharding.replicated(mesh(2, 2, 2)))
    assert [shard.data.shape for shard in array.addressable_shards] == [(6,)] * 8


def test_placing_by_the_table_divides_memory():
    on = mesh(1, 2, 4)
    params = jax.tree.map(lambda leaf: np.arange(leaf.size).reshape(leaf.shape), shapes())
    placed = jax.device_put(params, sharding.tree_shardings(on, params))
    assert {s.data.shape for s in placed["shared"].addressable_shards} == {(10, 8)}
    for name, leaf in by_name(placed).items():
        np.testing.assert_array_equal(leaf, by_name(params)[name])
