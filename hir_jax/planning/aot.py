"""Ahead-of-time compilation of a run's sampling and training, from shapes alone.

The functions are those that a run calls; only their arguments are abstract.
"""

import dataclasses
import functools
import itertools
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding

from hir_jax import data
from hir_jax.decoding import records
from hir_jax.decoding.programs import abstract_states, decodes_as_is, programs
from hir_jax.decoding.trie import Trie
from hir_jax.devices import keys, sharding
from hir_jax.devices.hardware import Kind
from hir_jax.model import batching, t5
from hir_jax.model.config import Params, T5Config
from hir_jax.planning import hlo
from hir_jax.run import answering, models, trainers
from hir_jax.training.batch import make_batch

MANY = 1 << 30  # prompts: so many that rows are bounded by memory alone
DECODING = "T5.decode_step"  # the scope of a decode step's work
ENCODING = "T5.encode"
FILLING = "T5.project_cross"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program, or why there is none.

    Attributes:
        memory: bytes on one device by kind, whatever is there while the program runs.
        fault: the compiler's reason for giving none; empty where it gave one.
        program: what it does.
        accessed: bytes that its instructions read and write by the compiler's own analysis, which
            counts each loop once.
        seconds: that compiling took.
        notes: what it was compiled for, beyond the config.
    """

    memory: dict[str, float]
    fault: str = ""
    program: hlo.Program | None = None
    accessed: float = 0.0
    seconds: float = 0.0
    notes: str = ""

    @property
    def total(self) -> float:
        """Bytes on one device; what is known of them, where there is no program."""
        return sum(self.memory.values())

    def fits(self, kind: Kind) -> bool:
        """Whether it compiled and its memory suffices."""
        return not self.fault and self.total <= kind.memory


def abstract_model(config: ml_collections.ConfigDict, shape: T5Config, mesh: Mesh) -> models.Model:
    """A model without weights: its parameters have a shape, a type and a place."""
    params = models.abstract_params(config, shape)
    shape = models.for_training(config, shape)
    codec = models.codec_of(None, shape)
    return models.Model(shape, sharding.abstract(params, mesh), codec, {}, mesh)


def state_memory(config: ml_collections.ConfigDict, model: models.Model) -> dict[str, float]:
    """What training keeps between steps."""
    state = trainers.make_training(config, model).abstract_state()
    own, start = sharding.device_bytes(state.params), sharding.device_bytes(model.params)
    kept = {"frozen model": start, "adapters": own} if config.lora.rank else {"parameters": own}
    kept["optimizer state"] = sharding.device_bytes(state.opt_state)
    if trainers.needs_start(config) and not config.lora.rank:
        kept["starting model"] = start
    return kept


def lengths(config: ml_collections.ConfigDict) -> tuple[int, int]:
    """Source and target tokens of the longest bucket for whole prompts."""
    longest = (config.data.max_source_tokens, config.sample.max_new_tokens)
    return tuple(int(batching.round_up(length, batching.MULTIPLE)) for length in longest)


def training(config: ml_collections.ConfigDict, model: models.Model) -> Compiled:
    """The optimizer step."""
    made = trainers.make_training(config, model)
    mesh = model.mesh
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.batch_sharding(mesh)),
        make_batch([], config.train.batch_size, lengths(config), made.layout),
    )
    start = model.params if config.loss.kl_weight or config.lora.rank else None
    lower = functools.partial(made.step.lower, made.abstract_state(), batch, _key(), start)
    return _compile(lower, state_memory(config, model), {})


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


def sampling(
    config: ml_collections.ConfigDict, model: models.Model, kind: Kind, trie: Trie | None = None
) -> Compiled:
    """The decoding of one pool of prompts, beside what training keeps; `trie` is from `trie_of`."""
    mesh = model.mesh
    source_length, _ = lengths(config)
    made = models.make_sampler(config, model, (source_length,))
    kept = state_memory(config, model)
    copy = policy_copy(config, model)
    if copy is not model.params:
        named = {"decoding copy": sharding.device_bytes(copy)}
    else:  # decoding reads the parameters themselves
        named = {"parameters": kept.pop("parameters")}
    free = kind.memory - sum((kept | named).values()) if device_memory_is_told(mesh) else None
    kind_of = {
        "greedy": config.sample.temperature == 0,
        "guided": bool(config.sample.guidance),
        "among": trie is not None,
    }
    shape = made.shape(MANY, config.sample.samples, source_length, free, **kind_of)
    state = abstract_states(mesh, made.config, shape, source_length)
    named["caches"] = sharding.device_bytes(state.cache)
    scalars = jax.eval_shape(lambda: (jnp.float32(0), jnp.int32(made.eos_id), jnp.bool(True)))
    lower = functools.partial(
        programs(mesh, made.config, shape).decode_pool.lower,
        copy,
        state,
        abstract_pool(shape, source_length, mesh),
        _key(),
        *scalars,
        _abstract(trie, mesh),
    )
    notes = f"{shape.rows} rows, {shape.places} places, pools of {shape.pool} prompts on each shard"
    made = _compile(lower, named, kept)
    # Between two buckets one array of the cache is there twice, see `programs.lengthen`.
    twice = sharding.device_bytes(state.cache.cross_keys[0])
    temporaries = max(twice, made.memory.get("temporaries", 0.0))
    memory = made.memory | {"temporaries": temporaries}
    return dataclasses.replace(made, memory=memory, notes=notes)


def device_memory_is_told(mesh: Mesh) -> bool:
    """Whether a run chooses its rows by the memory of a device: not on a CPU."""
    return mesh.devices.flat[0].platform != "cpu"


def policy_copy(config: ml_collections.ConfigDict, model: models.Model) -> Params:
    """What a run's policy is decoded from: `decoding_copy` of the model, adapters merged."""
    sampler = models.make_sampler(config, model, lengths(config)[:1])
    merged = bool(config.lora.rank)
    return decoding_copy(model.params, sampler.config, model.mesh, merged)


