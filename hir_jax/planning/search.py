"""The mesh, the parts of a batch, whether to compute activations again, and the rows of sampling
with which an iteration is estimated to be fastest among those that fit.

Each is estimated from models of one and two layers (`layers`), which compile in a fraction of the
time. How many parts and rows follows from the memory, as in a run.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from hir_jax.decoding.trie import Trie
from hir_jax.devices import sharding
from hir_jax.devices.hardware import Kind
from hir_jax.errors import UserError
from hir_jax.model import remat
from hir_jax.model.config import T5Config
from hir_jax.planning import aot, iteration, layers
from hir_jax.planning.iteration import Work
from hir_jax.run import configs, fitting, trainers

LEAST_ROWS = 8


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to run.

    Attributes:
        sizes: of the mesh's axes.
        remat: what is kept where activations are computed again; empty: they are not.
        made: the programs, estimated; one that does not fit may be the last.
        fits: whether all do.
        seconds: of an iteration; None where something does not fit, or what a device can do is not
            known.
        reason: why nothing was compiled; empty where it was.
    """

    sizes: dict[str, int]
    remat: str = ""
    made: dict[str, aot.Compiled] = dataclasses.field(default_factory=dict)
    fits: bool = False
    seconds: float | None = None
    reason: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of the config that ask for it."""
        fields: dict[str, Any] = {f"mesh.{axis}": size for axis, size in self.sizes.items()}
        if step := self.made.get("training"):
            fields |= _remat(self.remat) | {"train.accumulation": step.parts}
        if pool := self.made.get("sampling"):
            fields["sample.rows"] = pool.shape.rows
        return fields


def meshes(devices: int, shape: T5Config) -> Iterator[dict[str, int]]:
    """Meshes from the cheapest communication to the dearest.

    Axis `data` sums gradients once a step; `fsdp` gathers the weights besides; `tensor` sums
    activations in every layer of every step, in decoding too, so more of it comes last.
    """
    for tensor in _divisors(devices):
        if shape.num_heads % tensor or shape.d_ff % tensor or shape.vocab_size % tensor:
            continue
        for fsdp in _divisors(devices // tensor):
            if shape.d_model % fsdp == 0:
                yield {"data": devices // tensor // fsdp, "fsdp": fsdp, "tensor": tensor}


def search(
    config: ml_collections.ConfigDict,
    shape: T5Config,
    devices: Sequence[jax.Device],
    kind: Kind,
    programs: Sequence[str],
    work: Work,
    trie: Trie | None,
) -> list[Candidate]:
    """All meshes, each planned or with the reason why not, in the order of `meshes`.

    Where more `fsdp` is slower than less that fits, still more of it, with as much `tensor`, is not
    compiled; and so it is with more `tensor`. `trie` is `aot.trie_of(config)`.
    """
    found: list[Candidate] = []
    best: dict[int, float] = {}  # seconds by the size of `tensor`
    slower: dict[int, int] = {}  # the first `fsdp` slower than less of it, by the size of `tensor`
    for sizes in meshes(len(devices), shape):
        tensor = sizes["tensor"]
        reason = _not_worth_it(tensor, best, slower)
        if not kind.flops and any(each.fits for each in found):
            reason = "one with less communication fits, and no time is known of such devices"
        if reason:
            found.append(Candidate(sizes, reason=reason))
            continue
        ways = list(_ways(config, shape, sizes, devices, kind, programs, work, trie))
        found += ways
        if timed := [way.seconds for way in ways if way.seconds is not None]:
            if min(timed) > best.get(tensor, min(timed)):
                slower[tensor] = sizes["fsdp"]
            best[tensor] = min(*timed, best.get(tensor, timed[0]))
    return found


def _not_worth_it(tensor: int, best: Mapping[int, float], slower: Mapping[int, int]) -> str:
    """Why a mesh with so much `tensor`, and more `fsdp` than was tried, is left out; or nothing."""
    if tensor in slower:
        return f"fsdp={slower[tensor]} is slower than less of it"
    tried = [size for size in best if size < tensor]
    if len(tried) > 1 and best[tried[-1]] > best[tried[-2]]:
        return f"tensor={tried[-1]} is slower than tensor={tried[-2]}"
    return ""


def _ways(
    config: ml_collections.ConfigDict,
    shape: T5Config,
    sizes: dict[str, int],
    devices: Sequence[jax.Device],
    kind: Kind,
    programs: Sequence[str],
    work: Work,
    trie: Trie | None,
) -> Iterator[Candidate]:
    """One mesh: without computing activations again, and, where that takes several parts, with."""
    try:
        mesh = sharding.make_mesh(sizes, devices)
    except UserError as e:
        yield Candidate(sizes, reason=str(e))
        return
    model = aot.abstract_model(config, shape, mesh)
    reason = trainers.uneven(config, mesh) or fitting.too_large(config, model, kind.memory)
    if reason:
        yield Candidate(sizes, reason=reason)
        return
    logging.info("estimating %s", sharding.mesh_name(mesh))
    others = {}
    if "sampling" in programs:
        others["sampling"] = _sampling(config, shape, mesh, kind, work, trie)
    if "training" not in programs or not all(each.fits(kind.memory) for each in others.values()):
        yield _candidate(sizes, others, kind, work)
        return
    train = config.train
    for keeps in (train.remat_keeps,) if train.remat else ("", remat.PRODUCTS, remat.INPUTS):
        step = _training(configs.changed(config, _remat(keeps)), shape, mesh, kind)
        yield _candidate(sizes, {"training": step} | others, kind, work, keeps)
        if step.fits(kind.memory) and (step.parts <= 1 or config.train.accumulation):
            return


def _candidate(
    sizes: dict[str, int],
    made: dict[str, aot.Compiled],
    kind: Kind,
    work: Work,
    keeps: str = "",
) -> Candidate:
    fits = all(each.fits(kind.memory) for each in made.values())
    if not fits or not kind.flops:
        return Candidate(sizes, keeps, made, fits)
    seconds = 0.0
    if step := made.get("training"):
        seconds += iteration.training_seconds(work, step, kind)
    if pool := made.get("sampling"):
        shards = sizes["data"] * sizes["fsdp"]
        seconds += iteration.sampling_seconds(work, shards, pool, kind)
    return Candidate(sizes, keeps, made, fits, seconds)


def _remat(keeps: str) -> dict[str, Any]:
    """The fields of the config that ask for it."""
    return {"train.remat": True, "train.remat_keeps": keeps} if keeps else {"train.remat": False}


def _training(
    config: ml_collections.ConfigDict, shape: T5Config, mesh: Mesh, kind: Kind
) -> aot.Compiled:
    """The step, estimated, in the parts that the config or else the memory asks for."""
    model = aot.abstract_model(config, shape, mesh)
    own = fitting.state_memory(config, model)

    def in_parts(parts: int) -> aot.Compiled:
        asked = configs.changed(config, {"train.accumulation": parts})

        def compile_with(shallow: T5Config) -> aot.Compiled:
            return aot.training(asked, aot.abstract_model(asked, shallow, mesh), kind)

        return layers.extrapolated(compile_with, model.config, own)

    if config.train.accumulation or not fitting.chooses_by_memory(mesh):
        return in_parts(config.train.accumulation)
    return fitting.in_parts(config, model, kind.memory, in_parts)


def _sampling(
    config: ml_collections.ConfigDict,
    shape: T5Config,
    mesh: Mesh,
    kind: Kind,
    work: Work,
    trie: Trie | None,
) -> aot.Compiled:
    """The engine, estimated, with the rows of a run, or with fewer until it fits."""
    model = aot.abstract_model(config, shape, mesh)
    rows = aot.engine(config, model, kind, work.questions).shape.rows
    while True:
        asked = configs.changed(config, {"sample.rows": rows})
        own = aot.engine(asked, model, kind, work.questions)

        def compile_with(shallow: T5Config, asked: Any = asked) -> aot.Compiled:
            return aot.sampling(
                asked, aot.abstract_model(asked, shallow, mesh), kind, trie, work.questions
            )

        pool = layers.extrapolated(compile_with, model.config, own.named | own.kept)
        pool = dataclasses.replace(pool, read=aot.weights_read(own.copy, model.config))
        if pool.fits(kind.memory) or config.sample.rows or rows <= LEAST_ROWS:
            return pool
        rows //= 2


def _divisors(n: int) -> list[int]:
    return [i for i in range(1, n + 1) if n % i == 0]
