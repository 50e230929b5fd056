"""What a run begins with: the state and the progress of its newest checkpoint, or the model's."""

import dataclasses
from typing import Any, NamedTuple

import jax
import ml_collections
from absl import logging

from hir_jax.devices import processes, sharding
from hir_jax.model.config import Params
from hir_jax.run import checks, identity, models, trainers, workdirs
from hir_jax.run.checkpoint import Checkpoints
from hir_jax.run.models import Model
from hir_jax.run.progress import Progress
from hir_jax.run.questions import Questions
from hir_jax.run.trainers import Training
from hir_jax.training.state import TrainState


class Start(NamedTuple):
    """Where a run begins.

    Attributes:
        state: to train on.
        progress: by which to go on.
        reference: the starting model's parameters, where they are kept. Adapters stand beside them.
    """

    state: TrainState
    progress: Progress
    reference: Params | None


def machine(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What a run is on: where that is the same, sums are rounded alike."""
    mesh = sharding.mesh_name(sharding.make_mesh(config.mesh))
    return {"mesh": mesh, "processes": processes.count(), "jax": jax.__version__}


def take_up(
    config: ml_collections.ConfigDict,
    workdir: str,
    model: Model,
    questions: Questions,
    training: Training,
    checkpoints: Checkpoints,
) -> Start:
    """Takes up the newest whole checkpoint, where there are any; compiles no step.

    The weights of `model`, which is abstract, are read only where they are needed: to begin with,
    or to be kept as the reference.

    Raises:
        UserError: weights or checkpoints are faulty or of another run, or have no room.
    """
    begun, is_kept = checkpoints.are_there(), trainers.needs_start(config)
    params = models.read_params(config, model) if is_kept or not begun else None
    identity.claim(workdir, identity.of_run(model, params, questions, config))
    workdirs.record(workdir, config)
    if begun:
        reference = params
        _, state, fields = checkpoints.restore_latest(training.abstract_state())
        progress = Progress.from_json(fields)
        logging.info("resuming at iteration %d, step %d", progress.iteration, progress.steps)
        checks.check_progress(progress, config.iterations, workdir)
    else:
        model = dataclasses.replace(model, params=params)
        state, reference = trainers.begin(config, model, training)
        progress = Progress()
    if progress.iteration <= config.iterations:
        if begun:
            checkpoints.check_best()
        checkpoints.check_room(state)
    began_with = config.lora.path or config.model.path
    checks.check_weights(state, checkpoints.directory if begun else began_with)
    if reference is not None:
        checks.check_weights(reference, config.model.path)
    return Start(state, progress, reference)
