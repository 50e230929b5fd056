"""Hugging Face folders in and out: config.json, safetensors, tokenizer; no torch needed.

Known trap: Transformers 5 reports every T5 as tied, so tying is read off the weights (is there an
`lm_head.weight`?) and scaling off the raw config.json.
"""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from absl import logging
from tokenizers.models import Unigram

from hir_jax.errors import UserError
from hir_jax.model import t5, weight_files
from hir_jax.model.config import Params, T5Config
from hir_jax.model.folder import check_code, read_json
from hir_jax.model.hub import first_line
from hir_jax.model.names import ALIASES, Path, at, embedding_name, name_table, put
from hir_jax.model.raw_config import CLASSES, GENERATION, parse_config, read_raw_config
from hir_jax.model.weight_files import DTYPES, INDEX, WEIGHTS

# Files of tokenizers, of which one must be there; a ByT5 has none.
TOKENIZERS = ("tokenizer.json", "spiece.model", "tokenizer.model", "merges.txt")
SHARD_BYTES = 5 * 2**30


def read_config(folder: pathlib.Path, dtype: str = "float32") -> T5Config:
    """The model's shape, from config.json and the names of the weights."""
    names = weight_files.find(folder)
    has_head = weight_files.have_head(names)
    raw = read_raw_config(folder)
    config = parse_config(raw, folder, dtype, has_head)
    if (layers := config.num_layers + config.num_decoder_layers) > len(names):
        raise UserError(
            f"{folder}: config.json speaks of {layers} layers, the weights are only {len(names)}. "
            "Give config.json and weights of one and the same model."
        )
    if raw.get("tie_word_embeddings") is False and not has_head:
        logging.warning(
            "%s: config.json has tie_word_embeddings false, and yet there is no %s beside the "
            "embedding, which is taken for the head, as transformers does. Where the model had a "
            "head of its own, copy all of its weights.",
            *(folder, weight_files.HEAD),
        )
    return config


def load_params(
    folder: pathlib.Path,
    config: T5Config,
    place: Callable[[Path, np.ndarray], Any] = lambda path, array: array,
) -> Params:
    """Parameters from safetensors or pickles, in one file or several with an index, as float32.

    Args:
        folder: the model's folder.
        config: from `read_config`.
        place: called on every (path in the tree, array) as it is read, so that a leaf may go to
            its devices before the next is read.

    Raises:
        UserError: no weights, a damaged file, or weights that do not fit `config`; every
            missing, misshapen and unknown weight is listed.
    """
    files = weight_files.find(folder)
    weight_files.warn_of_others(folder, files)
    embedding = embedding_name(files)
    table = name_table(config, embedding)
    shapes = t5.abstract_params(config)
    faults: list[str] = []
    found: set[str] = set()
    params: Params = {}
    for file in sorted(set(files.values())):
        with weight_files.opened(file) as weights:
            for name in weights.keys():  # noqa: SIM118 (not a dict)
                if name in found:
                    faults.append(f"in two files: {name}")
                found.add(name)
                if name not in table:
                    continue
                path, transpose = table[name]
                expected = at(shapes, path).shape
                expected = expected[::-1] if transpose else expected
                stored = weights.get_slice(name)
                shape, dtype = tuple(stored.get_shape()), stored.get_dtype()
                if dtype not in DTYPES:
                    faults.append(f"mistyped: {name}: expected {', '.join(DTYPES)}, found {dtype}")
                if shape != expected:
                    faults.append(f"misshapen: {name}: expected {expected}, found {shape}")
                if faults:  # the load has failed; go on only to list the rest
                    continue
                # NumPy knows bfloat16 through ml_dtypes, which jax imports.
                array = weights.get_tensor(name).astype(np.float32)
                put(params, path, place(path, array.T if transpose else array))
    if prefix := _prefix(found, table):
        raise UserError(
            f"{folder}: expected weights by the names that transformers gives them, such as "
            f"{embedding}, found {prefix}{embedding}: all have {prefix!r} before them, as when a "
            "model inside another is saved. Save the inner one by its save_pretrained, or take "
            "that off the names."
        )
    faults += [f"missing: {name}" for name in table if name not in found]
    faults += [f"unknown: {name}" for name in sorted(found - table.keys() - ALIASES)]
    faults += [f"another embedding: {name}" for name in weight_files.second_embeddings(files)]
    if faults:
        raise UserError(
            f"{folder}: the weights do not fit its config.json; {len(faults)} faults:\n  "
            + "\n  ".join(faults)
            + "\nGive config.json and weights of one and the same model."
        )
    return params


