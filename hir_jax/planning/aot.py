"""Ahead-of-time compilation of a run's sampling and training, from shapes alone.

The functions are those that a run calls; only their arguments are abstract.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding

from hir_jax import data
from hir_jax.decoding import records
from hir_jax.decoding.programs import abstract_states, programs
from hir_jax.decoding.sampler import Sampler
from hir_jax.decoding.trie import Trie
from hir_jax.devices import hardware, keys, sharding
from hir_jax.devices.hardware import Kind
from hir_jax.errors import UserError
from hir_jax.model import batching
from hir_jax.model.config import Params, T5Config
from hir_jax.planning import hlo
from hir_jax.run import answering, fitting, models
from hir_jax.run.fitting import Footprint, policy_copy, state_memory

MANY = 1 << 30  # prompts: so many that rows are bounded by memory alone
DECODING = "T5.decode_step"  # the scope of a decode step's work
ENCODING = "T5.encode"
FILLING = "T5.project_cross"


@dataclasses.dataclass(frozen=True)
class Compiled(Footprint):
    """A compiled program, or why there is none.

    Attributes:
        program: what it does.
        accessed: bytes that its instructions read and write by the compiler's own analysis, which
            counts each loop once.
        notes: what it was compiled for, beyond the config.
        shape: of the engine, in sampling.
        read: bytes of weights that a decode step reads on one device.
    """

    program: hlo.Program | None = None
    accessed: float = 0.0
    notes: str = ""
    shape: records.Shape | None = None
    read: float = 0.0


def abstract_model(config: ml_collections.ConfigDict, shape: T5Config, mesh: Mesh) -> models.Model:
    """A model without weights: its parameters have a shape, a type and a place."""
    params = models.abstract_params(config, shape)
    shape = models.for_training(config, shape)
    codec = models.codec_of(None, shape)
    return models.Model(shape, sharding.abstract(params, mesh), codec, {}, mesh)


def lengths(config: ml_collections.ConfigDict) -> tuple[int, int]:
    """Source and target tokens of the longest bucket for whole prompts."""
    longest = (config.data.max_source_tokens, config.sample.max_new_tokens)
    return tuple(int(batching.round_up(length, batching.MULTIPLE)) for length in longest)


def buckets(config: ml_collections.ConfigDict) -> batching.Buckets:
    """As of data whose longest prompt is as long as may be."""
    longest = config.data.max_source_tokens
    return batching.make_buckets([longest], config.sample.max_new_tokens, 1, 1)


def training(config: ml_collections.ConfigDict, model: models.Model, kind: Kind) -> Compiled:
    """The optimizer step, in the parts that a run would choose where the config does not say."""
    measure = functools.partial(fitting.step_in, config, model, buckets(config))
    if config.train.accumulation or not fitting.chooses_by_memory(model.mesh):
        return _compiled(measure(config.train.accumulation), model.mesh)
    return _compiled(fitting.in_parts(config, model, kind.memory, measure), model.mesh)


def trie_of(config: ml_collections.ConfigDict) -> Trie | None:
    """Of the outputs that `config.sample.among` allows, whose number decides what is compiled.

    Unlike all else that is planned it needs the tokenizer; with "options" the questions, too.

    Raises:
        UserError: these are missing or at fault.
    """
    if not config.sample.among:
        return None
    asked = config.sample.among == answering.OPTIONS
    every = itertools.chain(*data.load(config.data)) if asked else ()
    options = answering.counted(list(every))
    allowed = answering.load(config, "sample", models.load_codec(config), options)
    return allowed.trie


@dataclasses.dataclass(frozen=True)
class Engine:
    """What decodes, before it is compiled.

    Attributes:
        sampler: that feeds it.
        shape: what it is compiled for.
        copy: the parameters that it reads.
        state: what it carries.
        named: bytes on one device of its arguments, by kind.
        kept: and of what is there besides.
    """

    sampler: Sampler
    shape: records.Shape
    copy: Params
    state: records.State
    named: dict[str, float]
    kept: dict[str, float]


def engine(
    config: ml_collections.ConfigDict, model: models.Model, kind: Kind, prompts: int = MANY
) -> Engine:
    """The engine for so many prompts, beside what training keeps."""
    mesh = model.mesh
    source_length, _ = lengths(config)
    made = models.make_sampler(config, model, (source_length,))
    kept = state_memory(config, model)
    copy = policy_copy(config, model)
    if copy is not model.params:
        named = {"decoding copy": sharding.device_bytes(copy)}
    else:  # decoding reads the parameters themselves
        named = {"parameters": kept.pop("parameters")}
    free = kind.memory - sum((kept | named).values()) if fitting.chooses_by_memory(mesh) else None
    kind_of = {
        "greedy": config.sample.temperature == 0,
        "guided": bool(config.sample.guidance),
        "among": bool(config.sample.among),
    }
    shape = made.shape(prompts, config.sample.samples, source_length, free, **kind_of)
    state = abstract_states(mesh, made.config, shape, source_length)
    named["caches"] = sharding.device_bytes(state.cache)
    return Engine(made, shape, copy, state, named, kept)


def sampling(
    config: ml_collections.ConfigDict,
    model: models.Model,
    kind: Kind,
    trie: Trie | None,
    prompts: int = MANY,
) -> Compiled:
    """The decoding of one pool of so many prompts, beside what training keeps.

    `trie` is `trie_of(config)`.
    """
    mesh = model.mesh
    one = engine(config, model, kind, prompts)
    eos_id = one.sampler.eos_id
    scalars = jax.eval_shape(lambda: (jnp.float32(0), jnp.int32(eos_id), jnp.bool(True)))
    lower = functools.partial(
        programs(mesh, one.sampler.config, one.shape).decode_pool.lower,
        one.copy,
        one.state,
        abstract_pool(one.shape, one.sampler.buckets[0], mesh),
        jax.eval_shape(lambda: keys.make(0)),  # without a place, as in runs
        *scalars,
        _placed(trie, sharding.replicated(mesh)),
    )
    rows, places, pool = one.shape.rows, one.shape.places, one.shape.pool
    compiled = _compiled(fitting.measure(lower, one.named, one.kept), mesh)
    # Between two buckets one array of the cache is there twice, see `programs.lengthen`.
    twice = sharding.device_bytes(one.state.cache.cross_keys[0])
    temporaries = max(twice, compiled.memory.get("temporaries", 0.0))
    return dataclasses.replace(
        compiled,
        memory=compiled.memory | {"temporaries": temporaries},
        notes=f"{rows} rows, {places} places, pools of {pool} prompts on each shard",
        shape=one.shape,
        read=weights_read(one.copy, model.config),
    )


def weights_read(copy: Params, config: T5Config) -> float:
    """Bytes on one device of the decoder and the head, which each decode step reads."""
    head = copy["shared" if config.tie_lm_head else "lm_head"]
    return sharding.device_bytes((copy["decoder"], head))


def abstract_pool(shape: records.Shape, source_length: int, mesh: Mesh) -> records.Pool:
    """What the sampler hands to the shards of a mesh."""
    size = (sharding.batch_multiple(mesh), shape.pool)

    def array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.batch_sharding(mesh))

    def sources() -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        return array((*size, source_length), np.int32), array((*size, source_length), bool)

    gamma, alpha = (array(size[:1], np.float32) for _ in range(2))
    return records.Pool(
        *sources(),
        uid_P=array(size, np.uint32),
        questions=array(size[:1], np.int32),
        first=array(size[:1], np.int32),
        opposite=records.Opposite(*sources(), gamma, alpha) if shape.guided else None,
        root_P=array(size, np.int32) if shape.among else None,
    )


def _compiled(step: fitting.Measured, mesh: Mesh) -> Compiled:
    """With what the program does."""
    known = step.memory, step.fault, step.seconds, step.parts
    if step.program is None:
        return Compiled(*known)
    accessed = (step.program.cost_analysis() or {}).get("bytes accessed", 0.0)
    program = hlo.parse(_text(step.program, mesh.devices.flat[0].platform))
    return Compiled(*known, program=program, accessed=accessed)


def _text(program: jax.stages.Compiled, platform: str) -> str:
    """What the compiler of a platform made.

    Raises:
        UserError: it is written in a way that jaxlib does not know, as another version's may be.
    """
    try:
        return program.as_text()
    except jax.errors.JaxRuntimeError as e:
        other = platform == "tpu" and hardware.another_libtpu()
        mend = other or "Install the compiler that jax asks for"
        raise UserError(
            "--mode=plan: expected a compiled program that jaxlib can read; found one that it "
            f"cannot ({str(e).splitlines()[0]}). {mend}."
        ) from e


def _placed(tree: Any, place: NamedSharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)
