"""The same workload on other systems, each with the best of several batch sizes."""

import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable

from benchmarks.workloads import Workload

Runner = Callable[[], tuple[int, dict]]
BATCH_SIZES = (16, 32, 64)  # prompts


def make(name: str, workload: Workload, flax_python: str) -> dict[str, Runner]:
    """The runner of a system, by the name it is reported under."""
    if name == "torch":
        return {"Transformers (torch)": best(torch_runner(workload))}
    if name == "ctranslate2":
        return {"CTranslate2": best(ctranslate2_runner(workload))}
    if name == "flax":
        return {"FlaxT5 (jit)": flax_runner(workload, flax_python)}
    raise ValueError(f"expected torch, ctranslate2 or flax; found {name!r}")


def best(run: Callable[[int], int]) -> Runner:
    """The first call tries all batch sizes; the following take the fastest."""
    chosen: list[int] = []

    def runner() -> tuple[int, dict]:
        if not chosen:
            seconds = {}
            run(BATCH_SIZES[0])
            for size in BATCH_SIZES:
                started = time.perf_counter()
                count = run(size)
                seconds[size] = (time.perf_counter() - started) / count
            chosen.append(min(seconds, key=seconds.get))
        return run(chosen[0]), {"batch_size": chosen[0]}

    return runner


def sorted_batches(workload: Workload, size: int) -> list[list[list[int]]]:
    """Prompts in batches of about equal lengths, the longest first."""
    prompts = sorted(workload.prompts, key=len, reverse=True)
    return [prompts[i : i + size] for i in range(0, len(prompts), size)]


def torch_runner(workload: Workload) -> Callable[[int], int]:
    """`generate` of transformers, with its cache."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count())
    model = transformers.T5ForConditionalGeneration.from_pretrained(workload.folder).eval()
    length = workload.max_new_tokens

    def run(size: int) -> int:
        count = 0
        for batch in sorted_batches(workload, size):
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


def ctranslate2_runner(workload: Workload) -> Callable[[int], int]:
    """`translate_batch`, which splits and sorts by itself and leaves rows that have ended out."""
    import ctranslate2
    import transformers

    folder = str(workload.folder) + "-ctranslate2"
    if not pathlib.Path(folder).exists():
        ctranslate2.converters.TransformersConverter(str(workload.folder)).convert(folder)
    translator = ctranslate2.Translator(
        folder, device="cpu", compute_type="float32", intra_threads=os.cpu_count(), inter_threads=1
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(workload.folder)
    prompts = [tokenizer.convert_ids_to_tokens(prompt) for prompt in workload.prompts]
    length = workload.max_new_tokens

    def run(size: int) -> int:
        # Sampling gives one output a prompt, so each prompt is there as often as it has samples.
        results = translator.translate_batch(
            [prompt for prompt in prompts for _ in range(workload.samples)],
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


def flax_runner(workload: Workload, python: str) -> Runner:
    """FlaxT5 of transformers 4, in a process of its own that times itself on request."""
    program = pathlib.Path(__file__).with_name("flax_peer.py")
    request = {
        "folder": str(workload.folder),
        "batches": sorted_batches(workload, 64),
        "samples": workload.samples,
        "max_new_tokens": workload.max_new_tokens,
        "exact": workload.exact,
    }
    process = subprocess.Popen(
        [python, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()

    def run() -> tuple[int, dict]:
        process.stdin.write("run\n")
        process.stdin.flush()
        return int(process.stdout.readline()), {"batch_size": 64}

    return run