def _prefix(found: set[str], table: Collection[str]) -> str:
    """What stands before the name of every weight in the table; "" where nothing does."""
    some = next(iter(table))
    prefixes = (name.removesuffix(some) for name in found - {some} if name.endswith(f".{some}"))
    return next((p for p in prefixes if {f"{p}{name}" for name in table} <= found), "")


def load_tokenizer(folder: pathlib.Path, config: T5Config | None = None) -> Any:
    """The folder's tokenizer; checked against the size of the model's vocabulary, if one is given.

    Raises:
        UserError: there is none, it does not load or asks for code, or it belongs to a larger
            vocabulary.
    """
    file = folder / "tokenizer_config.json"
    own = read_json(file)
    check_code(file, own)
    kind = own.get("tokenizer_class") or read_json(folder / "config.json").get("tokenizer_class")
    found = [name for name in TOKENIZERS if (folder / name).is_file()]
    # Looked for here, since transformers makes up an empty tokenizer where it finds no file.
    if not found and kind != "ByT5Tokenizer":
        raise UserError(
            f"{folder}: expected a tokenizer ({', '.join(TOKENIZERS)}) beside the weights, found "
            "none. Copy the tokenizer's files from where the model came from."
        )
    import transformers  # here, since it is slow to import

    loader = transformers.AutoTokenizer
    if not found:
        loader = transformers.ByT5Tokenizer
    elif found == ["spiece.model"]:  # to which Transformers 5 finds no way from a UMT5
        loader = transformers.T5Tokenizer
    try:
        tokenizer = _mended(loader.from_pretrained(folder, trust_remote_code=False), config)
    except Exception as e:
        if found and found[0].endswith(".model"):  # transformers would send people to tiktoken
            raise UserError(
                f"{folder}: expected a {TOKENIZERS[0]}, found {found[0]} alone, which could not be "
                "read. It needs a package besides: pip install 'hir_jax[sentencepiece]'; where "
                "that is there, download the file again."
            ) from e
        raise UserError(
            f"{folder}: expected a tokenizer that transformers can load; loading it failed "
            f"({first_line(e)}). A whole tokenizer.json suffices; where it is of another kind "
            'than T5\'s, put a tokenizer_config.json beside it: {"tokenizer_class": '
            '"PreTrainedTokenizerFast"}.'
        ) from e
    # Not its length: ids may have gaps.
    if config and (last := max(tokenizer.get_vocab().values(), default=0)) >= config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has pieces up to number {last}, the model only "
            f"{config.vocab_size} embeddings; they belong to different models. Copy the tokenizer "
            "from where the model came from."
        )
    return tokenizer


def _mended(tokenizer: Any, config: T5Config | None) -> Any:
    """A tokenizer with an unknown token, EOS and pad, where its files only imply which they are."""
    unknown = tokenizer.unk_token_id
    if type(tokenizer).__name__ == "T5Tokenizer" and unknown not in (None, 2):
        # Transformers 5 has T5's id 2 always, MADLAD-400's EOS.
        backend = tokenizer.backend_tokenizer
        vocabulary = json.loads(backend.to_str())["model"]["vocab"]
        backend.model = Unigram([tuple(piece) for piece in vocabulary], unknown)
    if unknown is None and tokenizer.is_fast:
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        name = model.get("unk_token")
        if model["type"] == "Unigram" and model["unk_id"] is not None:
            name = model["vocab"][model["unk_id"]][0]
        if name in tokenizer.get_vocab():
            tokenizer.unk_token = name
    ids = {"eos_token": config.eos_token_id, "pad_token": config.pad_token_id} if config else {}
    for role, id in ids.items():
        token = tokenizer.added_tokens_decoder.get(id)
        if getattr(tokenizer, role) is None and token is not None and token.special:
            setattr(tokenizer, role, token.content)
    return tokenizer


