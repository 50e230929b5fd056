"""Records the golden files that parity tests read: tiny random T5s and what torch makes of them.

Run from the repository's root, where torch and transformers 5 are installed:

    python -m tests.golden.record

Each folder beside this file then holds a model in Hugging Face layout and `expected.npz`; of the
models in `families`, which draws their weights, `families/` holds the latter alone.
"""

import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from transformers.models.t5 import modeling_t5

from tests.golden import families

torch.set_num_threads(1)  # for models this small, threads only wait for each other

FOLDER = pathlib.Path(__file__).parent
BASE = {
    "vocab_size": 96,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
V1_0 = BASE | {"feed_forward_proj": "relu"}
V1_1 = BASE | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
TINY = {"vocab_size": 12, "d_model": 8, "d_kv": 2, "d_ff": 8, "num_layers": 1, "num_heads": 2}
VARIANTS = {
    "v1_0": V1_0,
    "v1_1": V1_1,
    "deep_decoder": V1_1 | {"num_decoder_layers": 3},
    "wide_heads": V1_0 | {"d_kv": 6},  # num_heads * d_kv != d_model
    "tiny_v1_0": V1_0 | TINY,
    "tiny_v1_1": V1_1 | TINY,
}
# Folder -> variant, the type its weights are stored in, the largest file.
RECORDED = {
    "v1_0": ("v1_0", torch.float32, "1GB"),
    "v1_1": ("v1_1", torch.float32, "1GB"),
    "v1_0_float16": ("v1_0", torch.float16, "1GB"),
    "v1_1_bfloat16": ("v1_1", torch.bfloat16, "1GB"),
    "deep_decoder_sharded": ("deep_decoder", torch.float32, "30KB"),
    "wide_heads": ("wide_heads", torch.float32, "1GB"),
}
# Models of files that torch pickles: folder -> variant, type, since torch 1.6 or before, files.
PICKLED = {
    "pickle_zip": ("tiny_v1_0", torch.float32, True, 1),
    "pickle_legacy": ("tiny_v1_1", torch.bfloat16, False, 1),
    "pickle_sharded": ("tiny_v1_1", torch.float16, True, 2),
}
WITH_BEAMS = ("v1_0", "v1_1")
SEED = 0
SOURCE_LENGTHS = (144, 40, 7, 1)  # the first is beyond relative_attention_max_distance
TARGET_LENGTHS = (12, 9, 2, 1)
NEW_TOKENS = 64
# Beam search: width, length penalty, early stopping; and whether it is among given outputs.
SEARCHES = (
    (4, 1.0, False, False),
    (4, 0.0, "never", False),
    (4, 2.0, True, False),
    (4, -1.0, False, False),
    (4, 0.6, "never", False),
    (2, 1.0, True, False),
    (4, 1.0, False, True),
    (4, 0.5, "never", True),
)
SEARCHED = (24, 17, 5, 1)  # source lengths
SEARCH_TOKENS = 10
ALLOWED = 12  # given outputs of each source, or fewer where some are equal
LEAST_GAP = 5e-4  # between the two best logits of a step; rounding moves them by some 1e-5


def build(variant: str, seed: int) -> transformers.T5ForConditionalGeneration:
    """A random model whose every weight matters (norms are not 1, position biases not 0)."""
    torch.manual_seed(seed)
    config = transformers.T5Config(**VARIANTS[variant])
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 3 if "relative_attention_bias" in name else 0.2
            parameter.add_(noise * torch.randn_like(parameter))
        # Small embeddings keep a greedy output from repeating its last token for ever.
        model.shared.weight.mul_(0.2)
        if config.scale_decoder_outputs:
            model.decoder.final_layer_norm.weight.mul_(10)  # or a tied head's logits were as small
        else:
            # Transformers 5 makes every T5 tied; v1.1 has a head of its own.
            head = torch.randn(config.vocab_size, config.d_model) / 2
            model.lm_head.weight = torch.nn.Parameter(head)
    return model


@torch.no_grad()
def reference(model: transformers.PreTrainedModel, seed: int) -> dict[str, np.ndarray]:
    """Random inputs, padding included, and the outputs that any T5 with these weights must give."""
    rng = np.random.default_rng(seed)
    config = model.config
    source, source_mask = _ragged(rng, SOURCE_LENGTHS, config.vocab_size)
    target, target_mask = _ragged(rng, TARGET_LENGTHS, config.vocab_size)
    target[np.arange(len(target)), np.array(TARGET_LENGTHS) - 1] = config.eos_token_id
    prompt = {
        "input_ids": torch.tensor(source),
        "attention_mask": torch.tensor(source_mask, dtype=torch.long),
    }
    logits = model(**prompt, labels=torch.tensor(target)).logits
    logprobs = torch.log_softmax(logits, -1).gather(-1, torch.tensor(target)[..., None])[..., 0]
    tokens = _greedy(model, prompt, None)
    best = model(**prompt, labels=tokens).logits.topk(2)
    gap = (best.values[..., 0] - best.values[..., 1]).min().item()
    if gap < LEAST_GAP:
        raise ValueError(f"two best logits only {gap:.1e} apart: choose another seed than {seed}")
    eos_id, *others = _scattered_tokens(tokens.numpy(), config.vocab_size)
    return {
        "source": source,
        "source_mask": source_mask,
        "target": target,
        "target_mask": target_mask,
        "logits": logits.numpy(),
        "logprob": (logprobs.numpy() * target_mask).sum(-1),
        "tokens": tokens.numpy(),
        "eos_id": np.array(eos_id),
        "tokens_to_eos": _greedy(model, prompt, eos_id).numpy(),
        "eos_ids": np.array([eos_id, *others]),
        "tokens_to_any_eos": _greedy(model, prompt, [eos_id, *others]).numpy(),
    }


def pickle(model: transformers.T5ForConditionalGeneration, folder: pathlib.Path, *how: int) -> None:
    """Writes a model as transformers did before safetensors; `how`: see `PICKLED`."""
    new, count = how
    model.config.save_pretrained(folder)
    state = model.state_dict()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=bool(new))
    if count == 1:
        return
    (folder / "pytorch_model.bin").unlink()
    names, weight_map = list(state), {}
    for i in range(count):
        file = f"pytorch_model-{i + 1:05}-of-{count:05}.bin"
        part = {name: state[name] for name in names[i::count]}
        torch.save(part, folder / file, _use_new_zipfile_serialization=bool(new))
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")


