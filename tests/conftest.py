"""Every test sees 8 CPU devices, so that meshes and shardings are tested without accelerators."""

import gc
import os
import pathlib

# Before jax is imported anywhere: it reads these once.
os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile far more than they compute: without optimization a training step compiles in a
# seventh of the time. Both flags are needed.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
    )
).strip()

import jax
import pytest

from tests import tiny

# JAX makes many long-lived objects while it traces, so that Python looks through all of them for
# garbage again and again: 1.9 of 37 s of CPU in seven tests of the sampler, 0.2 so. What is
# imported is not looked at any more.
gc.set_threshold(50_000, 10, 10)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Forgets compiled programs when there are many.

    Each takes some maps of memory, of which Linux lets a process have 65,530; then it is aborted.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def cache():
    """The folder of `tiny.compiled_once`, for --compilation_cache."""
    with tiny.compiled_once() as folder:
        yield folder