def export(
    folder: pathlib.Path,
    params: Params,
    config: T5Config,
    tokenizer: Any,
    raw_config: dict[str, Any],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a folder that `transformers` loads: configs, safetensors (float32), tokenizer.

    It is whole, or not there.

    Args:
        folder: made if absent; must hold no other files.
        params: the parameters, on any devices.
        config: the model's shape.
        tokenizer: from `load_tokenizer`.
        raw_config: config.json of the model it came from; fields that we do not know are kept.
        shard_bytes: weights beyond this go to several files with an index.

    Raises:
        UserError: the folder exists and is not empty, or cannot be made.
    """
    with new_folder(folder) as aside:
        write(aside, params, config, tokenizer, raw_config, shard_bytes)


@contextlib.contextmanager
def new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside `folder` to write to, which takes its place once all is written.

    Raises:
        UserError: `folder` exists and is not empty, or it cannot be made.
    """
    check_new(folder)
    aside = folder.with_name(f"{folder.name}.part-{secrets.token_hex(4)}")
    try:
        aside.mkdir(parents=True)
    except OSError as e:
        raise UserError(f"export: cannot make the folder {folder}: {e.strerror}.") from e
    try:
        yield aside
        check_new(folder)
        aside.replace(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def write(
    folder: pathlib.Path,
    params: Params,
    config: T5Config,
    tokenizer: Any,
    raw_config: dict[str, Any],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes the files of `export` into a folder that is there."""
    raw = raw_config | {
        "architectures": [CLASSES[raw_config.get("model_type", "t5")]],
        "torch_dtype": "float32",
        "tie_word_embeddings": config.tie_lm_head,
        "scale_decoder_outputs": config.scale_decoder_outputs,
    }
    for name in ("dtype", "transformers_weights"):  # of the files that it was read from
        raw.pop(name, None)
    generation = raw.pop(GENERATION, {"_from_model_config": True})
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    ids = ("decoder_start_token_id", "eos_token_id", "forced_bos_token_id", "pad_token_id")
    known = {name: id for name in ids if (id := getattr(config, name)) is not None}
    generation = generation | known
    if config.other_eos_ids:
        generation["eos_token_id"] = [config.eos_token_id, *config.other_eos_ids]
    text = json.dumps(generation, indent=2) + "\n"
    (folder / f"{GENERATION}.json").write_text(text, encoding="utf-8")
    tokenizer.save_pretrained(folder)
    shards: list[list[str]] = [[]]
    sizes: dict[str, int] = {}
    table = name_table(config)
    for name, (path, _) in table.items():
        sizes[name] = at(params, path).size * 4
        if shards[-1] and sum(sizes[n] for n in shards[-1]) + sizes[name] > shard_bytes:
            shards.append([])
        shards[-1].append(name)
    index = {}
    for i, names in enumerate(shards):
        file = WEIGHTS if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        arrays = {}
        for name in names:
            path, transpose = table[name]
            array = np.asarray(jax.device_get(at(params, path)), np.float32)
            arrays[name] = np.ascontiguousarray(array.T if transpose else array)
            index[name] = file
        (folder / file).write_bytes(safetensors.numpy.save(arrays, metadata={"format": "pt"}))
    if len(shards) > 1:
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index}
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_new(folder: pathlib.Path) -> None:
    """Raises UserError if the folder exists and is not empty."""
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"export: expected a new or empty folder, found {folder}, which is not. "
            "Give another folder, or move what is there away."
        )
