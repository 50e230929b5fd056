"""Starts that come to nothing, counted: what fails at the same place each time is begun no more.

A scheduler that queues a job again, whatever it died of, would begin it for ever. So each start
notes in the workdir where it begins. The note goes where it ends in words, and counts for nothing
once anything was saved; of one that was killed or crashed before that, it stays.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

from hir_jax.devices import processes
from hir_jax.devices.interrupts import Interrupted
from hir_jax.errors import UserError
from hir_jax.run import checkpoint, disk, workdirs

FILE = "attempts.json"
MOST = 3  # starts that fail at one place


@contextlib.contextmanager
def counted(workdir: str) -> Iterator[dict[str, Any]]:
    """Counts the start of a run that its block is; gives the progress that is saved, if any is.

    Raises:
        UserError: `MOST` starts have failed where this one would begin.
    """
    file = pathlib.Path(workdir) / FILE
    progress = checkpoint.newest_progress(workdirs.checkpoint_folder(workdir)) or {}
    processes.on_first(lambda: _begin(file, progress.get("saves", 0)))
    try:
        yield progress
    except (UserError, Interrupted, KeyboardInterrupt):
        _forget(file)
        raise
    except OSError as e:
        if disk.fault(e, file.parent):  # which has its own sentence
            _forget(file)
        raise
    _forget(file)


def _begin(file: pathlib.Path, saves: int) -> None:
    known = workdirs.read_json(file) if file.exists() else {}
    failed = known.get("failed") if known.get("saves") == saves else 0
    if not isinstance(failed, int):  # not as it was written: no one knows
        failed = 0
    if failed >= MOST:
        raise UserError(
            f"This step has failed {failed} times: the last starts of the run in {file.parent} "
            f"were killed or crashed before they saved anything. Look at what they said last, and "
            f"whether the machine has enough memory; remove {file} to try again."
        )
    workdirs.write_json(file, {"saves": saves, "failed": failed + 1})


def _forget(file: pathlib.Path) -> None:
    if processes.is_first():
        file.unlink(missing_ok=True)
