"""What the device is, by its own word and its data sheet, and what it does when measured."""

import importlib.metadata
import os
import platform
import shutil
import subprocess

import jax

from benchmarks import limits, machine
from benchmarks.visits.stages import Note, Visit
from hir_jax.devices import hardware

PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "numpy", "flax")


def run(visit: Visit, note: Note) -> None:
    """Facts, then rates of all devices at work together."""
    device, dtype = jax.devices()[0], machine.dtype()
    note(
        machine=machine.name(),
        platform=device.platform,
        devices=jax.device_count(),
        dtype=dtype,
        cores=os.cpu_count(),
        python=platform.python_version(),
        packages=versions(),
        runtime=device.client.platform_version.splitlines()[-1],
        driver=driver(),
        xla_flags=os.environ.get("XLA_FLAGS", ""),
    )
    kind = hardware.kind_of(device)
    note(
        memory_gb=kind.memory / 1e9,
        sheet={"tflops": kind.flops / 1e12, "gb_a_second": kind.bandwidth / 1e9},
    )
    rates = limits.measured(dtype)
    note(rates=rates._asdict())
    if dtype != "float32":
        note(float32_product=limits.product_rate("float32"))


def versions() -> dict[str, str]:
    """Of the packages that decide what runs."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def driver() -> str:
    """Of an NVIDIA GPU; empty where there is none."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [""])[0].strip()
