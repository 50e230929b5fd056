import importlib.metadata
import importlib.util
import re
import types

import jax
import numpy as np
import pytest

from hir_jax.devices import gpus, hardware
from hir_jax.devices.hardware import GB
from hir_jax.errors import UserError


def device(kind, memory=None, platform="tpu"):
    """One whose memory is told, or that is not here (None)."""

    def memory_stats():
        if memory is None:
            raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: only for addressable devices")
        return {"bytes_limit": memory} if memory else None

    return types.SimpleNamespace(device_kind=kind, platform=platform, memory_stats=memory_stats)


@pytest.mark.parametrize(
    ("kind", "name", "memory", "tflops"),
    [
        ("TPU v4", "v4", 32, 275),
        ("TPU v5 lite", "v5e", 16, 197),
        ("TPU v5", "v5p", 95, 459),
        ("TPU v5p", "v5p", 95, 459),
        ("TPU v6 lite", "v6e", 32, 918),
        ("NVIDIA H100 80GB HBM3", "H100", 60, 989),  # of which JAX takes three quarters
        ("NVIDIA H200", "H200", 105.75, 989),
    ],
)
def test_the_table_by_the_kinds_that_jax_names(kind, name, memory, tflops, monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    found = hardware.kind_of(device(kind))
    assert (found.name, found.memory, found.flops) == (name, memory * GB, tflops * 1e12)


def on(kind, platform="tpu"):
    """A mesh of one such device."""
    return types.SimpleNamespace(devices=np.array([device(kind, platform=platform)]))


def test_a_kernel_of_decoding_may_take_more_where_there_is_more(monkeypatch):
    monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
    option = "xla_tpu_scoped_vmem_limit_kib"
    for kind, kib in (("TPU v5 lite", "49152"), ("TPU v5", "32768"), ("TPU v6 lite", "49152")):
        assert hardware.decoding_options(on(kind)) == {option: kib}
    for kind, platform in (("TPU v4", "tpu"), ("NVIDIA H200", "gpu"), ("cpu", "cpu")):
        assert hardware.decoding_options(on(kind, platform)) == {}
    monkeypatch.setenv("LIBTPU_INIT_ARGS", f"--{option}=20000")
    assert hardware.decoding_options(on("TPU v5 lite")) == {}


def test_cores_share_what_a_chip_has():
    core, chip = (hardware.kind_of(device("TPU v4"), cores) for cores in (2, 1))
    assert core.memory == chip.memory / 2 and core.flops == chip.flops / 2
    assert core.bandwidth == chip.bandwidth / 2 and core.clock == chip.clock


def test_a_clock_times_the_operations_of_a_cycle_is_the_peak():
    for kind, operations in (("TPU v5 lite", 2**17), ("TPU v4", 2**18), ("TPU v5p", 2**18)):
        found = hardware.kind_of(device(kind))
        assert found.clock * operations == pytest.approx(found.flops, rel=0.005)


def test_the_lesser_of_a_devices_own_word_and_the_table():
    assert hardware.kind_of(device("NVIDIA H200", 100 * GB)).memory == 100 * GB
    # So that a run has what a plan without the device has.
    assert hardware.kind_of(device("TPU v5 lite", 16.9 * GB)).memory == 16 * GB
    assert hardware.memory_of(device("Abacus", 0)) == 0
    assert hardware.kind_of(device("Abacus", 7, "gpu")) == hardware.Kind("Abacus", 7)


def test_a_device_whose_memory_nobody_knows():
    with pytest.raises(UserError, match=r"whose memory is known \(v4, .*found 'Abacus'. Give"):
        hardware.kind_of(device("Abacus", 0))


def test_devices_of_a_cpu_share_the_machines_memory():
    kind = hardware.kind_of(jax.devices()[0])
    with open("/proc/meminfo") as file:
        kilobytes = int(file.readline().split()[1])
    assert kind.memory * jax.device_count() == pytest.approx(kilobytes * 1024, rel=1e-3)
    assert kind.flops == 0


@pytest.mark.parametrize(
    "name", ["v9:4x4", "v5e", "v5e:4", "v5e:axb", "4x4", "v5e:4x4 ", "v5e:4x4*0"]
)
def test_names_that_are_no_topology(name):
    with pytest.raises(UserError, match=r"--topology: expected .* v5e:4x4, ") as caught:
        hardware.topology(name)
    assert f"found {name!r}." in str(caught.value)


def test_without_the_compiler_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"found none\. Install it with `pip install \"hir_jax\[tpu\]\"`, and set"
    ):
        hardware.topology("v5e:4x4")


@pytest.fixture
def refusing(monkeypatch):
    """What the sentence is when the compiler refuses with a message."""

    def sentence(message):
        from jax.experimental import topologies

        def refuse(**_):
            raise jax.errors.JaxRuntimeError(message)

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
        monkeypatch.setattr(topologies, "get_topology_desc", refuse)
        with pytest.raises(UserError) as e:
            hardware.topology("v5e:3x5")
        return str(e.value)

    return sentence


