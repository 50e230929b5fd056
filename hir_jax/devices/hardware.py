"""What devices can do, by their makers' data sheets; topologies of devices that are not here."""

import dataclasses
import fnmatch
import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from hir_jax.devices import gpus
from hir_jax.errors import UserError

GB = 10**9
JAX_TAKES = 0.75  # of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise


@dataclasses.dataclass(frozen=True)
class Kind:
    """One device; a figure is 0 where it is not known.

    Attributes:
        name: such as "v5e".
        memory: bytes.
        flops: bfloat16 operations a second at best.
        bandwidth: of the memory, bytes a second at best.
        clock: cycles a second, which turns a compiler's estimates into time.
        links: to other devices: bytes a second that it sends at best, over all of them.
    """

    name: str
    memory: float
    flops: float = 0.0
    bandwidth: float = 0.0
    clock: float = 0.0
    links: float = 0.0


# A chip: memory in GB, bfloat16 TFLOP/s, memory GB/s, GHz, links to other chips GB/s one way. For
# TPUs a data sheet's GB are 2^30 bytes; taken as 10^9 they leave 7% to the runtime. A clock is the
# peak divided by the operations that the matrix units do in a cycle: 131,072 on v5e, twice as many
# on v4 and v5p; of v6e and v7x it is not known. A chip of v7x is two devices.
_TPUS = {
    "v4": (32, 275, 1228, 1.05, 300),
    "v5e": (16, 197, 819, 1.5, 200),
    "v5p": (95, 459, 2765, 1.75, 600),
    "v6e": (32, 918, 1640, 0, 400),
    "v7x": (192, 2307, 7380, 0, 600),
}
_CHIPS = _TPUS | {
    name.upper(): (gpu.memory, gpu.tflops, gpu.bandwidth, 0, gpu.links)
    for name, gpu in gpus.GPUS.items()
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
    (r"A100.*80GB", "A100"),
    (r"\bL4\b", "L4"),
)

# MB of its fast memory that one kernel of decoding may take; 16 where nothing is said. Larger parts
# of the caches are read faster; what is left is for what is fetched ahead.
_DECODING_TAKES = {"v5e": 48, "v5p": 32, "v6e": 48}

# What the TPU compiler asks a cloud's metadata server for otherwise, and misses in words of alarm;
# nothing that is compiled depends on it.
_NO_HOST = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
# The compiler's own names, and what it must be told to compile as a run does: for v4, that both
# cores of a chip are one device.
_COMPILERS_NAMES = {"v7x": "tpu7x"}
_AS_RUN = {"v4": {"chip_config_name": "megacore"}}


def kind_of(device: jax.Device, cores: int = 1) -> Kind:
    """What a device can do, and what programs may take of its memory; see `memory_of`.

    Args:
        device: here or in a topology.
        cores: devices that a chip counts as; they share what it has.

    Raises:
        UserError: neither the device nor the table knows its memory.
    """
    key = _key(device)
    _, flops, bandwidth, clock, links = _CHIPS[key] if key else (0, 0, 0, 0, 0)
    kind = Kind(
        key or device.device_kind,
        memory_of(device, cores),
        flops * 1e12 / cores,
        bandwidth * GB / cores,
        clock * 1e9,
        links * GB / cores,
    )
    if not kind.memory:
        raise UserError(
            f"--mode=plan: expected a device whose memory is known ({', '.join(_CHIPS)}, or one "
            f"that tells it), found {device.device_kind!r}. Give --topology."
        )
    return kind


def memory_of(device: jax.Device, cores: int = 1) -> float:
    """Bytes that programs may take of a device's memory; 0 where nobody knows.

    The lesser of its own word and of the table's figure, of which JAX takes a share of a GPU's: so
    it is the same for a run on a device and for a plan without it.
    """
    key = _key(device)
    sheet = _CHIPS[key][0] * GB / cores if key else 0
    if key and key.lower() in gpus.GPUS:
        sheet *= float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", JAX_TAKES))
    return min(filter(None, (_own_memory(device), sheet)), default=0)


def decoding_options(mesh: Mesh) -> dict[str, str]:
    """What the compiler is told of programs that decode.

    Nothing where LIBTPU_INIT_ARGS says how much memory a kernel may take.
    """
    option = "xla_tpu_scoped_vmem_limit_kib"
    megabytes = _DECODING_TAKES.get(_key(mesh.devices.flat[0]))
    if megabytes is None or option in os.environ.get("LIBTPU_INIT_ARGS", ""):
        return {}
    return {option: str(megabytes << 10)}


