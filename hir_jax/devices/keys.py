"""Random keys of one kind, whatever kind JAX is told to make."""

import jax


def make(seed: int) -> jax.Array:
    """A threefry key.

    With JAX_DEFAULT_PRNG_IMPL=rbg, usual on TPUs, JAX would make one whose draws under `vmap`
    depend on the batch: samples would depend on the rows beside them.
    """
    return jax.random.key(seed, impl="threefry2x32")
