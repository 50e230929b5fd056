"""An output of a line a record that is written as it goes, and gone on with after a kill.

Beside a file that is not whole there is a note, `FILE.unfinished`, of what its lines are made of.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import ml_collections
from absl import logging

from hir_jax.commands.lines import Record, check_output, there_already, to_line
from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.run import checksums, workdirs
from hir_jax.run.models import Model


class Lines:
    """A file of a line a record, in order, of which the first `done` are finished."""

    def __init__(self, out: BinaryIO | None, done: int, total: int) -> None:
        """`out` is None on a process that writes nothing."""
        self._out, self._done, self._total = out, done, total

    def pieces(self, size: int) -> Iterator[range]:
        """The records in pieces of `size`, from the first that is not finished on.

        Pieces are the same wherever the work was cut short, and so are the sums in them.
        """
        for start in range(self._done // size * size, self._total, size):
            piece = range(start, min(start + size, self._total))
            if piece.stop > self._done:
                yield piece

    def write(self, piece: range, records: Sequence[Record]) -> None:
        """Adds those of a piece's lines that are not finished."""
        new = records[max(self._done - piece.start, 0) :]
        if self._out is not None:
            self._out.write("".join(map(to_line, new)).encode())
            self._out.flush()


@contextlib.contextmanager
def lines(
    path: str, made_of: Record, records: Sequence[Record], given_back: Sequence[str]
) -> Iterator[Lines]:
    """The lines of a file, new or left unfinished by the same command.

    One of which no line is finished is begun anew, by whatever command.

    Args:
        path: of the file.
        made_of: all that decides what its lines say, by names for people; see `made_of`.
        records: what the lines are made of, in order.
        given_back: the fields that lines may have besides, and each has one of.

    Raises:
        UserError: a file is there that is whole, or made of something else; another process writes
            it; it cannot be written; or another process of this command has other input.
    """
    processes.check_same(workdirs.flatten(made_of))
    with contextlib.ExitStack() as files:
        out = None

        def begin() -> int:
            nonlocal out
            out = files.enter_context(_take(path, made_of))
            _check_same(path, out, made_of)
            return _finished(path, out, records, given_back)

        done = processes.on_first(begin)
        if done:
            logging.info("%s: %d of %d lines are finished", path, done, len(records))
        yield Lines(out, done, len(records))
        if out is not None:
            os.fsync(out.fileno())
            _note(path).unlink()


def check_continued(path: str) -> None:
    """Raises UserError where `lines` would not write the file; before long work."""
    if not processes.on_first(_note(path).exists):
        check_output(path)


def made_of(
    mode: str, config: ml_collections.ConfigDict, model: Model | None, *digested: tuple[str, Any]
) -> Record:
    """What lines are made of: settings, the weights of a model, and other things by names."""
    fields = workdirs.flatten(json.loads(config.to_json_best_effort()))
    free = workdirs.FREE + workdirs.ROUNDING
    if model:
        digested = (("weights", checksums.of(checksums.flatten(model.params))), *digested)
    return {
        "mode": mode,
        "config": {name: value for name, value in fields.items() if not name.startswith(free)},
        "digest": {name: _digest(content) for name, content in digested},
    }


def _digest(content: Any) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _note(path: str) -> pathlib.Path:
    return pathlib.Path(f"{path}.unfinished")


def _take(path: str, made_of: Record) -> BinaryIO:
    """The file, with its note beside it; no other process can take it until it is closed."""
    note = _note(path)
    try:
        if not os.path.lexists(path):
            workdirs.write_json(note, made_of)
        elif not note.exists():
            raise there_already(path)
        out = open(path, "a+b")  # noqa: SIM115 (closed by the caller)
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise UserError(
            f"--output: {path!r} is being written by another process. Let it end, or give another "
            "name."
        ) from e
    except OSError as e:
        raise UserError(f"--output: cannot write {path!r}: {e.strerror}.") from e
    return out


def _check_same(path: str, out: BinaryIO, made_of: Record) -> None:
    """Raises UserError where the note of a file says that it is made of something else."""
    note = _note(path)
    if not note.exists():  # another process has finished it by now
        raise there_already(path)
    out.seek(0)
    if not out.readline().endswith(b"\n"):
        workdirs.write_json(note, made_of)
        return
    # As JSON gives it back: tuples are lists.
    found = workdirs.differences(workdirs.read_json(note), json.loads(json.dumps(made_of)))
    if found:
        shown = [f"{name}: {old!r} then, {new!r} now" for name, (old, new) in found.items()]
        raise UserError(
            f"--output: {path!r} is unfinished, and made of something else than what is given "
            "now:\n  " + "\n  ".join(shown) + "\nGive the same to go on with it, or another name."
        )


def _finished(
    path: str, out: BinaryIO, records: Sequence[Record], given_back: Sequence[str]
) -> int:
    """How many lines are finished; a last one without an end is cut off."""
    out.seek(0)
    whole, count = 0, 0
    for line in out:
        if not line.endswith(b"\n"):
            break
        if count == len(records) or not _is_of(line, records[count], given_back):
            raise UserError(
                f"--output: line {count + 1} of {path!r}, which is unfinished, is not of the "
                "input's: it was changed since. Give another name."
            )
        whole, count = whole + len(line), count + 1
    out.truncate(whole)
    return count


def _is_of(line: bytes, record: Record, given_back: Sequence[str]) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict) or found.keys().isdisjoint(given_back):
        return False
    own, kept = (
        {name: value for name, value in fields.items() if name not in given_back}
        for fields in (found, record)
    )
    return own == kept
