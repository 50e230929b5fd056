"""Where arrays live: a mesh of (data, fsdp, tensor) and a table of rules for parameters."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hir_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # that split a batch
DECODING_AXES = ("tensor",)  # of parameters: decoding reads every weight in every step

# First match on the path decides. Heads, feed-forward width and vocabulary go on `tensor`; the
# model width goes on `fsdp`. Norms and position biases are small and stay whole everywhere.
RULES = (
    (r"shared$", P("tensor", "fsdp")),
    (r"lm_head$", P("fsdp", "tensor")),
    (r"(query|key|value|wi|wi_0|wi_1)/kernel$", P("fsdp", "tensor")),
    (r"(out|wo)/kernel$", P("tensor", "fsdp")),
    # Of adapters as of their kernels; the rank has no axis.
    (r"(query|key|value|wi|wi_0|wi_1)/lora_a$", P("fsdp")),
    (r"(query|key|value|wi|wi_0|wi_1)/lora_b$", P(None, "tensor")),
    (r"(out|wo)/lora_a$", P("tensor")),
    (r"(out|wo)/lora_b$", P(None, "fsdp")),
    (r"(scale|relative_bias)$", P()),
)


def make_mesh(shape: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices, or those given; one axis may be -1 and takes what the others leave.

    Raises:
        UserError: the shape does not multiply to the number of devices, or they cannot be laid out
            in it.
    """
    sizes = [shape[axis] for axis in AXES]
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    known = int(np.prod([size for size in sizes if size != -1]))
    if sizes.count(-1) == 1 and known > 0 and count % known == 0:
        sizes[sizes.index(-1)] = count // known
    if min(sizes) < 1 or int(np.prod(sizes)) != count:
        asked = " x ".join(f"{axis}={shape[axis]}" for axis in AXES)
        raise UserError(
            f"config.mesh: expected sizes whose product is the number of devices, {count} (one "
            f"may be -1); found {asked}."
        )
    axis_types = (AxisType.Auto,) * len(AXES)
    return Mesh(laid_out(sizes, devices), AXES, axis_types=axis_types)


def laid_out(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices as an array of these sizes; neighbours in it are linked as far as they can be.

    Between slices the network is slow, so that one axis alone crosses it: `data`, or else `fsdp`.

    Raises:
        UserError: they cannot be laid out so.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    across = next((i for i, size in enumerate(sizes[:2]) if size % slices == 0), None)
    if across is None:
        raise UserError(
            f"config.mesh: expected data or fsdp to be a multiple of {slices}, the number of "
            f"slices, between which alone that axis can go; found {tuple(sizes)}."
        )
    between = [slices if i == across else 1 for i in range(len(sizes))]
    within = [size // outer for size, outer in zip(sizes, between, strict=True)]
    try:
        if slices == 1:
            return mesh_utils.create_device_mesh(within, devices, allow_split_physical_axes=True)
        return mesh_utils.create_hybrid_device_mesh(
            within, between, devices, allow_split_physical_axes=True
        )
    except (AssertionError, NotImplementedError, ValueError) as e:
        raise UserError(
            f"config.mesh: {len(devices)} x {devices[0].device_kind} cannot be laid out as "
            f"{tuple(sizes)}: {e} Try other sizes; a TPU v4 must run as one device a chip, as it "
            "does unless LIBTPU_INIT_ARGS says otherwise."
        ) from e


def mesh_name(mesh: Mesh) -> str:
    """What devices a mesh is of, and how they are laid out."""
    sizes = " x ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    return f"{mesh.devices.flat[0].device_kind}, {sizes}"


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split along their first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, P())


def batch_multiple(mesh: Mesh) -> int:
    """A batch's first axis must be a multiple of this."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def tree_shardings(mesh: Mesh, tree: Any, axes: tuple[str, ...] = AXES) -> Any:
    """The sharding of each leaf of a parameter tree, or of optimizer state that mirrors one.

    A leaf that no rule names (a step count), or one of fewer axes than its rule (Adafactor's
    factored moments), is whole on every device. A dimension that its mesh axis does not divide
    stays whole too, and so does one whose mesh axis is not among `axes`.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        spec = leaf_spec(mesh, path_name(path), leaf.shape)
        return NamedSharding(mesh, P(*(axis if axis in axes else None for axis in spec)))

    return jax.tree_util.tree_map_with_path(place, tree)


def abstract(tree: Any, mesh: Mesh) -> Any:
    """Shape, type and place by `RULES` of each leaf, for reading a checkpoint."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        tree,
        tree_shardings(mesh, tree),
    )


def leaf_spec(mesh: Mesh, name: str, shape: tuple[int, ...]) -> P:
    """The partition of one leaf by `RULES`."""
    spec = next((spec for pattern, spec in RULES if re.search(pattern, name)), P())
    if len(spec) > len(shape):
        return P()
    return P(*(dividing(mesh, axis, size) for axis, size in zip(spec, shape, strict=False)))


def dividing(mesh: Mesh, axis: str | None, size: int) -> str | None:
    """The mesh axis, where it divides a dimension of this size."""
    return axis if axis is not None and size % mesh.shape[axis] == 0 else None


def device_bytes(tree: Any) -> float:
    """Bytes of a tree of real or abstract arrays on one device, without what tiles pad."""
    return float(
        sum(
            np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )


def path_name(path: tuple[Any, ...]) -> str:
    """A tree path as "decoder/block_0/self_attention/query/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
