"""`generate` of transformers, with its cache. It encodes a prompt once for all its samples."""

from typing import Any

import torch
import transformers

from benchmarks.peers.work import Work, pad
from benchmarks.peers.workers import Sample


def load(work: Work, workers: int, threads: int) -> Sample:
    """See `benchmarks.peers.workers`."""
    del workers
    torch.set_num_threads(threads)
    model = transformers.T5ForConditionalGeneration.from_pretrained(work.folder, dtype=work.dtype)
    model.eval()
    return sampler(model, work)


def sampler(model: Any, work: Work) -> Sample:
    """By the `generate` of a model that takes torch's tensors."""

    def sample(batch: list[list[int]]) -> int:
        ids = torch.tensor(pad(batch))
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids,
                attention_mask=(ids != 0).long(),
                do_sample=True,
                top_k=50,
                temperature=1.0,
                num_return_sequences=work.samples,
                max_new_tokens=work.max_new_tokens,
                min_new_tokens=work.max_new_tokens if work.exact else None,
            )[:, 1:]
        return made.numel() if work.exact else int((made != 0).sum())

    return sample
