"""The records of a JSONL or CSV file, gzipped or not, each with the line that it begins at."""

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hir_jax.data.files import read_text
from hir_jax.errors import UserError

Row = tuple[int, dict[str, Any], str]  # the line, from 1; the record; what is wrong with it or ''


class Number(str):
    """A JSON number, kept as it was written: 1.50 stays "1.50"."""


def read_rows(path: Path) -> Iterator[Row]:
    """The records in their order; a name that ends with .csv or .csv.gz says CSV, any other JSONL.

    Blank lines are skipped. The first row of a CSV file names the fields; its values are texts, and
    None where a cell is empty.

    Raises:
        UserError: the file cannot be read, the header of a CSV file is at fault, or a file of
            another name is a table.
    """
    if name_of(path).lower().endswith(".csv"):
        yield from _csv_rows(path, read_text(path))
        return
    lines = list(json_lines(path))
    if lines and re.match(r"\w[^{]*[,;\t|]", lines[0][1]):
        raise UserError(
            f"{path}: expected a JSON object a line, found a table that begins with "
            f"{lines[0][1]!r:.80}. Put commas between its cells, and give it a name that ends with "
            ".csv."
        )
    for number, line in lines:
        yield number, *parse(line)


def name_of(path: Path) -> str:
    """The file's name as it was before it was gzipped."""
    return path.stem if path.suffix.lower() == ".gz" else path.name


def json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line) of each line that is not blank.

    Raises:
        UserError: the file cannot be read, or is one JSON value as a whole.
    """
    text = read_text(path)
    # Not splitlines: a JSON text may hold other ends of line, such as U+2028, as they are.
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if lines and (found := _whole(text, lines[0][1])):
        raise UserError(
            f"{path}: expected a JSON object a line, found {found} that is all of the file. Write "
            "each record on a line of its own: `jq -c '.[]' OLD.json > NEW.jsonl` does of a list."
        )
    yield from lines


def _whole(text: str, line: str) -> str:
    """What all of a text is, as JSON, whose first line is no JSON object; '' where neither is so.

    One object on a line is a record.
    """
    try:
        if isinstance(json.loads(line), dict):
            return ""
    except (ValueError, RecursionError):
        pass
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return kind(value) if isinstance(value, list | dict) else ""


def parse(line: str) -> tuple[dict[str, Any], str]:
    """The JSON object of a line, with `Number`s, and what is wrong with it or ''."""
    try:
        record = json.loads(
            line,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse_constant,
            object_pairs_hook=once_each,
        )
    except (ValueError, RecursionError) as error:
        return {}, f"malformed JSON ({error})"
    if not isinstance(record, dict):
        return {}, f"expected a JSON object, found {kind(record)}"
    return record, ""


def kind(value: Any) -> str:
    """What a JSON value is, for an error."""
    kinds = {
        Number: "a number",
        str: "a text",
        dict: "an object",
        list: "a list",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), "null")


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # what follows cannot be told apart any more
            yield start, {}, f"malformed CSV ({error})"
            return
        if not any(map(str.strip, cells)):  # as spreadsheets leave below a table
            continue
        if not header:
            header = cells
            _check_header(path, header)
        elif len(cells) == len(header):
            values = (cell if cell.strip() else None for cell in cells)
            yield start, dict(zip(header, values, strict=True)), ""
        else:
            yield start, {}, f"expected {len(header)} cells as in the header, found {len(cells)}"


def _check_header(path: Path, header: list[str]) -> None:
    if len(header) == 1 and (other := re.search(r"[;\t|]", header[0])):
        raise UserError(
            f"{path}: expected commas between the cells, found {other[0]!r} in the header "
            f"{header[0]!r}. Save the file with commas."
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(
            f"{path}: expected a header that names each column once, found "
            f"{', '.join(map(repr, repeated))} more often."
        )


def once_each(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """As `dict`, which would take the last of those of one name; raises ValueError for these."""
    found = dict(fields)
    if len(found) < len(fields):
        names = [name for name, _ in fields]
        raise ValueError(f"{max(names, key=names.count)!r} is there more than once")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
