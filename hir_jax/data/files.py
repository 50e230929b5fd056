"""Reading the user's text and JSON files, with errors that say where the fault is."""

import codecs
import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hir_jax.errors import UserError

SHOWN_FAULTS = 10

_TO_JSONL = "Write its records as JSONL, a JSON object a line"
_OTHER_FORMATS = {
    b"PAR1": ("Parquet", f"{_TO_JSONL}: datasets' and pandas' to_json(..., lines=True) do"),
    b"ARROW1": ("Arrow", f"{_TO_JSONL}: datasets' to_json does"),
    b"PK\x03\x04": ("a zip file or a spreadsheet", "Unpack it, or save it as CSV in UTF-8"),
    b"\x1f\x8b": ("gzip", "Give it a name that ends with .gz"),
    b"BZh": ("bzip2", "Unpack it"),
    b"\xfd7zXZ": ("xz", "Unpack it"),
    b"\x28\xb5\x2f\xfd": ("zstd", "Unpack it"),
    codecs.BOM_UTF16_LE: ("UTF-16", "Save it as UTF-8"),
    codecs.BOM_UTF16_BE: ("UTF-16", "Save it as UTF-8"),
}


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked where its name ends with .gz.

    Raises:
        UserError: it cannot be read, is damaged or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"Cannot read the data file {path}: {error.strerror}. Give another path, or mend that."
        ) from error
    if path.suffix.lower() == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"{path} is not a whole gzip file: {error}. Copy or make it again."
            ) from error
    for magic, (what, mend) in _OTHER_FORMATS.items():
        if raw.startswith(magic):
            raise UserError(f"{path}: expected text in UTF-8, found {what}. {mend}.")
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line_start = raw.rfind(b"\n", 0, error.start) + 1
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8 text: byte {error.start - line_start + 1} of line {line} is "
            f"0x{raw[error.start]:02x} ({error.reason}). Save the file as UTF-8."
        ) from error


def read_examples(path: Path) -> dict[str, Any]:
    """A JSON object whose "examples" is a list of at least one object.

    Raises:
        UserError: the file cannot be read, or is something else.
    """
    try:
        content = json.loads(read_text(path))
        json.dumps(content, ensure_ascii=False).encode()  # refuses halves of surrogate pairs
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}. Copy the file anew, or mend it.") from error
    examples = content.get("examples") if isinstance(content, dict) else None
    if not isinstance(examples, list) or not examples:
        raise UserError(f'{path}: expected a JSON object with a non-empty list "examples".')
    raise_faults(
        path, [f"example {i}: not an object" for i, e in enumerate(examples) if type(e) is not dict]
    )
    return content


def raise_faults(what: Path | str, faults: Sequence[str], mend: str = "Mend the file") -> None:
    """Raises UserError showing the first faults of a file and their number, if there are any."""
    if not faults:
        return
    more = len(faults) - SHOWN_FAULTS
    shown = [*faults[:SHOWN_FAULTS], *([f"... and {more} more"] if more > 0 else [])]
    noun = "fault" if len(faults) == 1 else "faults"
    raise UserError(f"{what}: {len(faults)} {noun}. {mend}:\n  " + "\n  ".join(shown))
