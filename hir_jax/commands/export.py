"""--mode=export: a policy as a Hugging Face folder."""

import pathlib

import ml_collections
from absl import logging

from hir_jax.commands.policy import load_policy
from hir_jax.model import hf, value_head


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
