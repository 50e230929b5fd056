"""--mode=export: a policy as a Hugging Face folder, or its adapters as a PEFT folder."""

import pathlib

import ml_collections
from absl import logging

from hir_jax.commands.policy import load_policy, load_trained
from hir_jax.errors import UserError
from hir_jax.model import hf, peft, value_head
from hir_jax.run import adapters, models, settings


def export_policy(config: ml_collections.ConfigDict, workdir: str | None, output: str) -> None:
    """Writes the policy as a Hugging Face folder, and its value head, if it has one, beside it."""
    folder = pathlib.Path(output)
    hf.check_new(folder)
    model, name = load_policy(config, workdir)
    params, head = value_head.split(model.params)
    with hf.new_folder(folder) as aside:
        hf.write(aside, params, model.config, model.codec.tokenizer, model.raw_config)
        if head is not None:
            value_head.save(aside, head)
    logging.info("exported %s to %s", name, output)


def export_adapters(config: ml_collections.ConfigDict, workdir: str | None, output: str) -> None:
    """Writes adapters alone as a PEFT folder, and the value head, if there is one, beside them.

    Raises:
        UserError: there are none.
    """
    folder = pathlib.Path(output)
    hf.check_new(folder)
    settings.check(config)
    made = adapters.asked(config)
    if made is None or not (workdir or config.lora.path):
        raise UserError(
            "--adapters: expected the --workdir of a run with config.lora.rank above 0, found "
            f"{workdir or 'none'} with rank {config.lora.rank}. Leave the flag out to export all "
            "weights."
        )
    model, own, name = load_trained(models.pinned(config, workdir), workdir)
    own, head = value_head.split(own)
    with hf.new_folder(folder) as aside:
        peft.write(aside, own, made, model.config, config.model.path)
        if head is not None:
            value_head.save(aside, head)
    logging.info("exported the adapters of %s to %s", name, output)