def decoding_copy(params: Params, config: T5Config, mesh: Mesh, merged: bool = False) -> Params:
    """`programs.decoding_copy` of abstract parameters: `params` itself where it makes no copy.

    Where adapters are `merged` into it, it is a copy always.
    """
    cast = jax.eval_shape(functools.partial(t5.cast_weights, dtype=config.dtype), params)
    places = sharding.tree_shardings(mesh, params, axes=sharding.DECODING_AXES)
    if not merged and decodes_as_is(params, config, places):
        return params
    return jax.tree.map(_placed, cast, places)


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


def _compile(
    lower: Callable[[], Any], named: dict[str, float], resident: dict[str, float]
) -> Compiled:
    """Compiles, and splits the memory: `named` are arguments, `resident` is there besides."""
    started = time.perf_counter()
    lowered = lower()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        memory = resident | named | _asked_for(str(e))
        return Compiled(memory, _reason(str(e)), seconds=time.perf_counter() - started)
    seconds = time.perf_counter() - started
    stats = compiled.memory_analysis()
    memory = resident | named
    memory |= {
        "other arguments": max(0.0, stats.argument_size_in_bytes - sum(named.values())),
        "temporaries": stats.temp_size_in_bytes,
        "outputs": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
    }
    accessed = (compiled.cost_analysis() or {}).get("bytes accessed", 0.0)
    return Compiled(memory, "", hlo.parse(compiled.as_text()), accessed, seconds)


def _asked_for(message: str) -> dict[str, float]:
    """The temporaries for which memory did not suffice, where the compiler says how large."""
    found = re.search(r"HLO temporaries \(([\d.]+)G\)", message)
    return {"temporaries": float(found[1]) * 2**30} if found else {}


def _reason(message: str) -> str:
    """The line of a compiler's message that says what is missing."""
    found = re.search(r"Used [\d.]+\w+ of [\d.]+\w+ hbm[^\n]*", message)
    if found:
        return f"the compiler ran out of memory: {found[0]}"
    lines = [line for line in message.splitlines() if "emory" in line] or message.splitlines()
    return f"the compiler refused: {lines[0][:300]}"


def _placed(tree: Any, place: NamedSharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def _key() -> Any:
    """As runs have it: without a place, which would make it another program."""
    return jax.eval_shape(lambda: keys.make(0))


def _abstract(tree: Any, mesh: Mesh) -> Any:
    """Shapes and types of arrays that each device has whole."""
    return _placed(tree, sharding.replicated(mesh))
