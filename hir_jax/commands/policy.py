"""The policy that a command is about."""

import dataclasses
import pathlib

import ml_collections
from absl import logging
from jax.sharding import Mesh

from hir_jax.devices import sharding
from hir_jax.errors import UserError
from hir_jax.model import lora, t5
from hir_jax.model.config import Params
from hir_jax.run import adapters, checkpoint, checks, identity, models, settings, workdirs
from hir_jax.run.models import Model


def load_policy(config: ml_collections.ConfigDict, workdir: str | None) -> tuple[Model, str]:
    """The model at `config.model.path`, with the best parameters of a workdir if one is given.

    Adapters, of the workdir or `config.lora.path`, are merged into it.

    Returns:
        The model, and a name of it for people to read.

    Raises:
        UserError: the workdir has no checkpoint, or one of another model, or weights are not
            finite.
    """
    settings.check(config)
    is_adapted = bool(config.lora.rank)
    if not workdir and not (is_adapted and config.lora.path):
        model = models.load_model(config)
        checks.check_weights(model.params, config.model.path)
        return model, config.model.path
    config = models.pinned(config, workdir)
    model, own, name = load_trained(config, workdir)
    if is_adapted:
        start = models.read_params(config, model)
        checks.check_weights(start, config.model.path)
        if workdir:
            mend = "Give the --config.model.path, and base_dtype, that it began with."
            identity.check(pathlib.Path(workdir), identity.of_weights(start), mend)
        attached = adapters.attach(config, start, own)
        del start  # whose matrices so go one by one
        own = t5.cast_weights(lora.merge(attached, "float32"), "float32")
    return dataclasses.replace(model, params=own), name


def load_trained(
    config: ml_collections.ConfigDict, workdir: str | None
) -> tuple[Model, Params, str]:
    """What was trained: the best of a workdir if one is given, else adapters.

    Args:
        config: of `models.pinned`.
        workdir: of a run.

    Returns:
        The model at `config.model.path`, abstract; what was trained of it, or beside it; and a name
        for people to read.

    Raises:
        UserError: as of `load_policy`.
    """
    model = models.abstract_model(config, _mesh(config, workdir))
    if not workdir:
        where = name = config.lora.path
        own = adapters.new(config, model)
    else:
        where = workdirs.checkpoint_folder(workdir)
        best = checkpoint.Checkpoints(where).restore_best(adapters.trained(config, model))
        if best is None:
            raise UserError(
                f"--workdir: expected the workdir of a run, found no checkpoint in {where}."
            )
        own, progress = best
        _check_scale(config, workdir)
        name = f"{workdir}, best checkpoint (step {progress['best']['step']})"
    checks.check_weights(own, where)
    logging.info("parameters: %s", name)
    return model, own, name


def _mesh(config: ml_collections.ConfigDict, workdir: str | None) -> Mesh:
    """The mesh of `config.mesh`.

    Raises:
        UserError: the devices here cannot be laid out so; for a run with the flags to give.
    """
    try:
        return sharding.make_mesh(config.mesh)
    except UserError as e:
        had = workdirs.section_of(pathlib.Path(workdir), "mesh") if workdir else {}
        if not had:  # no run, of which there is more to say
            raise
        shape = " x ".join(f"{axis}={had.get(axis)}" for axis in sharding.AXES)
        raise UserError(
            f"{e} The run in {workdir} had {shape}. What it trained fits any mesh: give one of "
            "the devices here, such as --config.mesh.data=-1 --config.mesh.fsdp=1 "
            "--config.mesh.tensor=1."
        ) from e


def _check_scale(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Raises UserError where adapters would be scaled otherwise than the run trained them."""
    alpha = config.lora.alpha
    trained = workdirs.section_of(pathlib.Path(workdir), "lora").get("alpha", alpha)
    if config.lora.rank and trained != alpha:
        raise UserError(
            f"config.lora.alpha: expected {trained}, with which the adapters in {workdir} were "
            f"trained; found {alpha}. Leave the flag out, or give the config of the run."
        )
