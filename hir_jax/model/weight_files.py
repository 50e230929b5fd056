"""Which files of a folder hold a model's weights: those that `transformers` would take."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
from absl import logging

from hir_jax.errors import UserError
from hir_jax.model.folder import is_plain, read_json
from hir_jax.model.names import EMBEDDINGS
from hir_jax.model.torch_file import TorchFile

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLES_INDEX = "pytorch_model.bin.index.json"
ORDER = (WEIGHTS, INDEX, PICKLE, PICKLES_INDEX)  # the first that is there is taken
PATTERNS = (WEIGHTS, "model-*.safetensors")  # on the hub, beside *.json
PICKLE_PATTERNS = (PICKLE, "pytorch_model-*.bin")
DTYPES = ("F64", "F32", "F16", "BF16")  # of weights that are read
HEAD = "lm_head.weight"

# Weights in any form: whole, in parts, of a variant such as fp16, of another library.
_ANY_WEIGHTS = re.compile(
    r"(model|pytorch_model|tf_model|flax_model|rust_model)\b.*"
    r"\.(safetensors|bin|h5|msgpack|ot|gguf|onnx)(\.index.*\.json)?"
)
_PART = re.compile(r"(model|pytorch_model)-.*\.(safetensors|bin)")
_VARIANT = re.compile(r"(model|pytorch_model)\.[^.]+\.(safetensors|bin)")
_CONVERTIBLE = {"flax_model.msgpack": "flax", "tf_model.h5": "tensorflow"}
_LFS = b"version https://git-lfs"
_ROWS = 4096  # of two matrices, compared at a time

Files = Mapping[str, pathlib.Path]  # weight name -> the file that holds it


def are_there(folder: pathlib.Path) -> bool:
    """Whether the folder holds weights that could be read."""
    return _taken(folder) is not None


def find(folder: pathlib.Path) -> Files:
    """The weights of a folder, and the file that holds each.

    Raises:
        UserError: there are none, or they are in files that are missing, elsewhere or damaged.
    """
    name = _taken(folder)
    if name is None:
        raise _none(folder)
    if name.endswith(".json"):
        return _of_index(folder / name)
    with opened(folder / name) as weights:
        return dict.fromkeys(weights.keys(), folder / name)


def warn_of_others(folder: pathlib.Path, files: Files) -> None:
    """Says which weights lie beside those that are read, where there are any: one may be stale."""
    taken = folder / str(_taken(folder))
    read = {taken, *files.values()}
    beside = [file for file in sorted(folder.iterdir()) if _ANY_WEIGHTS.fullmatch(file.name)]
    others = [file for file in beside if file not in read and file.is_file()]
    if others:
        newer = [file.name for file in others if file.stat().st_mtime > taken.stat().st_mtime]
        logging.warning(
            "%s: weights are read from %s, as transformers does, and not from what lies beside it: "
            "%s%s. Remove what is not of this model.",
            *(folder, taken.name, _listed([file.name for file in others])),
            f" (newer: {_listed(newer)})" if newer else "",
        )


@contextlib.contextmanager
def opened(file: pathlib.Path) -> Iterator[Any]:
    """A file of weights, with `keys`, `get_slice` and `get_tensor`.

    Raises:
        UserError: it is damaged, cannot be read, or asks to run code.
    """
    try:
        with file.open("rb") as stream:
            is_pointer = stream.read(len(_LFS)) == _LFS
    except OSError as e:
        raise UserError(f"{file}: expected a file of weights, cannot read it: {e}.") from e
    if is_pointer:
        raise UserError(
            f"{file}: expected weights, found Git LFS's note of where they are. Run `git lfs pull` "
            "in its folder, or download the file itself."
        )
    if file.suffix != ".safetensors":
        yield TorchFile(file)
        return
    try:
        with safetensors.safe_open(file, framework="numpy") as weights:
            yield weights
    except safetensors.SafetensorError as e:
        raise UserError(
            f"{file}: expected a whole safetensors file, found a damaged one ({e}). "
            "Copy or download it again."
        ) from e


def have_head(files: Files) -> bool:
    """Whether the head's weights are not the embedding's; a pickle has a tied head too."""
    embedding = next((name for name in EMBEDDINGS if name in files), "")
    return HEAD in files and not (embedding and _are_same(files, HEAD, embedding))


def second_embeddings(files: Files) -> list[str]:
    """Embeddings of encoder or decoder that differ from the first; no T5 here has any."""
    first, *others = [name for name in EMBEDDINGS if name in files] or [HEAD]
    return [name for name in others if not _are_same(files, first, name)]


def _are_same(files: Files, one: str, other: str) -> bool:
    """Whether two weights are matrices of the same values; read no further than they are."""
    with opened(files[one]) as file, opened(files[other]) as other_file:
        if one not in file.keys() or other not in other_file.keys():  # noqa: SIM118 (not dicts)
            return False
        a, b = file.get_slice(one), other_file.get_slice(other)
        if files[one] == files[other] and a == b:  # the same numbers of a pickle
            return True
        shape = tuple(a.get_shape())
        if tuple(b.get_shape()) != shape or len(shape) != 2:
            return False
        if {a.get_dtype(), b.get_dtype()} - {*DTYPES}:
            return False
        rows = range(0, shape[0], _ROWS)
        parts = (slice(start, min(start + _ROWS, shape[0])) for start in rows)
        return all(np.array_equal(a[part], b[part]) for part in parts)


def _taken(folder: pathlib.Path) -> str | None:
    """The file that holds the weights, or lists those that do; None where there is none."""
    return next((name for name in _order(folder) if (folder / name).is_file()), None)


def _order(folder: pathlib.Path) -> tuple[str, ...]:
    """Names of such files, of which the first that is there is taken; of one, if config.json has it
    so."""
    named = read_json(folder / "config.json").get("transformers_weights")
    if named is not None and not (
        is_plain(named) and named.endswith((".safetensors", ".safetensors.index.json"))
    ):
        raise UserError(
            f"{folder / 'config.json'}: expected transformers_weights to name safetensors beside "
            f"it, found {named!r}. Remove the field, or name a file in the folder."
        )
    return ORDER if named is None else (named,)


def _of_index(index: pathlib.Path) -> Files:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict):
        raise UserError(
            f"{index}: expected JSON with a weight_map, found {names!r}. Download it again."
        )
    if out := [file for file in names.values() if not is_plain(file)]:
        raise UserError(
            f"{index}: expected names of files beside it, found {out[0]!r}. Download the model "
            "again, from whom you trust."
        )
    folder = index.parent
    absent = sorted({file for file in names.values() if not (folder / file).is_file()})
    if absent:
        raise UserError(
            f"{index} names files that are not there: {', '.join(absent)}. "
            "Copy or download them too."
        )
    files = {name: folder / file for name, file in names.items()}
    for file in sorted({*files.values()}):
        with opened(file) as weights:  # where a head may be that the index does not speak of
            files |= dict.fromkeys(weights.keys(), file)
    return files


def _none(folder: pathlib.Path) -> UserError:
    """What to do where there are no weights that can be read."""
    beside = sorted(file.name for file in folder.iterdir() if _ANY_WEIGHTS.fullmatch(file.name))
    expected = f"{folder}: expected {WEIGHTS} or {PICKLE}"
    if (named := _order(folder)) != ORDER:
        return UserError(
            f"{folder}: expected {named[0]}, which config.json has as transformers_weights, found "
            "none. Copy it there, or remove the field."
        )
    if (folder / "checkpoints").is_dir():
        return UserError(
            f"{expected}, found the workdir of a run. Export its model first, by --mode=export "
            f"--workdir={folder} --output=FOLDER, and give that folder."
        )
    if parts := [name for name in beside if _PART.fullmatch(name)]:
        return UserError(
            f"{expected}, found parts of one, {_listed(parts)}, but no index that says what is in "
            f"them. Copy {INDEX if parts[0].endswith('.safetensors') else PICKLES_INDEX} too."
        )
    if variants := [name for name in beside if _VARIANT.fullmatch(name)]:
        kind = WEIGHTS if variants[0].endswith(".safetensors") else PICKLE
        return UserError(
            f"{expected}, found only a variant, {_listed(variants)}. Rename it to {kind} where you "
            "mean that one."
        )
    if library := next((_CONVERTIBLE[name] for name in beside if name in _CONVERTIBLE), None):
        option = {"flax": "from_flax", "tensorflow": "from_tf"}[library]
        return UserError(
            f"{expected}, found only {_listed(beside)}. Convert it once, where transformers 4, "
            f'torch and {library} are installed: python -c "from transformers import '
            f"T5ForConditionalGeneration as M; M.from_pretrained({os.fspath(folder)!r}, "
            f"{option}=True).save_pretrained('converted')\", copy the tokenizer files beside it, "
            "and give that folder."
        )
    found = f"only {_listed(beside)}" if beside else "neither"
    return UserError(
        f"{expected}, found {found}. Copy or download the model's weights into the folder."
    )


def _listed(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
