"""--mode=export: a policy as a Hugging Face folder."""

import pathlib

import ml_collections
from absl import logging

from hir_jax.commands.policy import load_policy
from hir_jax.model import hf


def export_policy(config: ml_collections.ConfigDict, workdir: str | None, output: str) -> None:
    """Writes the policy as a Hugging Face folder."""
    hf.check_new(pathlib.Path(output))
    model, name = load_policy(config, workdir)
    hf.export(
        pathlib.Path(output), model.params, model.config, model.codec.tokenizer, model.raw_config
    )
    logging.info("exported %s to %s", name, output)
