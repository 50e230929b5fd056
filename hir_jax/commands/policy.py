"""The policy that a command is about."""

import dataclasses

import ml_collections
from absl import logging

from hir_jax.errors import UserError
from hir_jax.run import checkpoint, checks, models, settings, workdirs
from hir_jax.run.models import Model


def load_policy(config: ml_collections.ConfigDict, workdir: str | None) -> tuple[Model, str]:
    """The model at `config.model.path`, with the best parameters of a workdir if one is given.

    Returns:
        The model, and a name of it for people to read.

    Raises:
        UserError: the workdir has no checkpoint, or one of another model, or weights are not
            finite.
    """
    settings.check(config)
    if not workdir:
        model = models.load_model(config)
        checks.check_weights(model.params, config.model.path)
        return model, config.model.path
    model = models.abstract_model(models.pinned(config, workdir))
    folder = workdirs.checkpoint_folder(workdir)
    best = checkpoint.Checkpoints(folder).restore_best(model.params)
    if best is None:
        raise UserError(
            f"--workdir: expected the workdir of a run, found no checkpoint in {folder}."
        )
    params, progress = best
    name = f"{workdir}, best checkpoint (step {progress['best']['step']})"
    checks.check_weights(params, folder)
    logging.info("parameters: %s", name)
    return dataclasses.replace(model, params=params), name
