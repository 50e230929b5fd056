"""What the fields of a user's record say of a question: by their usual names, or by names given."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from hir_jax.data.example import letter
from hir_jax.data.rows import Number, kind

USUAL = ("question", "answer", "answers", "options", "premise", "id")


@dataclasses.dataclass(frozen=True)
class Names:
    """Where a record has what: `config.data.fields`, described in the config files.

    Each is a path such as "answers.text", or several with commas between; "" is the usual name. A
    step of a path names a field of an object or, by its number, an item of a list; of a list, any
    other step takes that field of every item.

    Attributes:
        question: texts; several are put below one another.
        answer: an answer, or a list of all that are accepted.
        index: in place of an answer, the number of the right option, from 0.
        options: a list of texts, or one text each.
        labels: what the answer calls the options, in their order.
        premise: what questions of one story share.
        id: unique among the records.
        after: no path, but a text: the answer is what stands behind the last of these.
    """

    question: str = ""
    answer: str = ""
    index: str = ""
    options: str = ""
    labels: str = ""
    premise: str = ""
    id: str = ""
    after: str = ""


AS_USUAL = Names()


@dataclasses.dataclass(frozen=True)
class Fields:
    """A record's fields, each empty where the record has none or a faulty one."""

    question: str = ""
    options: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    premise: str = ""
    id: str = ""