def family_reference(name: str) -> dict[str, np.ndarray]:
    """The same for a model of `families`, as transformers reads its folder."""
    with tempfile.TemporaryDirectory() as folder:
        families.write(name, pathlib.Path(folder))
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype="float32")
    return reference(model.eval(), SEED)


@torch.no_grad()
def beams(model: transformers.T5ForConditionalGeneration, seed: int) -> dict[str, np.ndarray]:
    """What `generate` finds in each search of `SEARCHES`: all beams' tokens, and their scores."""
    rng = np.random.default_rng(seed)
    source, source_mask = _ragged(rng, SEARCHED, BASE["vocab_size"])
    prompt = {
        "input_ids": torch.tensor(source),
        "attention_mask": torch.tensor(source_mask, dtype=torch.long),
    }
    without_end, _ = _search(model, prompt, None, 4, 1.0, False, None)
    eos_id = _scattered_tokens(without_end, BASE["vocab_size"])[0]
    allowed = _given_outputs(rng, eos_id)
    sets = [{tuple(output[output > 0].tolist()) for output in own} for own in allowed]
    found = {}
    for i, (width, penalty, early, among) in enumerate(SEARCHES):
        only = sets if among else None
        tokens, scores = _search(model, prompt, eos_id, width, penalty, early, only)
        found |= {f"tokens_{i}": tokens, f"scores_{i}": scores}
    return found | {
        "source": source,
        "source_mask": source_mask,
        "eos_id": np.array(eos_id),
        "allowed": allowed,
    }


def _given_outputs(rng: np.random.Generator, eos_id: int) -> np.ndarray:
    """`ALLOWED` outputs of each source, of few tokens: they begin alike, or one goes on another."""
    few = [token for token in range(2, 8) if token != eos_id]
    given = np.zeros((len(SEARCHED), ALLOWED, SEARCH_TOKENS), int)
    for output in given.reshape(-1, SEARCH_TOKENS):
        length = rng.integers(1, SEARCH_TOKENS)
        output[:length] = rng.choice(few, length)
        output[length] = eos_id
    return given


