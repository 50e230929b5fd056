"""Files of JSON lines that commands read and write."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import ml_collections

from hir_jax.data.files import raise_faults
from hir_jax.data.rows import json_lines, kind, once_each
from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.model import batching
from hir_jax.run import prompts

Record = dict[str, Any]


def read_jsonl(
    path: str, all_of: Sequence[str] = (), one_of: Sequence[str] = ()
) -> tuple[list[tuple[int, Record]], dict[int, str]]:
    """(line number, record) of each line that is not blank; and these lines as they are.

    The file is read once, since what comes through a pipe is there but once.

    Raises:
        UserError: no such file, or faulty lines; the first ten are listed.
    """
    records, faults = [], []
    lines = dict(json_lines(pathlib.Path(path)))
    for number, line in lines.items():
        try:
            record = json.loads(line, object_pairs_hook=once_each)
            to_line(record).encode()  # refuses halves of surrogate pairs, and NaN
        except (ValueError, RecursionError) as e:
            faults.append(f"line {number}: not JSON: {e}")
            continue
        if not isinstance(record, dict):
            faults.append(f"line {number}: expected an object, found {type(record).__name__}")
            continue
        texts = [field for field in (*all_of, *one_of) if isinstance(record.get(field), str)]
        if not set(all_of) <= set(texts) or (one_of and len(texts) != 1):
            wanted = " and ".join(all_of) or f"exactly one of {' or '.join(one_of)}"
            faults.append(f"line {number}: expected {wanted}, as text; found {_kinds(record)}")
        records.append((number, record))
    raise_faults(pathlib.Path(path), faults)
    if not records:
        raise UserError(f"{path}: expected a JSON object a line, found an empty file.")
    return records, lines


def to_line(record: Any, indent: int | None = None) -> str:
    """A record as JSON, on a line. Raises ValueError where a number in it is not finite."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False, indent=indent) + "\n"


def check_finite(logprobs: Sequence[float], where: str) -> None:
    """Raises UserError where a log-probability is NaN or infinite: its model says nothing."""
    if bad := [value for value in logprobs if not math.isfinite(value)]:
        raise UserError(
            f"{where}: expected finite log-probabilities, found {bad[0]}. Numbers overflow in this "
            "model: give --config.model.dtype=float32 (and sample.dtype), or look at its weights."
        )


def _kinds(record: dict[str, Any]) -> str:
    """What a record has, for an error: "output (a number), prompt (a text)"."""
    return ", ".join(f"{name} ({kind(record[name])})" for name in sorted(record)) or "no field"


def check_output(path: str) -> None:
    """Raises UserError if the file is there already, or could not be made; before long work."""

    def check() -> None:
        if os.path.lexists(path):
            raise there_already(path)

    processes.on_first(check)
    check_folder(path)


def check_folder(path: str) -> None:
    """Raises UserError if there is no folder to write a file in; before long work."""

    def check() -> None:
        folder = pathlib.Path(path).parent
        if not folder.is_dir():
            raise UserError(f"--output: cannot write {path!r}: there is no folder {str(folder)!r}.")
        if not os.access(folder, os.W_OK):
            raise UserError(
                f"--output: cannot write {path!r}: nothing can be written in {str(folder)!r}. Give "
                "an --output elsewhere."
            )

    processes.on_first(check)


def there_already(path: str) -> UserError:
    """What is raised where an output would be overwritten."""
    if os.path.abspath(path).startswith(("/dev/", "/proc/")) or pathlib.Path(path).is_fifo():
        return UserError(
            f"--output: expected the name of a new file, found the device or pipe {path!r}. Write "
            "to a file and read that: one that is not whole would be taken for it."
        )
    return UserError(f"--output: {path!r} is there already; give another name.")


@contextlib.contextmanager
def open_output(path: str) -> Iterator[TextIO]:
    """A new file to write lines to; what is written stays if the work is cut short.

    Of many processes only the first writes it.

    Raises:
        UserError: it cannot be made.
    """
    path, mode = (path, "x") if processes.is_first() else (os.devnull, "w")
    try:
        out = open(path, mode, encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as e:
        raise UserError(f"--output: cannot write {path!r}: {e.strerror}.") from e
    with out:
        yield out


def fit(
    config: ml_collections.ConfigDict, source: str, lines: Sequence[int], tokens: Sequence[Any]
) -> tuple[list[int], tuple[int, ...]]:
    """The indices of prompts within the limit, and source buckets for them."""
    lengths = {f"{source}:{n}": len(ids) for n, ids in zip(lines, tokens, strict=True)}
    over = prompts.check_lengths(lengths, config.data.max_source_tokens, config.data.too_long)
    keep = [i for i, n in enumerate(lines) if f"{source}:{n}" not in over]
    return keep, batching.best_lengths([len(tokens[i]) for i in keep], config.buckets.source)
