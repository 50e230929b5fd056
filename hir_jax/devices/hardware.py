"""What devices can do, by their makers' data sheets; topologies of devices that are not here."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax

from hir_jax.errors import UserError

GB = 10**9


@dataclasses.dataclass(frozen=True)
class Kind:
    """One device; a figure is 0 where it is not known.

    Attributes:
        name: such as "v5e".
        memory: bytes.
        flops: bfloat16 operations a second at best.
        bandwidth: of the memory, bytes a second at best.
        clock: cycles a second, which turns a compiler's estimates into time.
    """

    name: str
    memory: float
    flops: float = 0.0
    bandwidth: float = 0.0
    clock: float = 0.0


# A chip: memory in GB, bfloat16 TFLOP/s, memory GB/s, GHz. Data sheets' GB are 2^30 bytes for TPUs;
# taken as 10^9 they leave 7% to the runtime. A clock is the peak divided by the operations that the
# matrix units do in a cycle: 131,072 on v5e, twice as many on v4 and v5p; of v6e and v7x it is not
# known. A chip of v7x is two devices.
_CHIPS = {
    "v4": (32, 275, 1228, 1.05),
    "v5e": (16, 197, 819, 1.5),
    "v5p": (95, 459, 2765, 1.75),
    "v6e": (32, 918, 1640, 0),
    "v7x": (192, 2307, 7380, 0),
    "H100": (80, 989, 3350, 0),
    "H200": (141, 989, 4800, 0),
}
# First match decides: `device_kind` as JAX gives it -> a key of the table.
_NAMES = (
    (r"TPU7x|v7x", "v7x"),
    (r"v6 lite|v6e", "v6e"),
    (r"v5 lite|v5e", "v5e"),
    (r"v5", "v5p"),
    (r"v4", "v4"),
    (r"H200", "H200"),
    (r"H100", "H100"),
)

# The compiler's own names, and what it must be told to compile as a run does: for v4, that both
# cores of a chip are one device.
_COMPILERS_NAMES = {"v7x": "tpu7x"}
_AS_RUN = {"v4": {"chip_config_name": "megacore"}}


def kind_of(device: jax.Device, cores: int = 1) -> Kind:
    """What a device can do; its own word on its memory goes before the table's.

    Args:
        device: here or in a topology.
        cores: devices that a chip counts as; they share what it has.

    Raises:
        UserError: neither the device nor the table knows its memory.
    """
    key = next((key for pattern, key in _NAMES if re.search(pattern, device.device_kind)), None)
    memory, flops, bandwidth, clock = _CHIPS[key] if key else (0, 0, 0, 0)
    kind = Kind(
        key or device.device_kind,
        memory * GB / cores,
        flops * 1e12 / cores,
        bandwidth * GB / cores,
        clock * 1e9,
    )
    own = _own_memory(device)
    if not own and not kind.memory:
        raise UserError(
            f"--mode=plan: expected a device whose memory is known ({', '.join(_CHIPS)}, or one "
            f"that tells it), found {device.device_kind!r}. Give --topology."
        )
    return dataclasses.replace(kind, memory=own or kind.memory)


def topology(name: str) -> tuple[Sequence[jax.Device], Kind]:
    """The devices of a TPU slice such as "v5e:4x4", to compile for, and what one can do.

    "v5e:4x4*2" are two of them, which a network links.

    Raises:
        UserError: no TPU compiler is installed, or it knows no such slice.
    """
    found = re.fullmatch(r"(v4|v5e|v5p|v6e|v7x):(\d+(?:x\d+)+)(?:\*([1-9]\d*))?", name)
    if not found:
        raise UserError(
            "--topology: expected a kind of TPU (v4, v5e, v5p, v6e, v7x) and a shape, such as "
            "v5e:4x4, v5p:2x2x2, or v5e:4x4*2 for two such slices; "
            f"found {name!r}."
        )
    version, shape, slices = found[1], found[2], int(found[3] or 1)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={name}: expected the TPU compiler, found none. Install it with "
            "`pip install libtpu`, and set JAX_PLATFORMS=cpu where there is no TPU."
        )
    # Asked of a cloud's metadata server otherwise, which is not there.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    try:
        devices = topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{_COMPILERS_NAMES.get(version, version)}:{shape}",
            **_AS_RUN.get(version, {}),
            **({"num_slices": slices} if slices > 1 else {}),
        ).devices
    except Exception as e:
        reason = str(e).splitlines()[0]
        mend = "Give the shape of a slice that is offered, such as v5e:4x4."
        if "lockfile" in reason:
            mend = (
                "Another process uses libtpu; wait for its end, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1"
            )
        raise UserError(f"--topology={name}: the TPU compiler refuses it ({reason}). {mend}") from e
    chips = slices * math.prod(int(n) for n in shape.split("x"))
    return devices, kind_of(devices[0], len(devices) // chips)


def _own_memory(device: jax.Device) -> float:
    if device.platform == "cpu":
        # Devices of a CPU share the machine's memory.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / jax.device_count()
    try:
        return (device.memory_stats() or {}).get("bytes_limit", 0)
    except jax.errors.JaxRuntimeError:  # a device that is not here
        return 0