def chips(devices: Sequence[jax.Device]) -> int:
    """How many chips these devices are: a TPU's may have two."""
    if devices[0].platform != "tpu":
        return len(devices)
    return len({(getattr(device, "slice_index", 0), *device.coords) for device in devices})


def topology(name: str) -> tuple[Sequence[jax.Device], Kind]:
    """Devices that are not here, to compile for, and what one can do.

    Args:
        name: a TPU slice such as "v5e:4x4"; "v5e:4x4*2", two of them, which a network links; or
            GPUs of one host, such as "h100:8".

    Raises:
        UserError: no compiler for such devices is installed, or it knows no such slice.
    """
    if found := re.fullmatch(rf"({'|'.join(_TPUS)}):(\d+(?:x\d+)+)(?:\*([1-9]\d*))?", name):
        return _slices(name, found[1], found[2], int(found[3] or 1))
    if found := re.fullmatch(rf"({'|'.join(gpus.GPUS)}):([1-9]\d*)", name):
        return _gpus(name, gpus.GPUS[found[1]], int(found[2]))
    raise UserError(
        f"--topology: expected a kind of TPU ({', '.join(_TPUS)}) and a shape, such as v5e:4x4, "
        "v5p:2x2x2, or v5e:4x4*2 for two such slices; or a kind of GPU "
        f"({', '.join(gpus.GPUS)}) and a number, such as h100:8; found {name!r}."
    )


def _slices(name: str, version: str, shape: str, slices: int) -> tuple[Sequence[jax.Device], Kind]:
    _expect(name, "TPU", ("libtpu",), 'pip install "hir_jax[tpu]"')
    if other := another_libtpu():
        logging.warning("%s. Its programs may be others than a run's, or cannot be read.", other)
    os.environ.update(_NO_HOST | os.environ)
    several = {"num_slices": slices} if slices > 1 else {}
    devices = _described(
        name,
        "Give the shape of a slice that is offered, such as v5e:4x4.",
        platform="tpu",
        topology_name=f"{_COMPILERS_NAMES.get(version, version)}:{shape}",
        **_AS_RUN.get(version, {}),
        **several,
    )
    chips = slices * math.prod(int(n) for n in shape.split("x"))
    return devices, kind_of(devices[0], len(devices) // chips)


def another_libtpu() -> str:
    """What is said where the TPU compiler is not the one that jax asks for; else nothing."""
    asked = (
        re.match(r"libtpu==([\d.*]+)", one) for one in importlib.metadata.requires("jax") or ()
    )
    wanted = next(filter(None, asked), None)
    try:
        found = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:  # of another name, such as a nightly one
        return ""
    if wanted is None or fnmatch.fnmatch(found, wanted[1]):
        return ""
    return (
        f"libtpu {found} is installed, where jax {jax.__version__} asks for {wanted[1]}: "
        '`pip install "hir_jax[tpu]"` installs that'
    )


def _gpus(name: str, gpu: gpus.Gpu, count: int) -> tuple[Sequence[jax.Device], Kind]:
    _expect(name, "GPU", ("jax_cuda12_plugin", "jax_cuda13_plugin"), 'pip install "hir_jax[cuda]"')
    devices = _described(
        name,
        "Give another number of devices.",
        platform="cuda",
        topology_name=name,
        target_config=gpus.target(gpu),
        topology=f"1x1x{count}",
    )
    return devices, kind_of(devices[0])


def _expect(name: str, what: str, packages: Sequence[str], install: str) -> None:
    if not any(map(importlib.util.find_spec, packages)):
        raise UserError(
            f"--topology={name}: expected the {what} compiler, found none. Install it with "
            f"`{install}`, and set JAX_PLATFORMS=cpu where there is no {what}."
        )


def _described(name: str, mend: str, **description: Any) -> Sequence[jax.Device]:
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(**description).devices
    except Exception as e:
        reason = str(e).splitlines()[0]
        if "lockfile" in reason:
            mend = (
                "Another process uses libtpu; wait for its end, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1"
            )
        raise UserError(f"--topology={name}: the compiler refuses it ({reason}). {mend}") from e


def _key(device: jax.Device) -> str | None:
    return next((key for pattern, key in _NAMES if re.search(pattern, device.device_kind)), None)


def _own_memory(device: jax.Device) -> float:
    if device.platform == "cpu":
        # Devices of a CPU share the machine's memory.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / jax.local_device_count()
    try:
        return (device.memory_stats() or {}).get("bytes_limit", 0)
    except jax.errors.JaxRuntimeError:  # a device that is not here
        return 0
