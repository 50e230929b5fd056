"""OpenVINO, a stream for each worker, in our own loop."""

from collections.abc import Mapping

import numpy as np
import openvino

from benchmarks.peers import graphs, loop
from benchmarks.peers.work import Work
from benchmarks.peers.workers import Sample


class Engine:
    """See `loop.Engine`."""

    def __init__(self, encoder: str, step: str, dtype: str, streams: int, threads: int) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": dtype,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
        }
        core = openvino.Core()
        self._encoder, self._step = (
            core.compile_model(file, "CPU", options) for file in (encoder, step)
        )

    def encode(self, ids_PxS: np.ndarray, mask_PxS: np.ndarray) -> dict[str, np.ndarray]:
        """See `loop.Engine`."""
        request = self._encoder.create_infer_request()
        request.infer({"ids": ids_PxS, "mask": mask_PxS})
        # The arrays are the request's memory, which it must not take with it.
        return {
            name: request.get_tensor(name).data.copy()
            for output in self._encoder.outputs
            for name in output.names
        }

    def step(self) -> "Step":
        """See `loop.Engine`."""
        return Step(self._step)


class Step:
    """See `loop.Step`."""

    def __init__(self, model: openvino.CompiledModel) -> None:
        self._request = model.create_infer_request()
        self._outputs = [output.any_name for output in model.outputs]

    def bind(self, arrays: Mapping[str, np.ndarray]) -> None:
        """See `loop.Step`."""
        for name, array in arrays.items():
            self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def run(self) -> dict[str, np.ndarray]:
        """See `loop.Step`."""
        self._request.infer()
        return {name: self._request.get_tensor(name).data for name in self._outputs}


def load(work: Work, workers: int, threads: int) -> Sample:
    """See `benchmarks.peers.workers`."""
    encoder, step, bias = graphs.export(work.folder)
    engine = Engine(str(encoder), str(step), work.dtype, workers, threads)
    return loop.sampler(engine, work, bias.numpy())
