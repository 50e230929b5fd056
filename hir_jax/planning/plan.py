"""--mode=plan: will a run fit devices that are not here, and what will an iteration take?

The run's own programs are compiled ahead of time for a mesh of the devices; memory, FLOPs and
collectives are read off what the compiler gives. No weights and no data are needed.
"""

import pathlib
from collections.abc import Sequence

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from hir_jax import data
from hir_jax.decoding.trie import Trie
from hir_jax.devices import hardware, sharding
from hir_jax.devices.hardware import Kind
from hir_jax.errors import UserError
from hir_jax.model import hf, hub, shapes, weight_files
from hir_jax.model.config import T5Config
from hir_jax.planning import aot, search, table
from hir_jax.planning.iteration import Work
from hir_jax.run import configs, settings

PROGRAMS = ("training", "sampling")  # functions of `aot`
QUESTIONS = 1_000  # for training, where neither the config nor a flag says how many there are


def run(
    config: ml_collections.ConfigDict,
    topology: str | None = None,
    searched: bool = True,
    programs: Sequence[str] = PROGRAMS,
    questions: int | None = None,
    price: float | None = None,
    confirm: bool = True,
) -> str:
    """The plan, for people to read.

    Args:
        config: of the run that is planned.
        topology: of devices to compile for, such as "v5e:4x4"; None: those that are here.
        searched: look for the mesh with the fastest iteration, instead of `config.mesh` alone.
        programs: which of `PROGRAMS` to compile.
        questions: for training; None: those of the data, or else `QUESTIONS`.
        price: dollars an hour of a chip.
        confirm: compile the best that was found in full.

    Raises:
        UserError: a topology, mesh, model or setting that cannot be.
    """
    settings.check(config)
    if not programs or not set(programs) <= set(PROGRAMS):
        raise UserError(
            f"--programs: expected one or both of {', '.join(PROGRAMS)}; found {list(programs)}."
        )
    shape = model_shape(config)
    if topology:
        devices, kind = hardware.topology(topology)
    else:
        devices = jax.devices()
        kind = hardware.kind_of(devices[0])
    trie = aot.trie_of(config) if "sampling" in programs else None
    head = table.head(config, shape, kind, len(devices))
    if not searched:
        mesh = sharding.make_mesh(config.mesh, devices)
        made = compiled(config, shape, mesh, kind, programs, trie)
        return "\n\n".join([head, table.of_mesh(mesh, kind, made)])
    work = Work.of(config, questions or count_questions(config))
    found = search.search(config, shape, devices, kind, programs, work, trie)
    chips = hardware.chips(devices)
    dollars = None if price is None else price * chips / 3600
    parts = [head, table.of_search(found, kind, work, dollars)]
    for best in sorted((c for c in found if c.fits), key=lambda c: c.seconds or 0):
        flags = table.flags(best.settings)
        if not confirm:
            parts.append(f"The fastest that fits, by the estimates alone: {flags}")
            return "\n\n".join(parts)
        asked = configs.changed(config, best.settings)
        mesh = sharding.make_mesh(asked.mesh, devices)
        made = compiled(asked, shape, mesh, kind, programs, trie)
        parts += [f"Compiled in full: {flags}", table.of_mesh(mesh, kind, made)]
        if all(program.fits(kind.memory) for program in made.values()):
            parts.append(f"The fastest that fits: {flags}")
            return "\n\n".join(parts)
    parts.append(
        "Nothing fits. Give more devices, a smaller --config.train.batch_size, "
        "--config.train.optimizer=adafactor, or adapters by --config.lora.rank."
    )
    return "\n\n".join(parts)


def compiled(
    config: ml_collections.ConfigDict,
    shape: T5Config,
    mesh: Mesh,
    kind: Kind,
    programs: Sequence[str],
    trie: Trie | None,
) -> dict[str, aot.Compiled]:
    """The programs for a mesh, compiled in full; `trie` is `aot.trie_of(config)`."""
    model = aot.abstract_model(config, shape, mesh)
    made = {}
    for program in programs:
        logging.info("compiling %s for %s", program, table.sizes_name(mesh.shape))
        needed = (trie,) if program == "sampling" else ()
        made[program] = getattr(aot, program)(config, model, kind, *needed)
    return made


def count_questions(config: ml_collections.ConfigDict) -> int:
    """Questions for training, where the data is at hand: generated, or in a folder or file."""
    given = config.data.path or config.data.bigbench_dir or config.data.source == "generated"
    return len(data.load(config.data).train) if given else QUESTIONS


def model_shape(config: ml_collections.ConfigDict) -> T5Config:
    """The shape of the model at `config.model.path`, without its weights.

    A folder needs only a config.json. Where it has weights, they decide whether the head is tied;
    without them it is by `tie_word_embeddings`, or else as in T5 v1.0 (tied) and v1.1 (not).

    Raises:
        UserError: no such model, or a config.json that is none of a T5.
    """
    name, dtype = config.model.path, config.model.dtype
    size = name.removeprefix(shapes.HUB_PREFIX)
    folder = pathlib.Path(name).expanduser()
    if not folder.is_dir() and name.startswith(shapes.HUB_PREFIX) and size in shapes.FLAN_T5:
        raw = shapes.flan_t5(size)
    else:
        folder = hub.find(name, config.model.revision, patterns=("config.json",))
        raw = hf.read_raw_config(folder)
        if weight_files.are_there(folder):
            return hf.read_config(folder, dtype)
    gated = str(raw.get("feed_forward_proj", "relu")).startswith("gated-")
    tied = raw.get("tie_word_embeddings", not gated)
    return hf.parse_config(raw, folder, dtype, has_head=not tied)
