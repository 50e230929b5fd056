"""GPUs that are not here, as XLA's compiler wants them described; figures of their data sheets."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One device.

    Attributes:
        name: as the driver calls it.
        capability: of CUDA, major and minor.
        cores: streaming multiprocessors.
        units: float32 units of each.
        threads: at most, on each.
        shared: KiB of each, for caches and shared memory.
        cache: MiB of the second level.
        clock: GHz at best.
        memory: GB.
        bandwidth: GB a second.
        tflops: bfloat16, without sparsity.
        links: GB a second to the other GPUs of a host, one way; without NVLink those of PCIe.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    units: int
    threads: int
    shared: int
    cache: int
    clock: float
    memory: int
    bandwidth: int
    tflops: int
    links: int


GPUS = {
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 2048, 228, 50, 1.98, 80, 3350, 989, 450),
    "h200": Gpu("NVIDIA H200", (9, 0), 132, 128, 2048, 228, 50, 1.98, 141, 4800, 989, 450),
    "a100": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 2048, 164, 40, 1.41, 80, 2039, 312, 300),
    "l4": Gpu("NVIDIA L4", (8, 9), 58, 128, 1536, 100, 48, 2.04, 24, 300, 121, 32),
}


def target(gpu: Gpu) -> str:
    """The text of XLA's `GpuTargetConfigProto`, for `topologies.get_topology_desc`.

    A driver or cuDNN is not there to ask: kernels are not tuned on the device, and what a newer
    library would do better is not used.
    """
    major, minor = gpu.capability
    kib = 2**10
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {48 * kib}
  shared_memory_per_core: {gpu.shared * kib}
  shared_memory_per_block_optin: {(gpu.shared - 1) * kib}
  threads_per_core_limit: {gpu.threads}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {gpu.bandwidth * 10**9}
  l2_cache_size: {gpu.cache * 2**20}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {gpu.memory * 10**9}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{gpu.name}"
"""
