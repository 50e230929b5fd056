"""What training changes, and where it lies."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from hir_jax.devices import sharding
from hir_jax.model.config import Params


@flax.struct.dataclass
class TrainState:
    """What training changes."""

    step: jax.Array  # optimizer steps done
    params: Params
    opt_state: optax.OptState


def new_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.int32(0), params, optimizer.init(params))


def init_state(params: Params, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """`new_state` on a mesh, optimizer state laid out like the parameters; `params` are donated."""
    init = jax.jit(
        lambda p: new_state(p, optimizer),
        out_shardings=state_shardings(params, optimizer, mesh),
        donate_argnums=0,  # the state takes their buffers over
    )
    return init(params)


def state_shardings(params: Params, optimizer: optax.GradientTransformation, mesh: Mesh) -> Any:
    """The sharding of each leaf of `TrainState`."""
    return sharding.tree_shardings(mesh, jax.eval_shape(lambda p: new_state(p, optimizer), params))
