"""What a benchmark ran on, and how much memory it took."""

import os
import pathlib
import platform
import re
import resource

import jax


def peak_memory_gb() -> float:
    """Of the device where it tells; else of this process."""
    memory = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in memory:
        return memory["peak_bytes_in_use"] / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def name() -> str:
    """The device, and how many."""
    device = jax.devices()[0]
    kind = device.device_kind if device.platform != "cpu" else _processor()
    return f"{jax.device_count()} x {kind}, jax {jax.__version__}"


def dtype() -> str:
    """What models compute in here: bfloat16, but on a CPU, which may be slow in it, float32."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def _processor() -> str:
    """The model of the CPU and the number of its cores."""
    info = pathlib.Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