class Reader:
    """Reads a record and collects its faults. What is null counts as absent."""

    def __init__(self, names: Names = AS_USUAL, known: Sequence[str] = USUAL) -> None:
        """Reads by these names; without any, fields that are not `known` are faults."""
        self.names = names
        self.known = known
        self.faults: list[str] = []

    def read(self, record: dict[str, Any]) -> Fields:
        """The fields of a record, `parse`d or of a CSV file."""
        unknown = sorted(set(record) - set(self.known))
        if unknown and self.names == AS_USUAL:
            self.faults.append(
                f"unknown field {', '.join(map(repr, unknown))}; known are {', '.join(self.known)} "
                "(--config.data.fields says what others hold)"
            )
        names = self.names
        for path in (names.options, names.labels, names.premise, names.id):
            if path and not any(each.split(".")[0] in record for each in (path, *_paths(path))):
                self._miss(path)
        options = self.options(record)
        return Fields(
            question=self._joined(record, names.question or "question", needed=True),
            options=options,
            answers=self._answers(record, options),
            premise=self._joined(record, names.premise or "premise"),
            id=self._joined(record, names.id or "id"),
        )

    def options(self, record: dict[str, Any]) -> tuple[str, ...]:
        """The options of a record, each once."""
        path = self.names.options or "options"
        options = self._list(record, path)
        if path not in record:
            self._check_gaps([each for each, _ in _found(record, path)], _paths(path))
        repeated = sorted({o for o in options if o and options.count(o) > 1})
        if repeated:
            self.faults.append(f"option {', '.join(map(repr, repeated))} is given twice")
        return options

    def _check_gaps(self, found: Sequence[str], paths: Sequence[str]) -> None:
        """Behind an option that is not there a letter or number would name another."""
        gaps = [path for path, there in zip(paths, found, strict=False) if path != there]
        if found and gaps:
            self.faults.append(f'"{gaps[0]}" is empty, though an option behind it is not')

    def _miss(self, path: str) -> None:
        named = [name for name, said in vars(self.names).items() if said == path]
        says = f" (so named by config.data.fields.{named[0]})" if named else ""
        self.faults.append(f'missing "{path}"{says}')

    def _joined(self, record: dict[str, Any], path: str, needed: bool = False) -> str:
        """The texts at a path, below one another; a question's are texts, others may be numbers."""
        found = _found(record, path)
        if needed and not found:
            self._miss(path)
        return "\n".join(self._text(value, name, plain=not needed) for name, value in found)

    def _list(self, record: dict[str, Any], path: str) -> tuple[str, ...]:
        """The texts of a list, or at several paths."""
        match _found(record, path):
            case [(name, value)] if name == path and not isinstance(value, list):
                self.faults.append(f'"{name}": expected a list, found {kind(value)}')
                return ()
        return self._texts(record, path)

    def _texts(self, record: dict[str, Any], path: str, needed: bool = False) -> tuple[str, ...]:
        """The texts that stand at a path, in a list or each by itself."""
        found = _found(record, path)
        if needed and not found:
            self._miss(path)
        texts = []
        for name, value in found:
            if value == []:
                self.faults.append(f'"{name}" is an empty list')
            items = value if isinstance(value, list) else [value]
            named = [f"{name}[{i}]" for i in range(len(items))] if items is value else [name]
            texts += [self._text(v, n, plain=True) for n, v in zip(named, items, strict=True)]
        return tuple(texts)

    def _text(self, value: Any, name: str, plain: bool) -> str:
        """The text that a value is; `plain`: of numbers and booleans as well."""
        if plain and isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str) or (isinstance(value, Number) and not plain):
            expected = "a text, number or boolean" if plain else "a text"
            self.faults.append(f'"{name}": expected {expected}, found {kind(value)}')
        elif not value.strip():
            self.faults.append(f'"{name}" is empty')
        elif any("\ud800" <= character <= "\udfff" for character in value):
            self.faults.append(f'"{name}" holds half of a surrogate pair, which is no character')
        else:
            return str(value)
        return ""

    def _answers(self, record: dict[str, Any], options: tuple[str, ...]) -> tuple[str, ...]:
        if self.names.index:
            return self._by_index(record, options)
        path = self.names.answer
        if not path:
            given = [name for name in ("answer", "answers") if record.get(name) is not None]
            if len(given) > 1:
                self.faults.append('both "answer" and "answers"; give one')
                return ()
            path = given[0] if given else "answer"
        answers = [self._behind(text, path) for text in self._texts(record, path, needed=True)]
        if options:
            labels = self._labels(record, options)
            answers = [self._option(answer, labels, options) for answer in answers if answer]
        return tuple(dict.fromkeys(answers))

    def _behind(self, text: str, path: str) -> str:
        """What stands behind the last `after` of a text, where there is such a mark."""
        if not (text and self.names.after):
            return text
        _, mark, behind = text.rpartition(self.names.after)
        if not mark or not behind.strip():
            self.faults.append(
                f'"{path}": expected an answer behind {self.names.after!r}, found '
                + ("nothing there" if mark else f"no {self.names.after!r}")
            )
        return behind.strip()

    def _by_index(self, record: dict[str, Any], options: tuple[str, ...]) -> tuple[str, ...]:
        path = self.names.index
        given = self._texts(record, path, needed=True)
        if not all(given):
            return ()
        indices = [int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1 for text in given]
        beyond = [t for t, i in zip(given, indices, strict=True) if not 0 <= i < len(options)]
        if beyond:
            self.faults.append(
                f'"{path}": expected a number from 0 to {len(options) - 1}, for one of '
                f"{len(options)} options; found {beyond[0]!r}"
            )
            return ()
        return tuple(options[i] for i in indices)

    def _labels(self, record: dict[str, Any], options: tuple[str, ...]) -> tuple[str, ...]:
        """What answers call the options; () where these are known by text or letter."""
        if not self.names.labels:
            return ()
        labels = self._list(record, self.names.labels)
        if len(labels) != len(options) or len(set(labels)) < len(labels):
            self.faults.append(
                f'"{self.names.labels}": expected a label of its own for each of {len(options)} '
                f"options, found {', '.join(map(repr, labels)) or 'none'}"
            )
            return ()
        return labels

    def _option(self, answer: str, labels: tuple[str, ...], options: tuple[str, ...]) -> str:
        """The option that an answer names: by its label where there are any; else by its text or,
        where none has that text, its letter."""
        if labels:
            named = dict(zip(labels, options, strict=True))
            if answer not in named:
                self.faults.append(f"the answer {answer!r} is not among the labels")
            return named.get(answer, "")
        if answer in options:
            return answer
        bare = answer[1:-1] if answer.startswith("(") and answer.endswith(")") else answer
        lettered = {letter(i): option for i, option in enumerate(options)}
        if f"({bare})" in lettered:
            return lettered[f"({bare})"]
        hint = " (a number of an option is read by --config.data.fields.index)" * answer.isdigit()
        self.faults.append(f"the answer {answer!r} is not among the options{hint}")
        return ""


def _found(record: dict[str, Any], path: str) -> list[tuple[str, Any]]:
    """What there is at each of the paths between commas, by its path.

    Null is nothing; nor is an empty text anything among several.
    """
    paths = [path] if path in record else _paths(path)
    found = [(each, _at(record, each.split("."))) for each in paths]
    nothing = (None,) if len(paths) == 1 else (None, "")
    return [(each, value) for each, value in found if value not in nothing]


def _paths(path: str) -> list[str]:
    return [part.strip() for part in path.split(",")]


def _at(value: Any, steps: Sequence[str]) -> Any:
    if not steps:
        return value
    first, *rest = steps
    if isinstance(value, list):
        if first.isdecimal():
            return _at(value[int(first)], rest) if int(first) < len(value) else None
        return [_at(item, steps) for item in value]
    if isinstance(value, dict):
        whole = ".".join(steps)  # a name may have dots of its own
        return value[whole] if whole in value else _at(value.get(first), rest)
    return None
