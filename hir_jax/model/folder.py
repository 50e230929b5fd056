"""A model's folder, which a stranger may have made: plain files are read, code is never run."""

import json
import pathlib
from typing import Any

from hir_jax.errors import UserError


def check_links(folder: pathlib.Path) -> None:
    """Raises UserError where something in the folder is a link that leads out of it.

    In the hub's cache, where files are links into the same model's `blobs`, these are allowed.
    """
    roots = [folder.resolve()]
    if roots[0].parent.name == "snapshots":
        roots.append(roots[0].parents[1] / "blobs")
    links = (entry for entry in sorted(folder.iterdir()) if entry.is_symlink())
    out = [link.name for link in links if not any(map(_real(link).is_relative_to, roots))]
    if out:
        raise UserError(
            f"{folder}: expected files of its own, found links out of it: {', '.join(out)}. "
            "Copy what they lead to into their place."
        )


def _real(link: pathlib.Path) -> pathlib.Path:
    try:
        return link.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return pathlib.Path("/")


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file.

    Raises:
        UserError: it cannot be read, or has something else in it.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{file}: expected JSON, found a fault: {e}. Download it again.") from e
    if not isinstance(content, dict):
        raise UserError(
            f"{file}: expected JSON of an object, found a {type(content).__name__}. Download it "
            "again."
        )
    return content


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def check_code(file: pathlib.Path, fields: dict[str, Any]) -> None:
    """Raises UserError where these fields of a JSON file ask for code, or for files elsewhere."""
    asked = [name for name in ("auto_map", "trust_remote_code") if fields.get(name)]
    if asked:
        raise UserError(
            f"{file}: expected no code, found {asked[0]}, which asks to run code that comes with "
            "the model; that is never run. Where the model needs none, remove the field."
        )
    named = fields.get("fast_tokenizer_files") or []
    named = [*(named if isinstance(named, list) else [named]), *_files_of(fields)]
    out = [name for name in named if not is_plain(name)]
    if out:
        raise UserError(
            f"{file}: expected names of files beside it, found {out[0]!r}. Remove the field; the "
            "files of a tokenizer are found by their usual names."
        )


def _files_of(fields: dict[str, Any]) -> list[Any]:
    names = ("vocab_file", "tokenizer_file", "merges_file", "spm_file")
    return [fields[name] for name in names if fields.get(name) is not None]


def is_plain(name: Any) -> bool:
    """Whether it is the name of a file in a folder, and no path to elsewhere."""
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\"):
        return False
    return name.isprintable() and len(name.encode()) <= 255  # as file systems have it
