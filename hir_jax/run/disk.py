"""Room on a disk: asked for before it is needed; that it ran out all the same is one sentence."""

import errno
import pathlib
import shutil
import time

from hir_jax.devices import processes
from hir_jax.errors import UserError

# What the system says, as an exception and in the texts of libraries that have no exceptions.
_FULL = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded"}
# The same of what takes no more for another reason: a limit on files, a mount that had a fault.
_CLOSED = {errno.EFBIG: "File too large", errno.EROFS: "Read-only file system"}

# A file in the way that is another user's, a folder where a file must be, or
# the reverse, or a link to nothing or to itself.
_BARRED = (
    *(errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
    *(errno.ENOENT, errno.ELOOP),
)

_TRIES = 50  # a tenth of a second apart


def check(folder: pathlib.Path, needed: int, what: str) -> None:
    """Raises UserError on all processes where the folder's disk has not `needed` bytes free."""

    def look() -> None:
        there = folder
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free
        if free < needed:
            raise UserError(_sentence(folder, f"{needed:,} bytes free for {what}", f"{free:,}"))

    processes.on_first(look)


def fault(error: Exception, folder: pathlib.Path, needed: int = 0) -> UserError | None:
    """What to raise where an error means that a disk takes no more, or that something in the folder
    cannot be opened or made; None where it does not."""
    if getattr(error, "errno", None) in _BARRED and isinstance(error.filename, str):
        name = pathlib.Path(error.filename).absolute()
        if name.is_relative_to(pathlib.Path(folder).absolute()):
            return UserError(
                f"{name}: cannot be opened or made: {error.strerror}. Mend its owner or what lies "
                "there, and give the command again."
            )
    chain: BaseException | None = error
    while chain is not None:
        for number, said in (_FULL | _CLOSED).items():
            if getattr(chain, "errno", None) == number or said in str(chain):
                if number in _CLOSED:
                    return UserError(
                        f"{folder}: nothing more can be written there: {said}. What was written "
                        "before is whole; mend that, and the same command goes on from it."
                    )
                found = f"the disk full: {said}"
                if needed:
                    return UserError(_sentence(folder, f"{needed:,} bytes free", found))
                return UserError(f"{folder}: found {found}. Make room; give the command again.")
        chain = chain.__cause__ or chain.__context__
    return None


def used(folder: pathlib.Path) -> int:
    """Bytes of all files in a folder; 0 where there is none."""
    files = pathlib.Path(folder).rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file())


def remove(folder: pathlib.Path, pattern: str) -> None:
    """Removes the folders in it that a pattern names, though threads may still write into them."""
    for _ in range(_TRIES):
        found = [*pathlib.Path(folder).glob(pattern)]
        for each in found:
            shutil.rmtree(each, ignore_errors=True)
        if not found:
            return
        time.sleep(0.1)


def _sentence(folder: pathlib.Path, wanted: str, found: str) -> str:
    return (
        f"{folder}: expected {wanted}, found {found}. Make room there, or keep fewer checkpoints "
        "(config.checkpoint.keep). What was saved last is whole; the same command goes on from it."
    )
