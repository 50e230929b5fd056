"""Products of layers with several kernels."""

import jax
import jax.numpy as jnp
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
