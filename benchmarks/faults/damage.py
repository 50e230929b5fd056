"""Ways in which the newest checkpoint of a run may be damaged."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any


def truncated(folder: pathlib.Path) -> None:
    """Every file of arrays is cut in half."""
    for file in _arrays(folder):
        os.truncate(file, file.stat().st_size // 2)


def flipped(folder: pathlib.Path) -> None:
    """A byte in the middle of the largest file of arrays is another."""
    file = max(_arrays(folder), key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def no_leaves(folder: pathlib.Path) -> None:
    """The checksums are missing."""
    (folder / "leaves" / "leaves.json").unlink()


def empty_progress(folder: pathlib.Path) -> None:
    """progress.json is empty, as after a power cut."""
    os.truncate(_progress(folder), 0)


def other_progress(folder: pathlib.Path) -> None:
    """progress.json is JSON of another kind."""
    _progress(folder).write_text("[]")


def wrong_checksum(folder: pathlib.Path) -> None:
    """progress.json does not match its checksum."""
    _change(_progress(folder), crc32=0)


def other_format(folder: pathlib.Path) -> None:
    """It says that another hir_jax wrote it."""
    _change(_progress(folder), format=10_000, hir_jax="99.0")


def no_state(folder: pathlib.Path) -> None:
    """The arrays are missing."""
    shutil.rmtree(folder / "state")


def a_file(folder: pathlib.Path) -> None:
    """A file stands in place of the folder."""
    shutil.rmtree(folder)
    folder.write_text("")


def emptied(folder: pathlib.Path) -> None:
    """The folder is empty."""
    shutil.rmtree(folder)
    folder.mkdir()


def dangling(folder: pathlib.Path) -> None:
    """A link to nothing stands in place of the folder."""
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent / "gone")


def one_too_many(folder: pathlib.Path) -> None:
    """An empty folder stands beside it, with a greater number."""
    folder.with_name(str(int(folder.name) + 1000)).mkdir()


def unfinished(folder: pathlib.Path) -> None:
    """A save of the next step was left in the middle."""
    shutil.copytree(folder, folder.with_name(f"{int(folder.name) + 1}.orbax-checkpoint-tmp"))
    truncated(folder.with_name(f"{int(folder.name) + 1}.orbax-checkpoint-tmp"))


# An unreadable one is not among them: to root everything is readable.
WAYS: tuple[Callable[[pathlib.Path], None], ...] = (
    *(truncated, flipped, no_leaves, empty_progress, other_progress, wrong_checksum, other_format),
    *(no_state, a_file, emptied, dangling, one_too_many, unfinished),
)


def _arrays(folder: pathlib.Path) -> list[pathlib.Path]:
    """Which of them holds what varies, so all count."""
    return [file for file in folder.glob("state/**/d/*") if file.is_file()]


def _progress(folder: pathlib.Path) -> pathlib.Path:
    return folder / "progress" / "progress.json"


def _change(file: pathlib.Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
