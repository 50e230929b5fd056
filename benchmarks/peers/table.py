"""All peers: how their workers run, and the settings that each is tried with."""

import dataclasses
from collections.abc import Callable, Mapping

from benchmarks.peers import workers
from benchmarks.peers.settings import Grid
from benchmarks.peers.work import Work
from benchmarks.peers.workers import Run

FLOAT32 = {"float32": "float32", "bfloat16": "float32"}


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another system.

    Attributes:
        module: of `benchmarks.peers`, with the function `load`.
        runs: what makes a `Run` of that; see `benchmarks.peers.workers`.
        grid: of settings.
        old: needs transformers 4.
        compiles: for each shape, which is left out of the comparison of settings.
        dtypes: its nearest to each of ours.
    """

    module: str
    runs: Callable[[str, Work, int, int], Run]
    grid: Grid = dataclasses.field(default_factory=Grid)
    old: bool = False
    compiles: bool = False
    dtypes: Mapping[str, str] = dataclasses.field(default_factory=lambda: FLOAT32)

    def start(self, work: Work, workers: int, threads: int) -> Run:
        """With a model loaded."""
        work = dataclasses.replace(work, dtype=self.dtypes[work.dtype])
        return self.runs(f"benchmarks.peers.{self.module}", work, workers, threads)


PEERS = {
    "torch": Peer(
        "torch_generate",
        workers.processes,
        dtypes={"float32": "float32", "bfloat16": "bfloat16"},
    ),
    "ctranslate2": Peer(
        "ctranslate2_translate",
        workers.alone,
        Grid(encode_once=(True, False)),
        dtypes={"float32": "float32", "bfloat16": "int8"},  # on CPUs it has no bfloat16
    ),
    "openvino": Peer(
        "openvino_loop", workers.threads, dtypes={"float32": "f32", "bfloat16": "bf16"}
    ),
    "onnxruntime": Peer("onnxruntime_loop", workers.threads),
    # With `generate` of their own, or of optimum.
    "flax": Peer(
        "flax_generate", workers.processes, Grid(batch=(16, 32, 64)), old=True, compiles=True
    ),
    "optimum_openvino": Peer("optimum_openvino", workers.processes, old=True),
    "optimum_onnxruntime": Peer("optimum_onnxruntime", workers.processes, old=True),
}
