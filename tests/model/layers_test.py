"""Products of layers with several kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.model import layers


@pytest.mark.parametrize("length, products", [(1, 2), (5, 1)])
def test_kernels_are_one_on_an_accelerator_but_not_anew_for_each_token(length, products):
    x = jax.ShapeDtypeStruct((3, length, 8), jnp.bfloat16)
    kernels = [jax.ShapeDtypeStruct((8, 4), jnp.bfloat16)] * 2
    split = jax.jit(lambda x, *kernels: layers.into_heads(x, kernels, 2))
    lowered = split.trace(x, *kernels).lower(lowering_platforms=("cuda",))
    assert [made.shape for made in lowered.out_info] == [(3, 2, length, 2)] * 2
    assert lowered.as_text().count("stablehlo.dot_general") == products
    assert lowered.as_text().count("stablehlo.concatenate") == (products == 1)


@pytest.mark.parametrize("groups", [3, 8])  # a TPU's compiler is given either in another way
@pytest.mark.parametrize("together", [1, 2, 4])
def test_heads_lie_side_by_side_and_come_apart_again(groups, together):
    heads, queries, width = groups * together, 5, 4
    query = np.random.default_rng(0).normal(size=(2, queries, heads, width)).astype(np.float32)
    wide = np.asarray(layers.side_by_side(query, groups))
    expected = np.zeros((2, groups, together * queries, together * width), np.float32)
    for head in range(heads):
        group, i = divmod(head, together)
        rows, columns = i * queries, i * width
        own = query[:, :, head]
        expected[:, group, rows : rows + queries, columns : columns + width] = own
    np.testing.assert_array_equal(wide, expected)
    others = np.where(wide == 0, 7, wide)  # what a row has of other heads is of no use
    np.testing.assert_array_equal(layers.taken_apart(others, heads), query)
