"""The same workload on other systems, each with the best of several batch sizes."""

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from benchmarks import machine
from benchmarks.workloads import Workload

Runner = Callable[[], dict]  # gives the tokens drawn, and what else is to be told
Run = Callable[[list[list[int]], int], int]  # samples prompts in batches of a size; gives tokens
BATCH_SIZES = (8, 16, 32, 64)  # prompts


def make(name: str, workload: Workload) -> Runner:
    """A runner, with the best of some batch sizes: the first call tries all, on a part."""
    run = PEERS[name](workload)
    chosen: list[int] = []

    def runner() -> dict:
        if not chosen:
            chosen.append(best_size(workload.prompts[: max(BATCH_SIZES)], run))
            return {}
        count = run(workload.prompts, chosen[0])
        memory = machine.peak_memory_gb()
        return {"tokens": count, "batch_size": chosen[0], "peak_memory_gb": memory}

    return runner


def best_size(prompts: list[list[int]], run: Run) -> int:
    """The size with the most tokens a second."""
    seconds = {}
    for size in (BATCH_SIZES[0], *BATCH_SIZES):  # the first once more, warm
        started = time.perf_counter()
        count = run(prompts, size)
        seconds[size] = (time.perf_counter() - started) / count
    return min(seconds, key=seconds.get)


def sorted_batches(prompts: list[list[int]], size: int) -> list[list[list[int]]]:
    """Prompts in batches of about equal lengths, the longest first."""
    prompts = sorted(prompts, key=len, reverse=True)
    return [prompts[i : i + size] for i in range(0, len(prompts), size)]


def torch_runner(workload: Workload) -> Run:
    """`generate` of transformers, with its cache."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count())
    model = transformers.T5ForConditionalGeneration.from_pretrained(workload.folder).eval()
    length = workload.max_new_tokens

    def run(prompts: list[list[int]], size: int) -> int:
        count = 0
        for batch in sorted_batches(prompts, size):
            longest = len(batch[0])
            ids = torch.tensor([p + [0] * (longest - len(p)) for p in batch])
            mask = torch.tensor([[1] * len(p) + [0] * (longest - len(p)) for p in batch])
            with torch.inference_mode():
                made = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    do_sample=True,
                    top_k=50,
                    num_return_sequences=workload.samples,
                    max_new_tokens=length,
                    min_new_tokens=length if workload.exact else None,
                )
            count += int((made[:, 1:] != 0).sum())
        return count

    return run


def ctranslate2_runner(workload: Workload) -> Run:
    """`translate_batch`, which splits and sorts by itself and leaves rows that have ended out."""
    import ctranslate2
    import transformers

    folder = str(workload.folder) + "-ctranslate2"

    class Converter(ctranslate2.converters.TransformersConverter):
        """Does not scale outputs as a tied head's, for which transformers 5 gives it cause."""

        def load_model(self, *args: Any, **kwargs: Any) -> Any:
            model = super().load_model(*args, **kwargs)
            model.config.tie_word_embeddings = False
            return model

    if not pathlib.Path(folder).exists():
        Converter(str(workload.folder)).convert(folder)
    translator = ctranslate2.Translator(
        folder, device="cpu", compute_type="float32", intra_threads=os.cpu_count(), inter_threads=1
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(workload.folder)
    length = workload.max_new_tokens

    def run(prompts: list[list[int]], size: int) -> int:
        # Sampling gives one output a prompt, so each prompt is there as often as it has samples.
        results = translator.translate_batch(
            [
                tokens
                for p in prompts
                for tokens in [tokenizer.convert_ids_to_tokens(p)] * workload.samples
            ],
            beam_size=1,
            sampling_topk=50,
            sampling_temperature=1.0,
            max_batch_size=size,
            max_decoding_length=length,
            min_decoding_length=length if workload.exact else 1,
            return_end_token=True,
        )
        return sum(len(result.hypotheses[0]) for result in results)

    return run


PEERS: dict[str, Callable[[Workload], Run]] = {
    "torch": torch_runner,
    "ctranslate2": ctranslate2_runner,
}
