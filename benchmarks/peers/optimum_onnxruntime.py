"""`generate` of optimum's ONNX Runtime models."""

import onnxruntime
from optimum.onnxruntime import ORTModelForSeq2SeqLM

from benchmarks.peers.torch_generate import sampler
from benchmarks.peers.work import Work
from benchmarks.peers.workers import Sample


def load(work: Work, workers: int, threads: int) -> Sample:
    """See `benchmarks.peers.workers`."""
    del workers
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model = ORTModelForSeq2SeqLM.from_pretrained(
        work.folder, export=True, session_options=options, provider="CPUExecutionProvider"
    )
    return sampler(model, work)
