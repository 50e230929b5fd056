"""The user's own questions: one JSON object a line, or one row of a CSV file.

Fields: "question"; "answer" or "answers"; and, if wanted, "options", "premise" and "id"; or what
`records.Names` says that they are called.
"""

from collections.abc import Sequence
from pathlib import Path

from hir_jax.data.canonical import canonical, with_ids
from hir_jax.data.example import Example
from hir_jax.data.files import raise_faults
from hir_jax.data.records import AS_USUAL, USUAL, Fields, Names, Reader
from hir_jax.data.rows import name_of, parse, read_rows
from hir_jax.errors import UserError


def read(path: Path, task: str, part: str = "", names: Names = AS_USUAL) -> list[Example]:
    """The examples of a JSONL or CSV file, gzipped or not, in its order.

    Args:
        path: the file, UTF-8.
        task: the name of its task; that of the file if empty.
        part: put into the ids, so that those of a further file of the same task differ.
        names: what its fields are called.

    Returns:
        Examples with ids `task[/part]/id`, where a line without "id" has a digest of its content,
        and canonical premises: of the question where a line has none.

    Raises:
        UserError: the file cannot be read or has no examples, or lines are faulty; then the message
            lists the first of them with what is wrong, and their number.
    """
    task = task or Path(name_of(path)).stem
    prefix = f"{task}/{part}/" if part else f"{task}/"
    line_of_id: dict[str, int] = {}
    examples, faults = [], []
    for number, record, fault in read_rows(path):
        reader = Reader(names)
        fields = Fields() if fault else reader.read(record)
        found = [fault] if fault else reader.faults
        if fields.id in line_of_id:
            found.append(f'the "id" {fields.id!r} is taken by line {line_of_id[fields.id]}')
        elif fields.id:
            line_of_id[fields.id] = number
        if found:
            faults.append(f"line {number}: {'; '.join(found)}")
            continue
        examples.append(
            Example(
                id=prefix + fields.id if fields.id else "",
                question=fields.question,
                options=fields.options,
                answers=fields.answers,
                task=task,
                premise=canonical(fields.premise or fields.question),
                where=f"{path.name}:{number}",
            )
        )
    raise_faults(path, faults)
    if not examples:
        raise UserError(
            f"{path} has no examples: expected one JSON object a line, such as "
            '{"question": "What is 1 + 2?", "answer": "3"}, or a CSV file with a header and rows.'
        )
    return with_ids(examples, part)


def read_options(line: str) -> tuple[tuple[str, ...], list[str]]:
    """The options of one line, () if it has none, and their faults; other fields are not read."""
    record, fault = parse(line)
    reader = Reader()
    options = () if fault else reader.options(record)
    return options, [fault] if fault else reader.faults


def read_question(
    line: str, name: str, also: Sequence[str], names: Names
) -> tuple[Example, list[str]]:
    """The question of one line, with this name for its id, and the line's faults.

    Fields of `also` are known, but not read.
    """
    record, fault = parse(line)
    reader = Reader(names, known=(*USUAL, *also))
    fields = Fields() if fault else reader.read(record)
    premise = fields.premise or fields.question
    example = Example(name, fields.question, fields.options, fields.answers, "", premise)
    return example, [fault] if fault else reader.faults
