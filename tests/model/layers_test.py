"""Products of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.model import layers


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_products_and_their_gradients_are_those_of_float32(dtype, tolerance):
    x, kernel, direction = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(2, 3, 8), (8, 4), (2, 3, 4)])
    )

    def loss(product, x, kernel):
        return jnp.sum(product(x, kernel) * direction)

    ours = jax.value_and_grad(lambda *a: loss(layers.product, *a), (0, 1))
    theirs = jax.value_and_grad(lambda *a: loss(jnp.matmul, *a), (0, 1))
    low = [array.astype(dtype) for array in (x, kernel)]
    made = jax.jit(ours)(*low)
    assert {leaf.dtype for leaf in made[1]} == {jnp.dtype(dtype)}
    expected = theirs(*(array.astype("float32") for array in low))
    for got, wanted in zip(*map(jax.tree.leaves, (made, expected)), strict=True):
        np.testing.assert_allclose(
            got.astype("float32"), wanted, rtol=tolerance, atol=5 * tolerance
        )


def test_products_of_bfloat16_add_up_in_float32_on_a_cpu():
    """Or the units that some have for it are not used, and the result is rounded in between."""
    low = jax.ShapeDtypeStruct((16, 16), jnp.bfloat16)
    step = jax.jit(jax.grad(lambda x, y: jnp.sum(layers.product(x, y)), (0, 1)))
    text = step.trace(low, low).lower(lowering_platforms=("cpu",)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 2
    assert all(line.endswith("-> tensor<16x16xf32>") or "xf32> loc" in line for line in products)