def _search(
    model: transformers.T5ForConditionalGeneration,
    prompt: dict[str, torch.Tensor],
    eos_id: int | None,
    width: int,
    length_penalty: float,
    early_stopping: bool | str,
    sets: list[set[tuple[int, ...]]] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The new tokens of all beams, row by row, and their scores."""

    def may_follow(row: int, tokens: torch.Tensor) -> list[int]:
        begun = tuple(tokens[1:].tolist())
        count = len(begun)
        return [o[count] for o in sets[row] if o[:count] == begun and len(o) > count] or [eos_id]

    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        num_beams=width,
        num_return_sequences=width,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        max_new_tokens=SEARCH_TOKENS,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=eos_id,
    )
    found = model.generate(
        **prompt,
        return_dict_in_generate=True,
        output_scores=True,
        prefix_allowed_tokens_fn=sets and may_follow,
    )
    return found.sequences[:, 1:].numpy(), found.sequences_scores.numpy()


def torch_buckets(bidirectional: bool) -> np.ndarray:
    """Buckets of the distances -300..300, with the usual 32 buckets up to 128."""
    distances = torch.arange(-300, 301)
    bucket = modeling_t5.T5Attention._relative_position_bucket
    return bucket(distances, bidirectional, num_buckets=32, max_distance=128).numpy()


def _ragged(
    rng: np.random.Generator, lengths: tuple[int, ...], vocabulary: int
) -> tuple[np.ndarray, np.ndarray]:
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return rng.integers(2, vocabulary, mask.shape) * mask, mask


def _greedy(
    model: transformers.PreTrainedModel,
    prompt: dict[str, torch.Tensor],
    eos_id: int | list[int] | None,
) -> torch.Tensor:
    """The new tokens, without the start token."""
    # The model's own config would fill in its EOS where none is asked for.
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        decoder_start_token_id=model.config.decoder_start_token_id,
        pad_token_id=model.config.pad_token_id,
        forced_bos_token_id=model.generation_config.forced_bos_token_id,
        eos_token_id=eos_id,
    )
    # Left alone, transformers 5 sizes the cache by num_layers: too small for a deeper decoder.
    cache = transformers.EncoderDecoderCache(
        transformers.DynamicCache(), transformers.DynamicCache()
    )
    tokens = model.generate(**prompt, past_key_values=cache)
    return tokens[:, 1:].contiguous()


def _scattered_tokens(tokens: np.ndarray, vocabulary: int) -> list[int]:
    """The two tokens at which, taken as EOS, the rows would end at the most different steps."""

    def ends(token: int) -> int:
        return len({row.tolist().index(token) for row in tokens if token in row})

    return sorted(range(1, vocabulary), key=ends, reverse=True)[:2]


def main() -> None:
    """Writes all golden folders."""
    for name, (variant, dtype, shard) in RECORDED.items():
        folder = FOLDER / name
        build(variant, SEED).to(dtype).save_pretrained(folder, max_shard_size=shard)
        (folder / "generation_config.json").unlink()
        model = transformers.T5ForConditionalGeneration.from_pretrained(folder, dtype="float32")
        np.savez_compressed(folder / "expected.npz", **reference(model.eval(), SEED))
    for name, (variant, dtype, *how) in PICKLED.items():
        model = build(variant, SEED).to(dtype)
        pickle(model, FOLDER / name, *how)
        # As safetensors have it: each matrix once.
        model.save_pretrained(FOLDER / name / "expected")
        (FOLDER / name / "expected" / "generation_config.json").unlink()
    families.FOLDER.mkdir(exist_ok=True)
    for name in families.FAMILIES:
        expected = family_reference(name)
        del expected["eos_id"], expected["tokens_to_eos"]
        np.savez_compressed(families.FOLDER / f"{name}.npz", **expected)
        if name in WITH_BEAMS:
            np.savez_compressed(folder / "beams.npz", **beams(model, SEED))
    np.savez_compressed(
        FOLDER / "relative_buckets.npz",
        both_ways=torch_buckets(True).astype(np.int8),
        backwards=torch_buckets(False).astype(np.int8),
    )


if __name__ == "__main__":
    main()
