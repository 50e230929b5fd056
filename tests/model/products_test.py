"""Products of rows with kernels, and their gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.model import products


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_products_and_their_gradients_are_those_of_float32(dtype, tolerance):
    x, kernel, direction = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(2, 3, 8), (8, 4), (2, 3, 4)])
    )

    def loss(product, x, kernel):
        return jnp.sum(product(x, kernel) * direction)

    ours = jax.value_and_grad(lambda *a: loss(products.product, *a), (0, 1))
    theirs = jax.value_and_grad(lambda *a: loss(jnp.matmul, *a), (0, 1))
    low = [array.astype(dtype) for array in (x, kernel)]
    made = jax.jit(ours)(*low)
    assert {leaf.dtype for leaf in made[1]} == {jnp.dtype(dtype)}
    expected = theirs(*(array.astype("float32") for array in low))
    for got, wanted in zip(*map(jax.tree.leaves, (made, expected)), strict=True):
        np.testing.assert_allclose(
            got.astype("float32"), wanted, rtol=tolerance, atol=5 * tolerance
        )


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_a_gradient_s_products_are_plain_ones(dtype, tolerance):
    x, kernel, dy = (
        jax.random.normal(jax.random.key(i), shape).astype(dtype)
        for i, shape in enumerate([(2, 3, 8), (8, 4), (2, 3, 4)])
    )
    back, across = jax.jit(products.back)(dy, kernel), jax.jit(products.across)(x, dy)
    assert back.dtype == dtype
    assert across.dtype == jnp.float32
    x, kernel, dy = (array.astype("float32") for array in (x, kernel, dy))
    np.testing.assert_allclose(
        back.astype("float32"), dy @ kernel.T, rtol=tolerance, atol=5 * tolerance
    )
    np.testing.assert_allclose(across, jnp.einsum("btd,btf->df", x, dy), rtol=1e-6, atol=1e-6)


def test_products_of_bfloat16_on_a_cpu_are_such_that_its_units_for_them_are_used():
    """They add up in float32, and the left matrix is no transposed one but is written out as one.

    Else XLA makes all numbers float32 first, in silence.
    """
    low = jax.ShapeDtypeStruct((16, 16), jnp.bfloat16)
    step = jax.jit(jax.value_and_grad(lambda x, y: jnp.sum(products.product(x, y)), (0, 1)))
    text = step.trace(low, low).lower(lowering_platforms=("cpu",)).as_text()
    made = re.findall(r"dot_general (%\w+), .*contracting_dims = \[(\d)\].* -> (tensor<\S+>)", text)
    assert len(made) == 3
    for left, axis, result in made:
        assert axis == "1"
        assert result == "tensor<16x16xf32>"
        assert not re.search(rf"{left} = stablehlo.transpose", text)