def test_a_slice_that_is_not_offered(refusing):
    said = refusing("INVALID_ARGUMENT: not divisible by 2x2x1\nmore")
    assert said.startswith("--topology=v5e:3x5: the compiler refuses it (INVALID_ARGUMENT: not")
    assert said.endswith("Give the shape of a slice that is offered, such as v5e:4x4.")
    assert "more" not in said


def test_a_compiler_that_another_process_holds(refusing):
    said = refusing("ABORTED: Internal error when accessing libtpu multi-process lockfile.")
    assert "Another process uses libtpu" in said and "ALLOW_MULTIPLE_LIBTPU_LOAD=1" in said


@pytest.mark.parametrize(
    ("version", "other"), [("0.0.42.1", False), ("0.0.52", True), ("0.0.4", True)]
)
def test_a_compiler_that_is_not_the_one_that_jax_asks_for(monkeypatch, version, other):
    asked = ["numpy>=2.0", "libtpu==0.0.42.*; extra == 'tpu'"]
    monkeypatch.setattr(importlib.metadata, "requires", {"jax": asked}.get)
    monkeypatch.setattr(importlib.metadata, "version", {"libtpu": version}.get)
    said = f"libtpu {version} is installed, where jax {jax.__version__} asks for 0.0.42.*: `pip"
    assert hardware.another_libtpu().startswith(said) == other
    assert bool(hardware.another_libtpu()) == other


def test_jax_says_which_compiler_it_asks_for(monkeypatch):
    """Or the sentence above would never be said."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")
    assert "libtpu 0.0.1 is installed" in hardware.another_libtpu()


@pytest.mark.parametrize(
    "name, count, kind",
    [
        ("v5e:2x4", 8, "TPU v5 lite"),
        ("v5e:2x4*2", 16, "TPU v5 lite"),
        ("v4:2x2x1", 4, "TPU v4"),
        ("v7x:2x2x1", 8, "TPU7x"),
    ],
)
def test_slices_of_tpus(name, count, kind, monkeypatch):
    pytest.importorskip("libtpu", reason="the TPU compiler is an optional extra")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    devices, found = hardware.topology(name)
    chips = 2 if kind == "TPU7x" else 1
    assert len(devices) == count and found == hardware.kind_of(device(kind), chips)
    assert found.name == name.partition(":")[0]
    assert hardware.chips(devices) == count / chips


def test_gpus_that_are_not_here(monkeypatch):
    if not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))):
        pytest.skip("the GPU compiler is an optional extra")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    devices, kind = hardware.topology("l4:2")
    assert len(devices) == hardware.chips(devices) == 2
    assert devices[0].device_kind == "NVIDIA L4"
    assert (kind.name, kind.memory) == ("L4", 18 * hardware.GB)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".95")
    assert hardware.topology("h100:1")[1].memory == 76 * hardware.GB


def test_every_gpu_that_can_be_planned_for_is_known():
    for key, gpu in gpus.GPUS.items():
        kind = hardware.kind_of(device(gpu.name))
        assert kind.name == key.upper() and kind.flops
        assert kind.memory == hardware.JAX_TAKES * gpu.memory * 10**9
        assert (kind.bandwidth, kind.links) == (gpu.bandwidth * 10**9, gpu.links * 10**9)


def test_a_gpu_as_the_compiler_wants_it_described():
    text = gpus.target(gpus.GPUS["a100"])
    fields = dict(re.findall(r"(\w+): ([\d.]+)\n", text))
    assert "cuda_compute_capability { major: 8 minor: 0 }" in text
    assert (fields["core_count"], fields["fpus_per_core"]) == ("108", "64")
    assert fields["shared_memory_per_block_optin"] == str(163 * 1024)
    assert fields["memory_bandwidth"] == "2039000000000"


def test_a_compiler_without_a_host_is_told_of_one_but_for_what_is_said(monkeypatch):
    said = {"TPU_WORKER_HOSTNAMES": "here", "HOME": "/root"}
    monkeypatch.setattr(hardware.os, "environ", said)
    monkeypatch.setattr(hardware, "_expect", lambda *given: None)
    monkeypatch.setattr(hardware, "another_libtpu", lambda: "")
    monkeypatch.setattr(hardware, "_described", lambda *given, **more: [device("TPU v5 lite")])
    assert hardware.topology("v5e:1x1")[1].name == "v5e"
    assert said["TPU_WORKER_HOSTNAMES"] == "here" and said["HOME"] == "/root"
    assert said["TPU_SKIP_MDS_QUERY"] == "1" and said["TPU_ACCELERATOR_TYPE"]
