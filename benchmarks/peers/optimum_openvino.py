"""`generate` of optimum's OpenVINO models, in float32."""

from optimum.intel import OVModelForSeq2SeqLM

from benchmarks.peers.torch_generate import sampler
from benchmarks.peers.work import Work
from benchmarks.peers.workers import Sample


def load(work: Work, workers: int, threads: int) -> Sample:
    """See `benchmarks.peers.workers`."""
    del workers
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
    }
    model = OVModelForSeq2SeqLM.from_pretrained(work.folder, export=True, ov_config=options)
    return sampler(model, work)
