"""The training that a config asks for: the step, and the state it works on."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh

from hir_jax.devices import sharding
from hir_jax.errors import UserError
from hir_jax.methods.method import REFERENCE, Method
from hir_jax.model.config import Params
from hir_jax.run import adapters, settings
from hir_jax.run.models import Model
from hir_jax.training.batch import Layout
from hir_jax.training.objective import Objective
from hir_jax.training.optimizer import make_optimizer
from hir_jax.training.state import TrainState, init_state, new_state, state_shardings
from hir_jax.training.step import Step, make_step


@dataclasses.dataclass(frozen=True)
class Training:
    """The optimizer step and the state it works on.

    Attributes:
        method: what makes its rows and its loss.
        layout: what its batches hold.
        step: from `make_step`.
        optimizer: from `make_optimizer`.
        mesh: where the state lives.
        trained: shape, type and place of what is: all of the model's parameters, or adapters.
    """

    method: Method
    layout: Layout
    step: Step
    optimizer: optax.GradientTransformation
    mesh: Mesh
    trained: Params

    def init_state(self, params: Params) -> TrainState:
        """The state before the first step; it takes `params`, as `trained` has them, over."""
        return init_state(params, self.optimizer, self.mesh)

    def abstract_state(self) -> Any:
        """Shape, type and place of each leaf of the state."""
        state = jax.eval_shape(lambda p: new_state(p, self.optimizer), self.trained)
        return sharding.abstract(state, self.mesh)


def make_training(
    config: ml_collections.ConfigDict, model: Model, parts: int | None = None
) -> Training:
    """What `config.algorithm`, `config.train` and `config.loss` ask for.

    `parts` of a batch go before `config.train.accumulation`.

    Raises:
        UserError: settings that do not go together.
    """
    train = config.train
    if fault := uneven(config, model.mesh):
        raise UserError(fault)
    method = settings.method_of(config)
    objective = make_objective(config, method, model.mesh)
    optimizer = make_optimizer(
        train.optimizer,
        settings.setting(config, "train.learning_rate"),
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
    )
    trained, lora = adapters.trained(config, model), adapters.asked(config)
    step = make_step(
        model.config,
        objective,
        optimizer,
        state_shardings(trained, optimizer, model.mesh),
        accumulation=train.accumulation if parts is None else parts,
        use_dropout=train.dropout_rate > 0,
        adapters_scale=lora and lora.scale,
    )
    return Training(method, method.layout(objective), step, optimizer, model.mesh, trained)


def begin(
    config: ml_collections.ConfigDict, model: Model, training: Training
) -> tuple[TrainState, Params | None]:
    """The state before the first step, and the starting model's parameters where they are kept.

    The state takes the model's parameters over and donates them at each step, so that what is kept
    of them is a copy; but where adapters are trained they are as they were.
    """
    kept = model.params if needs_start(config) else None
    if kept is not None and adapters.asked(config) is None:
        kept = jax.tree.map(jnp.copy, kept)
    return training.init_state(adapters.begin(config, model)), kept


def make_objective(config: ml_collections.ConfigDict, method: Method, mesh: Mesh) -> Objective:
    """A method's loss, with what `config.loss` says for all methods."""
    loss = config.loss
    return method.objective(
        entropy_weight=settings.setting(config, "loss.entropy_weight"),
        kl_weight=loss.kl_weight,
        average=settings.setting(config, "loss.average"),
        length=config.sample.max_new_tokens,
        logits_at_once=config.train.logits_mib * 2**20 // 4 * mesh.size,
    )


def needs_start(config: ml_collections.ConfigDict) -> bool:
    """Whether the starting model is kept: to compare with, or to hold adapters."""
    return bool(config.loss.kl_weight or config.lora.rank) or scores_by_start(config)


def scores_by_start(config: ml_collections.ConfigDict) -> bool:
    """Whether samples are scored by the starting model."""
    method = settings.method_of(config)
    logged = config.sample.kl_to_start and method.draws_samples
    return bool(logged) or REFERENCE in method.needs


def compares_whole_batches(config: ml_collections.ConfigDict) -> bool:
    """Whether a batch cannot be computed in parts."""
    return settings.method_of(config).crossed


def uneven(config: ml_collections.ConfigDict, mesh: Mesh) -> str:
    """The sentence where devices do not share each part of a batch evenly; else empty."""
    train = config.train
    multiple = (train.accumulation or 1) * sharding.batch_multiple(mesh)
    if train.batch_size % multiple == 0:
        return ""
    return (
        f"config.train.batch_size: expected a multiple of {multiple} (accumulation x data x fsdp), "
        f"found {train.batch_size}."
    )
