"""Matrix products of a batch's rows with a kernel, as each kind of device is fast at them.

Letters in names: D features in, F features out, N rows; other axes of a batch have none.
"""

import jax
import jax.numpy as jnp


def product(x: jax.Array, kernel_DxF: jax.Array) -> jax.Array:
    """x @ kernel over the last axis of x, in its precision."""

    def by_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
        # As one matrix: for a sum over two axes of a batch, which the kernel's gradient would be,
        # XLA transposes activations first on a CPU.
        return _times(_rows(x), kernel).reshape(*x.shape[:-1], -1)

    return jax.lax.platform_dependent(x, kernel_DxF, cpu=by_rows, default=jnp.matmul)


def back(dy: jax.Array, kernel_DxF: jax.Array) -> jax.Array:
    """dy @ kernel.T over the last axis of dy, in its precision: the gradient of x in x @ kernel."""

    def by_rows(dy: jax.Array, kernel: jax.Array) -> jax.Array:
        return _back(_rows(dy), kernel).reshape(*dy.shape[:-1], -1)

    def by_axes(dy: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum("...f,df->...d", dy, kernel)

    return jax.lax.platform_dependent(dy, kernel_DxF, cpu=by_rows, default=by_axes)


def across(x: jax.Array, dy: jax.Array) -> jax.Array:
    """x.T @ dy of all rows, DxF in float32: the gradient of the kernel in x @ kernel."""

    def plain(x_NxD: jax.Array, dy_NxF: jax.Array) -> jax.Array:
        return jnp.matmul(x_NxD.T, dy_NxF, preferred_element_type=jnp.float32)

    return jax.lax.platform_dependent(_rows(x), _rows(dy), cpu=_across, default=plain)


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


# On a CPU. The units that some have for bfloat16 add up in float32. XLA uses them where that is
# what comes out and the left matrix lies in memory row by row; else it makes all numbers float32
# first.


@jax.custom_vjp
def _times(x_NxD: jax.Array, kernel_DxF: jax.Array) -> jax.Array:
    return jnp.matmul(x_NxD, kernel_DxF, preferred_element_type=jnp.float32).astype(x_NxD.dtype)


def _back(dy_NxF: jax.Array, kernel_DxF: jax.Array) -> jax.Array:
    dims = (((1,), (1,)), ((), ()))
    made = jax.lax.dot_general(dy_NxF, kernel_DxF, dims, preferred_element_type=jnp.float32)
    return made.astype(dy_NxF.dtype)


def _across(x_NxD: jax.Array, dy_NxF: jax.Array) -> jax.Array:
    x_DxN = x_NxD.T
    if x_NxD.dtype != jnp.float32:  # written out, since XLA would read the rows of x as columns
        x_DxN = jax.lax.optimization_barrier(x_DxN.reshape(-1)).reshape(x_DxN.shape)
    return jnp.matmul(x_DxN, dy_NxF, preferred_element_type=jnp.float32)


def _kept(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _times(x, kernel), (x, kernel)


def _gradient(kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    return _back(dy, kernel), _across(x, dy).astype(kernel.dtype)


_times.defvjp(_kept, _gradient)
