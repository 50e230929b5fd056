"""Checkpoints that are whole or not there: atomic, checksummed, restorable onto another mesh.

A checkpoint is one folder:

    <directory>/<step>/state/                   the arrays, by Orbax, under their flat names
                                                ("params/decoder/...")
    <directory>/<step>/leaves/leaves.json       shape, dtype and checksum of each array
    <directory>/<step>/progress/progress.json   where the run is

Orbax writes all into a temporary folder and renames it, so a killed save leaves no checkpoint. It
does not notice a changed byte within an array; the checksums do. Each JSON file says its format,
the hir_jax that wrote it, and its own checksum. Only the methods that save write anything, so
anyone may open a run's checkpoints to read.

Where many processes share a run, all call each method. Each writes and reads its shards, in a
folder that all see; what is small is read by process 0 for all, which so take the same checkpoint.
"""

import contextlib
import gc
import json
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore as ts
from absl import logging
from etils import epath

import hir_jax
from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.run import checksums, disk, noise

PyTree = Any

# Of what a checkpoint holds. To be raised where an older hir_jax could not read it, or this one
# could not read an older one's; absent fields alone have defaults.
FORMAT = 1

# For all processes to have read their share once the first has.
READ_SECONDS = 1800

_JSON_ITEMS = ("leaves", "progress")


class Checkpoints:
    """The checkpoints of one run, and the best parameters apart in `best/`.

    Folders in `best/` are numbered in the order of saving, so that a resumed run may save a step
    again without first deleting the only copy; the step stands inside.
    """

    def __init__(
        self, directory: str, keep: int = 2, allow: Callable[[], None] = lambda: None
    ) -> None:
        """Opens `directory`, which need not exist; the newest `keep` checkpoints are kept.

        `allow` is called before each save; what it raises is raised there.
        """
        self._directory = _absolute(directory)
        self._best = self._directory / "best"
        self._keep = keep
        self._allow = allow
        self._size = 0  # bytes of what was written last
        self._damaged: set[int] = set()
        self._managers: dict[epath.Path, ocp.CheckpointManager] = {}

    @property
    def directory(self) -> str:
        """Where they are."""
        return str(self._directory)

    def save(self, step: int, state: PyTree, progress: Mapping[str, Any]) -> None:
        """Writes a checkpoint in the background, replacing a damaged one of the same step.

        On return the arrays of `state` may be donated and `progress` changed. Best parameters that
        `progress` speaks of must be given to `save_best` before: this waits until they are whole.
        `state` may hold typed random keys; `progress` is JSON, from which tuples return as lists.

        Raises:
            UserError: the disk has no room for it.
        """
        self.wait()
        self._prepare(state, f"checkpoint {step}")
        manager = self._manager(self._directory, self._keep)
        for stale in (self._damaged | {step}).intersection(manager.all_steps()):
            manager.delete(stale)
        self._damaged.clear()
        self._told_if_full(lambda: _write(manager, step, state, progress))

    def restore_latest(self, abstract_state: PyTree) -> tuple[int, PyTree, dict[str, Any]] | None:
        """Reads (step, state, progress) from the newest whole checkpoint; None where there is none.

        A damaged one that is passed over is logged as a warning.

        Args:
            abstract_state: jax.ShapeDtypeStruct leaves; their shardings, on any mesh, are those of
                the result. A leaf without one goes to the default device.

        Raises:
            UserError: the stored leaves differ in name, shape or dtype, or all is damaged.
        """
        steps = _steps(self._directory)
        if not steps:
            return None
        step, state, progress = _restore_newest(self._directory, steps, abstract_state)
        self._damaged = {other for other in steps if other > step}
        return step, state, progress

    def save_best(self, step: int, params: PyTree, metrics: Mapping[str, Any]) -> None:
        """Writes parameters in the background; those kept so far go once these are whole.

        Raises:
            UserError: the disk has no room for them.
        """
        self._prepare(params, "the best parameters")
        manager = self._manager(self._best, keep=1)
        number = (manager.latest_step() or 0) + 1
        note = {"step": step, "metrics": dict(metrics)}
        self._told_if_full(lambda: _write(manager, number, {"params": params}, note))

    def restore_best(self, abstract_params: PyTree) -> tuple[int, PyTree, dict[str, Any]] | None:
        """Reads (step, params, metrics) as `restore_latest` does; None where none was saved."""
        steps = _steps(self._best)
        if not steps:
            return None
        _, state, note = _restore_newest(self._best, steps, {"params": abstract_params})
        return note["step"], state["params"], note["metrics"]

    def wait(self) -> None:
        """Blocks until everything saved is whole on disk; raises what went wrong in writing it.

        Raises:
            UserError: the disk is full.
        """
        for manager in [*self._managers.values()]:
            self._told_if_full(manager.wait_until_finished)

    def close(self) -> None:
        """Waits as `wait` does, then frees the writing threads."""
        for manager in [*self._managers.values()]:
            self._told_if_full(manager.close)
        self._managers.clear()

    def check_room(self, state: PyTree, params: PyTree) -> None:
        """Raises UserError where a run's checkpoints would not all fit: those kept, the next one,
        and the best parameters."""
        wanted = (self._keep + 1) * _bytes(state) + _bytes(params)
        there = disk.used(self._directory)
        what = f"{self._keep + 1} checkpoints and the best, beside the {there:,} that are there"
        disk.check(self._directory, wanted - there, what)

    def check_best(self) -> None:
        """Raises UserError where there are no best parameters."""
        if not _steps(self._best):
            raise UserError(
                f"Expected the run's best parameters in {self._best}, found none, though its "
                "newest checkpoint speaks of them. Put the folder back, or give another --workdir."
            )

    def _prepare(self, tree: PyTree, what: str) -> None:
        self._allow()
        self._size = _bytes(tree)
        disk.check(self._directory, self._size, what)

    def _told_if_full(self, work: Callable[[], None]) -> None:
        """A full disk in `work` is a UserError; what was written in part goes."""
        try:
            return work()
        except Exception as e:
            fault = disk.fault(e, self._directory, self._size)
            if fault is None:
                raise
        # Out of the handler, so that nothing holds the writes that Orbax gave up.
        for manager in self._managers.values():
            if not processes.many():  # others may never come to the end of theirs
                with contextlib.suppress(Exception):
                    manager.close()
        self._managers.clear()
        for folder in (self._directory, self._best):
            for unfinished in folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(unfinished, ignore_errors=True)
        gc.collect()
        raise fault

    def _manager(self, directory: epath.Path, keep: int) -> ocp.CheckpointManager:
        """The writer of a folder, made at the first save: it removes temporary folders."""
        if directory not in self._managers:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                cleanup_tmp_directories=True,
                save_root_metadata=False,
            )
            handlers = {name: ocp.JsonCheckpointHandler(f"{name}.json") for name in _JSON_ITEMS}
            handlers["state"] = ocp.PyTreeCheckpointHandler()
            self._managers[directory] = ocp.CheckpointManager(
                directory, options=options, item_handlers=handlers
            )
        return self._managers[directory]


