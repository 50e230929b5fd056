"""The JSON of a checkpoint: each file says its format, the hir_jax that wrote it, its checksum."""

import json
import pathlib
import zlib
from typing import Any

from absl import logging

import hir_jax
from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.run import workdirs

# Of what a checkpoint holds. To be raised where an older hir_jax could not read it, or this one
# could not read an older one's; absent fields alone have defaults.
FORMAT = 2


def seal(content: Any) -> dict[str, Any]:
    """What the file of an item holds; a copy, since it may be written when `content` has changed.

    `content` is JSON, from which tuples return as lists.
    """
    return {
        "format": FORMAT,
        "hir_jax": hir_jax.__version__,
        "content": json.loads(json.dumps(content)),
        "crc32": _crc32(content),
    }


def replace(folder: pathlib.Path, item: str, content: Any) -> None:
    """Writes an item of a checkpoint that is there, so that the old one or the new one is."""
    text = json.dumps(seal(content))
    processes.on_first(lambda: workdirs.write_text(_file(folder, item), text))


def read(folder: pathlib.Path, item: str) -> Any:
    """The content of an item. Raises ValueError where it is not what was written.

    Raises:
        UserError: it is of another format.
    """

    def look() -> Any:
        # Not by Orbax: it would have all processes meet, and wait for one that failed.
        file = _file(folder, item)
        if not file.exists() and (folder / item / "metadata").exists():
            raise _of_another_version(folder, "no format", "earlier than 0.2.0")
        sealed = json.loads(file.read_text())
        if sealed["format"] != FORMAT:
            raise _of_another_version(folder, f"format {sealed['format']}", sealed["hir_jax"])
        if sealed["crc32"] != _crc32(sealed["content"]):
            raise ValueError(f"{item} does not match its checksum")
        if item == "progress" and sealed["hir_jax"] != hir_jax.__version__:
            logging.warning(
                "The checkpoint %s was written by hir_jax %s; this is %s. What it does not say has "
                "its default.",
                folder,
                sealed["hir_jax"],
                hir_jax.__version__,
            )
        return sealed["content"]

    return processes.on_first(look)


def _file(folder: pathlib.Path, item: str) -> pathlib.Path:
    return folder / item / f"{item}.json"


def _of_another_version(folder: pathlib.Path, found: str, version: str) -> UserError:
    return UserError(
        f"The checkpoint {folder} has {found}, as hir_jax {version} writes it; this is hir_jax "
        f"{hir_jax.__version__}, which reads format {FORMAT}. Go on with the hir_jax that wrote "
        "it, or give another workdir."
    )


def _crc32(content: Any) -> int:
    return zlib.crc32(json.dumps(content).encode())
