"""The model that a config asks for, on its devices, and what samples from it."""

import dataclasses
import functools
import pathlib
import re
import zlib
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh

from hir_jax.decoding.sampler import Sampler
from hir_jax.devices import processes, sharding
from hir_jax.methods.method import LOGPROBS, VALUES
from hir_jax.model import hf, hub, t5, value_head
from hir_jax.model.codec import Codec
from hir_jax.model.config import Params, T5Config
from hir_jax.run import checksums, settings, workdirs

_COMMIT = re.compile("[0-9a-f]{40}")
DEFAULT_TOP_K = 50  # the smoothing of the loss puts mass on junk that this cuts off


@dataclasses.dataclass(frozen=True)
class Model:
    """A T5 on a mesh.

    Attributes:
        config: its shape.
        params: laid out by `sharding.RULES`; abstract in an abstract model. Float32, or, beside
            adapters, of `config.lora.base_dtype`.
        codec: its tokenizer.
        raw_config: the config.json it came with.
        mesh: where it lives.
    """

    config: T5Config
    params: Params
    codec: Codec
    raw_config: dict[str, Any]
    mesh: Mesh


def pinned(config: ml_collections.ConfigDict, workdir: str | None) -> ml_collections.ConfigDict:
    """The config with the commit of a model on the hub as its revision; of a folder, as it is.

    A run that goes on keeps the commit that it began with, wherever a branch or tag is by now.
    Without a workdir the config is as it is.

    Raises:
        UserError: there is no such model or revision.
    """
    if not workdir:
        return config
    path, asked = config.model.path, config.model.revision

    def resolve() -> str:
        if hub.local(path) or _COMMIT.fullmatch(asked):
            return asked
        began = workdirs.section_of(pathlib.Path(workdir), "model")
        kept = str(began.get("revision"))
        if began.get("path") != path or not _COMMIT.fullmatch(kept):
            return hub.commit(hub.find(path, asked, ("config.json",)))
        logging.info("%s: the run goes on with the commit that it began with, %s", path, kept)
        return kept

    config = config.copy_and_resolve_references()
    config.model.revision = processes.on_first(resolve)
    return config


def abstract_model(config: ml_collections.ConfigDict, mesh: Mesh | None = None) -> Model:
    """The model at `config.model.path` without its weights, for where a checkpoint has others.

    Its parameters are shapes, types and places; on the mesh of `config.mesh`, if none is given.

    Raises:
        UserError: there is none, it is faulty, or processes have others of the same name.
    """
    mesh = sharding.make_mesh(config.mesh) if mesh is None else mesh
    folder = hub.find(config.model.path, config.model.revision)
    model = for_training(config, hf.read_config(folder, config.model.dtype))
    params = abstract_params(config, model)
    processes.check_same({"model": zlib.crc32(repr(model).encode())})
    codec = codec_of(hf.load_tokenizer(folder, model), model)
    return Model(model, sharding.abstract(params, mesh), codec, hf.read_raw_config(folder), mesh)


def abstract_params(config: ml_collections.ConfigDict, model: T5Config) -> Params:
    """Shape and type of each parameter, of a value head as well where the method has one."""
    has_values = VALUES in settings.method_of(config).needs
    dtype = config.lora.base_dtype if config.lora.rank else "float32"
    return jax.tree.map(lambda leaf: leaf, _abstract_params(model, has_values, dtype))


@functools.lru_cache(maxsize=8)  # a plan asks again for each mesh, and each time it is traced
def _abstract_params(model: T5Config, has_values: bool, dtype: str) -> Params:
    params = dict(t5.abstract_params(model))
    if has_values:
        params[value_head.NAME] = jax.eval_shape(lambda: value_head.init_params(model))
    return jax.eval_shape(functools.partial(t5.cast_weights, dtype=dtype), params)