def restore_params(directory: str, step: int | None, abstract_params: PyTree) -> tuple[int, PyTree]:
    """Reads (step, params), and no other array, of a run that may still be training.

    `directory` and `abstract_params` are as in `Checkpoints`; without `step`, the newest whole
    checkpoint is read. Raises UserError where there is none, or it holds other parameters.
    """
    root = _absolute(directory)
    steps = _steps(root)
    if not steps or (step is not None and step not in steps):
        wanted = "a checkpoint" if step is None else f"the checkpoint of step {step}"
        raise UserError(
            f"Expected {wanted} in {root}, found {steps or 'none'}. Give the workdir of a run that "
            "has saved one, and one of its steps."
        )
    tried = steps if step is None else [step]
    found, state, _ = _restore_newest(root, tried, {"params": abstract_params}, scope="params/")
    return found, state["params"]


def _absolute(directory: str) -> epath.Path:
    """Orbax takes absolute paths only; a bucket's ("gs://...") is one already."""
    path = epath.Path(directory)
    return path if path.is_absolute() else path.resolve()


def _steps(directory: epath.Path) -> list[int]:
    """The steps of the finished checkpoints, newest first."""
    return processes.on_first(
        lambda: sorted(ocp.path.step.checkpoint_steps(directory), reverse=True)
    )


def _restore_newest(
    directory: epath.Path, steps: Sequence[int], abstract: PyTree, scope: str = ""
) -> tuple[int, PyTree, dict[str, Any]]:
    """The first of `steps` that is whole, with its state (see `_read_arrays`) and progress."""
    abstract = jax.tree.map(_placed, abstract)
    faults = []
    for step in steps:
        folder = directory / str(step)
        try:
            return step, _read_arrays(folder, abstract, scope), _read_json(folder, "progress")
        except UserError:
            raise
        except Exception as error:  # Orbax raises many types, plain Exception among them.
            cause = error.__cause__ or error
            if isinstance(cause, MemoryError | jax.errors.JaxRuntimeError):
                raise  # The device's fault, not the checkpoint's.
            fault = str(cause).partition("\n")[0][:300]
            faults.append(f"{folder}: {type(cause).__name__}: {fault}")
            logging.warning("Damaged checkpoint passed over: %s", faults[-1])
    raise UserError(
        f"Expected a whole checkpoint in {directory}, found only damaged ones:\n  "
        + "\n  ".join(faults)
        + "\nPut back a copy of one of these folders, or move the folder away to start anew."
    )


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _write(manager: ocp.CheckpointManager, number: int, state: PyTree, progress: Any) -> None:
    arrays = checksums.flatten(state)
    leaves = {
        name: [_describe(arrays[name]), value] for name, value in checksums.of(arrays).items()
    }
    manager.save(
        number,
        args=ocp.args.Composite(
            state=ocp.args.PyTreeSave(arrays),
            leaves=ocp.args.JsonSave(_seal(leaves)),
            progress=ocp.args.JsonSave(_seal(progress)),
        ),
        force=True,  # Orbax would skip a step below the highest there.
    )


