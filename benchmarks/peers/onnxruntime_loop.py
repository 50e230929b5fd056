"""ONNX Runtime with I/O binding, in our own loop."""

from collections.abc import Mapping

import numpy as np
import onnxruntime

from benchmarks.peers import graphs, loop
from benchmarks.peers.work import Work
from benchmarks.peers.workers import Sample


class Engine:
    """See `loop.Engine`."""

    def __init__(self, encoder: str, step: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._encoder, self._step = (
            onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            for file in (encoder, step)
        )

    def encode(self, ids_PxS: np.ndarray, mask_PxS: np.ndarray) -> dict[str, np.ndarray]:
        """See `loop.Engine`."""
        made = self._encoder.run(None, {"ids": ids_PxS, "mask": mask_PxS})
        return dict(zip((o.name for o in self._encoder.get_outputs()), made, strict=True))

    def step(self) -> "Step":
        """See `loop.Engine`."""
        return Step(self._step)


class Step:
    """See `loop.Step`. Inputs and outputs are arrays of numpy, in place."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session, self._binding = session, session.io_binding()
        self._made: dict[str, np.ndarray] = {}

    def bind(self, arrays: Mapping[str, np.ndarray]) -> None:
        """See `loop.Step`."""
        for name, array in arrays.items():
            self._binding.bind_cpu_input(name, array)
        for name, array in arrays.items():
            if name == "tokens":
                self._give("next", array.shape, array.dtype)
            elif name.startswith("own"):
                rows, heads, _, width = array.shape
                self._give(name.replace("own", "new"), (rows, heads, 1, width), array.dtype)

    def _give(self, name: str, shape: tuple[int, ...], kind: np.dtype) -> None:
        """Memory for an output, where it has none of that shape."""
        if name not in self._made or self._made[name].shape != shape:
            made = self._made[name] = np.empty(shape, kind)
            self._binding.bind_output(name, "cpu", 0, kind, shape, made.ctypes.data)

    def run(self) -> dict[str, np.ndarray]:
        """See `loop.Step`."""
        self._session.run_with_iobinding(self._binding)
        return self._made


def load(work: Work, workers: int, threads: int) -> Sample:
    """See `benchmarks.peers.workers`."""
    del workers
    encoder, step, bias = graphs.export(work.folder)
    return loop.sampler(Engine(str(encoder), str(step), threads), work, bias.numpy())
