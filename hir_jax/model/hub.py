"""Where a model's folder is: here, or in the cache of the Hugging Face hub."""

import pathlib
import re
from collections.abc import Sequence

from hir_jax import shipped
from hir_jax.errors import UserError
from hir_jax.model import value_head, weight_files
from hir_jax.model.folder import check_links

TOKENIZER_FILES = ("*.json", "*.model", "merges.txt")  # config.json among them


def find(
    name: str,
    revision: str = "",
    patterns: Sequence[str] = (*TOKENIZER_FILES, *weight_files.PATTERNS, value_head.FILE),
) -> pathlib.Path:
    """The local folder of a model: a path as it is, a hub name downloaded (and cached).

    Args:
        name: the path or hub name.
        revision: a commit, tag or branch on the hub; "" is main.
        patterns: files to download.

    Raises:
        UserError: there is no such folder and no such model on the hub, or links lead out of it; or
            it has no such revision.
    """
    if folder := local(name):
        if revision:
            raise UserError(
                f"config.model.revision: expected none for a folder, which has but one; found "
                f"{revision!r} with config.model.path={name}. Leave it out, or give a hub name."
            )
        check_links(folder)
        return folder
    exists = pathlib.Path(shipped.find(name)).expanduser().exists()
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1 or exists
    if not name or looks_local:
        raise UserError(
            f"model.path: expected a folder with config.json and {weight_files.WEIGHTS}, or a hub "
            f"name such as google/flan-t5-small; found no folder {name!r}."
        )
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*|", revision) or ".." in revision:
        raise UserError(
            f"config.model.revision: expected a commit, tag or branch of {name}, found "
            f"{revision!r}."
        )
    import huggingface_hub  # here, since it is slow to import and local folders need none of it

    def download(revision: str, patterns: Sequence[str]) -> pathlib.Path:
        found = huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=[*patterns]
        )
        return pathlib.Path(found)

    try:
        folder = download(revision, patterns)
        wants_weights = {*weight_files.PATTERNS} <= {*patterns}
        if wants_weights and not any(any(folder.glob(p)) for p in weight_files.PATTERNS):
            download(commit(folder), weight_files.PICKLE_PATTERNS)
        return folder
    except Exception as e:
        asked = f"of that name and revision {revision!r}" if revision else "of that name"
        raise UserError(
            f"model.path: no local folder {name!r}, and the hub did not give a model {asked} "
            f"({first_line(e)}). Give a local folder, or check the name and the network."
        ) from e


def commit(folder: pathlib.Path) -> str:
    """The commit that a folder of the hub's cache is of; "" for another folder."""
    return folder.name if folder.parent.name == "snapshots" else ""


def local(name: str) -> pathlib.Path | None:
    """The folder of a model that is here under this very name; None for a hub name."""
    folder = pathlib.Path(shipped.find(name)).expanduser()
    return folder if name and folder.is_dir() else None


def first_line(e: Exception) -> str:
    """What kind of fault it is, and how its message begins."""
    return f"{type(e).__name__}: {e}".splitlines()[0]