def _read_all(folder: epath.Path, args: ocp.args.PyTreeRestore) -> dict[str, jax.Array]:
    """The arrays. A fault that one process alone finds is a fault to all."""
    arrays, fault = {}, None
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            arrays = reader.restore(folder, ocp.args.Composite(state=args))["state"]
    except Exception as error:
        if not processes.many():
            raise
        fault = f"process {processes.index()}: {error.__cause__ or error}"
    # Orbax has the processes meet at its end, where one that failed is missed until this time.
    faults = [each for each in processes.gather(fault, READ_SECONDS) if each is not None]
    if faults:
        raise ValueError(faults[0])
    return arrays


def _read_json(folder: epath.Path, item: str) -> Any:
    """The content of a JSON item. Raises ValueError where it is not what was written."""

    def read() -> Any:
        # Not by Orbax: it would have all processes meet, and wait for one that failed.
        file = folder / item / f"{item}.json"
        if not file.exists() and (folder / item / "metadata").exists():
            raise _of_another_version(folder, "no format", "earlier than 0.2.0")
        sealed = json.loads(file.read_text())
        if sealed["format"] != FORMAT:
            raise _of_another_version(folder, f"format {sealed['format']}", sealed["hir_jax"])
        if sealed["crc32"] != _crc32(sealed["content"]):
            raise ValueError(f"{item} does not match its checksum")
        if item == "progress" and sealed["hir_jax"] != hir_jax.__version__:
            logging.warning(
                "The checkpoint %s was written by hir_jax %s; this is %s. What it does not say has "
                "its default.",
                folder,
                sealed["hir_jax"],
                hir_jax.__version__,
            )
        return sealed["content"]

    return processes.on_first(read)


def _of_another_version(folder: epath.Path, found: str, version: str) -> UserError:
    return UserError(
        f"The checkpoint {folder} has {found}, as hir_jax {version} writes it; this is hir_jax "
        f"{hir_jax.__version__}, which reads format {FORMAT}. Go on with the hir_jax that wrote "
        "it, or give another workdir."
    )


def _read_arrays(folder: epath.Path, abstract: PyTree, scope: str) -> PyTree:
    """The tree `abstract` describes, read from the leaves whose names begin with `scope`.

    Raises UserError where others are stored, ValueError where an array is not what was written.
    """
    leaves = _read_json(folder, "leaves")
    wanted = checksums.flatten(abstract)
    _check_match(
        folder,
        {name: stored for name, (stored, _) in leaves.items() if name.startswith(scope)},
        {name: _describe(leaf) for name, leaf in wanted.items()},
    )
    processes.on_first(lambda: _probe(folder / "state"))
    restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
    args = ocp.args.PyTreeRestore(wanted, restore_args=restore_args, partial_restore=True)
    arrays = _read_all(folder, args)
    changed = [name for name, value in checksums.of(arrays).items() if value != leaves[name][1]]
    if changed:
        raise ValueError(f"{len(changed)} arrays do not match their checksums: {changed[:3]}")
    return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[name] for name in wanted])


def _probe(state: epath.Path) -> None:
    """Reads the last byte of every stored value. Raises ValueError where a file is cut or absent.

    Orbax would find that too, but may fill stderr with a traceback for each read it abandons.
    """
    base = f"{state}/" if "://" in str(state) else {"driver": "file", "path": f"{state}/"}
    store = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    reads = [store.read(key, byte_range=slice(-1, None)) for key in store.list().result()]
    for read in reads:
        read.result()


def _check_match(folder: epath.Path, stored: dict[str, str], wanted: dict[str, str]) -> None:
    names = wanted | stored
    differing = [
        f"{name}: expected {wanted.get(name, 'nothing')}, found {stored.get(name, 'nothing')}"
        for name in names
        if wanted.get(name) != stored.get(name)
    ]
    if differing:
        raise UserError(
            f"The checkpoint {folder} is of another model or optimizer: {len(differing)} of "
            f"{len(names)} leaves differ, the first of them\n  "
            + "\n  ".join(differing[:10])
            + "\nGive the config that wrote it, or another workdir."
        )


def _placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """`leaf` with a sharding: Orbax would otherwise ask for the devices it was written from."""
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    sharding.devices_indices_map(leaf.shape)  # Raises where it does not fit: no damage, that.
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _describe(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _seal(content: Any) -> dict[str, Any]:
    """`content` with a checksum, copied: Orbax writes it later, when the caller may change it."""
    return {
        "format": FORMAT,
        "hir_jax": hir_jax.__version__,
        "content": json.loads(json.dumps(content)),
        "crc32": _crc32(content),
    }


def _crc32(content: Any) -> int:
    return zlib.crc32(json.dumps(content).encode())


noise.hush()