def read_params(config: ml_collections.ConfigDict, model: Model) -> Params:
    """The parameters of an abstract model, each put on its devices as it is read.

    Raises:
        UserError: they are faulty, or processes have others of the same name.
    """
    folder = hub.find(config.model.path, config.model.revision)
    digests: dict[hf.Path, int] = {}
    like = checksums.flatten(model.params)

    def place(path: hf.Path, array: np.ndarray) -> jax.Array:
        array = np.asarray(array).astype(like["/".join(path)].dtype, copy=False)
        if processes.many():
            digests[path] = zlib.crc32(array.ravel(order="K").view(np.uint8))  # in memory order
        spec = sharding.leaf_spec(model.mesh, "/".join(path), array.shape)
        return processes.place(array, jax.sharding.NamedSharding(model.mesh, spec))

    params = hf.load_params(folder, model.config, place)
    if value_head.NAME in model.params:
        head = value_head.load(folder, model.config)
        params[value_head.NAME] = {k: place((value_head.NAME, k), v) for k, v in head.items()}
    # Each puts its shards into one array, so that of different weights a mixture would be trained.
    processes.check_same({"weights": zlib.crc32(repr(sorted(digests.items())).encode())})
    return params


def load_model(config: ml_collections.ConfigDict) -> Model:
    """The model at `config.model.path` with its weights; faults are those of the two above."""
    model = abstract_model(config)
    return dataclasses.replace(model, params=read_params(config, model))


def load_codec(config: ml_collections.ConfigDict) -> Codec:
    """The tokenizer at `config.model.path` alone; weights, and a config.json, need not be there.

    Raises:
        UserError: there is none, or it is another model's than the config.json beside it.
    """
    folder = hub.find(config.model.path, config.model.revision, hub.TOKENIZER_FILES)
    if not (folder / "config.json").is_file():
        tokenizer = hf.load_tokenizer(folder)
        return Codec(tokenizer, tokenizer.eos_token_id)
    raw = hf.read_raw_config(folder)
    model = hf.parse_config(raw, folder, config.model.dtype, has_head=True)
    return codec_of(hf.load_tokenizer(folder, model), model)


def codec_of(tokenizer: Any, model: T5Config) -> Codec:
    """A tokenizer with what the model begins and ends texts with."""
    ids = (model.eos_token_id, model.other_eos_ids, model.forced_bos_token_id)
    return Codec(tokenizer, *ids)


def for_training(config: ml_collections.ConfigDict, model: T5Config) -> T5Config:
    """The model's shape with what `config.train` says of it."""
    train = config.train
    remat = train.remat_keeps if train.remat else ""
    return dataclasses.replace(model, dropout_rate=train.dropout_rate, remat=remat)


def make_sampler(
    config: ml_collections.ConfigDict,
    model: Model,
    buckets: tuple[int, ...],
    memory: dict[str, int] | None = None,
    evaluated: int = 0,
) -> Sampler:
    """A sampler by `config.sample` for prompts of at most the longest bucket.

    `memory` is what an earlier one chose its rows by, `evaluated` how many prompts the largest
    evaluation of the run has; see `Sampler`.
    """
    sample = config.sample
    return Sampler(
        config=dataclasses.replace(model.config, dtype=sample.dtype or config.model.dtype),
        mesh=model.mesh,
        buckets=buckets,
        rows=sample.rows,
        max_new_tokens=sample.max_new_tokens,
        eos_id=model.codec.eos_ids if model.codec.other_eos_ids else model.codec.eos_id,
        top_k=top_k(config),
        top_p=sample.top_p,
        logprobs=config.ratio.behaviour if LOGPROBS in settings.method_of(config).needs else "none",
        memory={} if memory is None else memory,
        evaluated=evaluated,
    )


def top_k(config: ml_collections.ConfigDict) -> int:
    """Tokens that are drawn from: by default all where ratios are of the whole policy, else 50."""
    if config.sample.top_k is not None:
        return config.sample.top_k
    whole = config.ratio.behaviour == "whole" and LOGPROBS in settings.method_of(config).needs
    return 0 if whole else DEFAULT_TOP_K
