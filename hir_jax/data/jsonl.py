"""The user's own questions: one JSON object a line.

Fields: "question"; "answer" or "answers"; and, if wanted, "options", "premise" and "id".
"""

import dataclasses
import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hir_jax.data.canonical import canonical, with_ids
from hir_jax.data.example import Example
from hir_jax.data.files import raise_faults, read_text
from hir_jax.errors import UserError

_FIELDS = ("question", "answer", "answers", "options", "premise", "id")
_MAX_OPTIONS = len(string.ascii_uppercase)


class _Number(str):
    """A JSON number, kept as it was written: 1.50 stays "1.50"."""


def read(path: Path, task: str, part: str = "") -> list[Example]:
    """The examples of a JSONL file, in its order; blank lines are skipped.

    Args:
        path: the file, UTF-8.
        task: the name of its task; the file's stem if empty.
        part: put into the ids, so that those of a further file of the same task differ.

    Returns:
        Examples with ids `task[/part]/id`, where a line without "id" has a digest of its content,
        and canonical premises: of the question where a line has none.

    Raises:
        UserError: the file cannot be read or has no examples, or lines are faulty; then the message
            lists the first of them with what is wrong, and their number.
    """
    task = task or path.stem
    prefix = f"{task}/{part}/" if part else f"{task}/"
    line_of_id: dict[str, int] = {}
    examples, faults = [], []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        parser = _Line()
        fields = parser.parse(line)
        if fields.id in line_of_id:
            parser.faults.append(f'the "id" {fields.id!r} is taken by line {line_of_id[fields.id]}')
        elif fields.id:
            line_of_id[fields.id] = number
        if parser.faults:
            faults.append(f"line {number}: {'; '.join(parser.faults)}")
            continue
        examples.append(
            Example(
                id=prefix + fields.id if fields.id else "",
                question=fields.question,
                options=fields.options,
                answers=fields.answers,
                task=task,
                premise=canonical(fields.premise or fields.question),
            )
        )
    raise_faults(path, faults)
    if not examples:
        raise UserError(
            f"{path} has no examples: expected one JSON object a line, such as "
            '{"question": "What is 1 + 2?", "answer": "3"}.'
        )
    return with_ids(examples, part)


def read_question(line: str, name: str, also: Sequence[str]) -> tuple[Example, list[str]]:
    """The question of one line, with this name for its id, and the line's faults.

    Fields of `also` are known, but not read.
    """
    parser = _Line((*_FIELDS, *also))
    fields = parser.parse(line)
    premise = fields.premise or fields.question
    example = Example(name, fields.question, fields.options, fields.answers, "", premise)
    return example, parser.faults


@dataclasses.dataclass(frozen=True)
class _Fields:
    """A line's fields, each empty where the line has none or a faulty one."""

    question: str = ""
    options: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    premise: str = ""
    id: str = ""


class _Line:
    """Parses a line and collects its faults."""

    def __init__(self, known: Sequence[str] = _FIELDS) -> None:
        self.known = known
        self.faults: list[str] = []

    def parse(self, line: str) -> _Fields:
        try:
            record = json.loads(
                line, parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant
            )
        except (ValueError, RecursionError) as error:
            self.faults.append(f"malformed JSON ({error})")
            return _Fields()
        if not isinstance(record, dict):
            self.faults.append(f"expected a JSON object, found {_kind(record)}")
            return _Fields()
        unknown = sorted(set(record) - set(self.known))
        if unknown:
            self.faults.append(
                f"unknown field {', '.join(map(repr, unknown))}; known are {', '.join(self.known)}"
            )
        options = self._options(record)
        return _Fields(
            question=self._text(record["question"], "question")
            if self._has(record, "question")
            else "",
            options=options,
            answers=self._answers(record, options),
            premise=self._text(record["premise"], "premise") if "premise" in record else "",
            id=self._text(record["id"], "id", numbers=True) if "id" in record else "",
        )

    def _has(self, record: dict[str, Any], field: str) -> bool:
        if field not in record:
            self.faults.append(f'missing "{field}"')
        return field in record

    def _text(self, value: Any, name: str, numbers: bool = False) -> str:
        if not isinstance(value, str) or (isinstance(value, _Number) and not numbers):
            expected = "a text or a number" if numbers else "a text"
            self.faults.append(f'"{name}": expected {expected}, found {_kind(value)}')
        elif not value.strip():
            self.faults.append(f'"{name}" is empty')
        elif any("\ud800" <= character <= "\udfff" for character in value):
            self.faults.append(f'"{name}" holds half of a surrogate pair, which is no character')
        else:
            return str(value)
        return ""

    def _texts(self, values: Any, name: str) -> tuple[str, ...]:
        if not isinstance(values, list):
            self.faults.append(f'"{name}": expected a list, found {_kind(values)}')
            return ()
        if not values:
            self.faults.append(f'"{name}" is an empty list')
        return tuple(self._text(v, f"{name}[{i}]", numbers=True) for i, v in enumerate(values))

    def _options(self, record: dict[str, Any]) -> tuple[str, ...]:
        if "options" not in record:
            return ()
        options = self._texts(record["options"], "options")
        if len(options) > _MAX_OPTIONS:
            self.faults.append(f"{len(options)} options; at most {_MAX_OPTIONS} are allowed")
        repeated = sorted({o for o in options if o and options.count(o) > 1})
        if repeated:
            self.faults.append(f"option {', '.join(map(repr, repeated))} is given twice")
        return options

    def _answers(self, record: dict[str, Any], options: tuple[str, ...]) -> tuple[str, ...]:
        if "answer" in record and "answers" in record:
            self.faults.append('both "answer" and "answers"; give one')
            return ()
        if "answers" in record:
            answers = self._texts(record["answers"], "answers")
        elif self._has(record, "answer"):
            answers = (self._text(record["answer"], "answer", numbers=True),)
        else:
            return ()
        return tuple(self._option(a, options) if options and a else a for a in answers)

    def _option(self, answer: str, options: tuple[str, ...]) -> str:
        """The option that an answer names, by its text or, where none has that text, its letter."""
        if answer in options:
            return answer
        bare = answer[1:-1] if answer.startswith("(") and answer.endswith(")") else answer
        lettered = dict(zip(string.ascii_uppercase, options, strict=False))
        if bare in lettered:
            return lettered[bare]
        self.faults.append(f"the answer {answer!r} is not among the options")
        return ""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:
    """What a JSON value is, for an error."""
    kinds = {
        _Number: "a number",
        str: "a text",
        dict: "an object",
        list: "a list",
        bool: "a boolean",
    }
    return kinds.get(type(value), "null")
