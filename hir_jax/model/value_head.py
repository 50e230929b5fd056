"""A value head on the decoder: what reward a policy expects, before each token.

Letters in names: B rows, T target tokens, D model width.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hir_jax.errors import UserError
from hir_jax.model.config import Params, T5Config

NAME = "value_head"  # in the parameters
FILE = "value_head.safetensors"  # beside a model's own weights


def init_params(config: T5Config) -> Params:
    """Zeros: nothing is expected before anything is learned."""
    return {"value_weight": jnp.zeros(config.d_model), "value_bias": jnp.zeros(())}


def values(params: Params, decoded_BxTxD: jax.Array) -> jax.Array:
    """An affine function of the decoder's output, float32 BxT: of step t before token t is there.

    Args:
        params: the model's, with those of `init_params` under `NAME`.
        decoded_BxTxD: from `t5.decode`.
    """
    head = params[NAME]
    product = jnp.einsum("btd,d->bt", decoded_BxTxD.astype(jnp.float32), head["value_weight"])
    return product + head["value_bias"]


def split(params: Params) -> tuple[Params, Params | None]:
    """The model's own parameters, and the value head's where there is one."""
    return {name: leaf for name, leaf in params.items() if name != NAME}, params.get(NAME)


def save(folder: pathlib.Path, head: Params) -> None:
    """Writes `FILE`; its two tensors are called as in the parameters."""
    arrays = {name: np.asarray(leaf, np.float32) for name, leaf in head.items()}
    save_file(arrays, folder / FILE)


def load(folder: pathlib.Path, config: T5Config) -> Params:
    """What is in `FILE`, else `init_params`.

    Raises:
        UserError: the file is damaged or of another model.
    """
    file = folder / FILE
    fresh = init_params(config)
    if not file.exists():
        return fresh
    try:
        stored = load_file(file)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise UserError(f"{file}: expected a value head, found a damaged file ({e}).") from e
    wanted = {name: leaf.shape for name, leaf in fresh.items()}
    found = {name: array.shape for name, array in stored.items()}
    if wanted != found:
        raise UserError(
            f"{file}: expected {wanted}, found {found}: the value head of another model. Remove "
            "the file to begin with a new one."
        )
    return {name: jnp.asarray(array, jnp.float32) for name, array in stored.items()}
