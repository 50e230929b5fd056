"""What is in a checkpoint, by Orbax: arrays, each with its checksum, onto any mesh."""

from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath

from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.run import checksums, sealed

PyTree = Any

# For all processes to have read their share once the first has.
READ_SECONDS = 1800
# Devices that hold the same array each write a part of it, if that has so many bytes: slicing and
# fetching a part costs as much as a small array.
PART_BYTES = 2**14

_JSON_ITEMS = ("leaves", "progress")


def manager(directory: epath.Path, policy: Any) -> ocp.CheckpointManager:
    """What writes checkpoints into a directory, whose temporary folders it removes.

    `policy` is Orbax's of what is preserved.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy, cleanup_tmp_directories=True, save_root_metadata=False
    )
    handlers = {name: ocp.JsonCheckpointHandler(f"{name}.json") for name in _JSON_ITEMS}
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=PART_BYTES)
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
    handlers["state"] = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


def write(manager: ocp.CheckpointManager, step: int, state: PyTree, note: Any) -> None:
    """Begins to write a checkpoint: a state's arrays, and the JSON of its progress."""
    arrays = checksums.flatten(state)
    leaves = {
        name: [_describe(arrays[name]), value] for name, value in checksums.of(arrays).items()
    }
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.PyTreeSave(arrays),
            leaves=ocp.args.JsonSave(sealed.seal(leaves)),
            progress=ocp.args.JsonSave(sealed.seal(note)),
        ),
        force=True,  # Orbax would skip a step below the highest there.
    )


def read(folder: epath.Path, abstract: PyTree, scope: str = "") -> PyTree:
    """The tree `abstract` describes, read from the leaves whose names begin with `scope`.

    Raises UserError where others are stored, ValueError where an array is not what was written.
    """
    wanted = checksums.flatten(abstract)
    leaves = sealed.read(folder, "leaves")
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


def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """`leaf` with a sharding: Orbax would otherwise ask for the devices it was written from."""
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    sharding.devices_indices_map(leaf.shape)  # Raises where it does not fit: no damage, that.
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


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


def _probe(state: epath.Path) -> None:
    """Reads the last byte of every stored value. Raises ValueError where a file is cut or absent.

    Orbax would find that too, but may fill stderr with a traceback for each read it abandons.
    """
    base = f"{state}/" if "://" in str(state) else {"driver": "file", "path": f"{state}/"}
    store = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    reads = [store.read(key, byte_range=slice(-1, None)) for key in store.list().result()]
    for each in reads:
        each.result()


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


def _describe(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
