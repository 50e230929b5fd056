"""`translate_batch` of CTranslate2, which makes batches by itself and leaves ended rows out."""

import pathlib
from typing import Any

import ctranslate2
import transformers

from benchmarks.peers.settings import Settings
from benchmarks.peers.work import Work
from benchmarks.peers.workers import Run


class Converter(ctranslate2.converters.TransformersConverter):
    """Does not scale outputs as a tied head's, for which transformers 5 gives it cause."""

    def load_model(self, *args: Any, **kwargs: Any) -> Any:
        """The model, with a head of its own."""
        model = super().load_model(*args, **kwargs)
        model.config.tie_word_embeddings = False
        return model


def load(work: Work, workers: int, threads: int) -> Run:
    """See `benchmarks.peers.workers`."""
    folder = f"{work.folder}-ctranslate2"
    if not pathlib.Path(folder).exists():
        Converter(work.folder).convert(folder)
    translator = ctranslate2.Translator(
        folder,
        device="cpu",
        compute_type=work.dtype,
        inter_threads=workers,
        intra_threads=threads,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(work.folder)

    def run(prompts: list[list[int]], settings: Settings) -> int:
        # Each prompt has all its samples as hypotheses, or is there as often as it has samples.
        hypotheses = work.samples if settings.encode_once else 1
        results = translator.translate_batch(
            [
                tokens
                for prompt in prompts
                for tokens in [tokenizer.convert_ids_to_tokens(prompt)]
                * (work.samples // hypotheses)
            ],
            beam_size=1,
            num_hypotheses=hypotheses,
            sampling_topk=50,
            sampling_temperature=1.0,
            max_batch_size=settings.batch,
            max_decoding_length=work.max_new_tokens,
            min_decoding_length=work.max_new_tokens if work.exact else 0,
            return_end_token=True,
        )
        return sum(len(tokens) for result in results for tokens in result.hypotheses)

    return run
