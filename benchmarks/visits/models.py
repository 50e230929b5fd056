"""Models of FLAN-T5's shapes with random weights, made on the device, as a run's config has them.

Every twelfth token ends an output, so that outputs of random weights end as those of real ones do:
some soon, some never.
"""

import dataclasses
import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Sharding

from benchmarks import workloads
from configs import flan_t5
from hir_jax.devices import hardware, sharding
from hir_jax.model import hf, shapes
from hir_jax.model.config import Params, T5Config
from hir_jax.planning import aot
from hir_jax.run import fitting, models

# Beside FLAN-T5's: for trying a visit out.
TINY = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_decoder_layers": 2}
TINY |= {"num_heads": 4, "vocab_size": 512}
# What a CPU can do in seconds.
ON_A_CPU = {"model.dtype": "float32", "data.max_source_tokens": 128, "train.batch_size": 8}
OF_TINY = {"data.max_source_tokens": 16, "sample.max_new_tokens": 8, "sample.rows": 8}


def raw_config(size: str) -> dict[str, Any]:
    """config.json of a size."""
    return shapes.flan_t5("small") | TINY if size == "tiny" else shapes.flan_t5(size)


def config_of(size: str) -> ml_collections.ConfigDict:
    """The config that a run with a model of this size has, with the rows that it would choose.

    They are chosen as in a process that does nothing but sample, and fixed, so that what is planned
    and what is measured is one program.
    """
    config = flan_t5.get_config("small" if size == "tiny" else size)
    if jax.default_backend() == "cpu":
        config.update_from_flattened_dict(ON_A_CPU)
    if size == "tiny":
        config.update_from_flattened_dict(OF_TINY)
    if not config.sample.rows:
        model = abstract_model(config, size)
        source, _ = aot.lengths(config)
        sampler = models.make_sampler(config, model, (source,))
        free = None
        if fitting.chooses_by_memory(model.mesh):
            kind = hardware.kind_of(jax.devices()[0])
            free = kind.memory - sharding.device_bytes(fitting.policy_copy(config, model))
        config.sample.rows = sampler.shape(aot.MANY, config.sample.samples, source, free).rows
    return config


def shape_of(config: ml_collections.ConfigDict, size: str) -> T5Config:
    """The model's shape."""
    shape = hf.parse_config(raw_config(size), pathlib.Path(size), config.model.dtype, has_head=True)
    ends = range(workloads.MEAN_LENGTH, shape.vocab_size, workloads.MEAN_LENGTH)
    return dataclasses.replace(shape, other_eos_ids=tuple(ends))


def abstract_model(config: ml_collections.ConfigDict, size: str) -> models.Model:
    """The model without weights."""
    return aot.abstract_model(config, shape_of(config, size), sharding.make_mesh(config.mesh))


def random_params(like: Params) -> Params:
    """Weights of this shape, type and place; all matter, and logits spread by about 1."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(like)

    def draw(number: int, path: tuple[Any, ...], leaf: Any) -> jax.Array:
        name = sharding.path_name(path)
        if name.endswith("scale"):
            return jnp.ones(leaf.shape, leaf.dtype, device=leaf.sharding)
        # As T5 begins: an embedding with 1, queries with less than others for each head's width.
        spread = 1.0 if name == "shared" else leaf.shape[0] ** -0.5
        if "query" in name:
            spread /= math.sqrt(leaf.shape[-1])
        key = jax.random.fold_in(jax.random.key(0), number)
        return _normal(leaf.shape, leaf.dtype, leaf.sharding)(key, spread)

    return tree.unflatten([draw(i, path, leaf) for i, (path, leaf) in enumerate(leaves)])


@functools.cache
def _normal(shape: tuple[int, ...], dtype: Any, place: Sharding) -> Any:
    """One compiled function for all leaves of a shape: a whole model's takes minutes to compile."""

    def draw(key: jax.Array, spread: float) -> jax.Array:
        return (spread * jax.random.normal(key, shape)).astype(dtype)

    return jax.jit(draw, out_shardings=place)
