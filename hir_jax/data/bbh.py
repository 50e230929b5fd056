"""BIG-Bench Hard: JSON files of {"examples": [{"input", "target"}]} (arXiv 2210.09261)."""

import re
from pathlib import Path
from typing import Any

from hir_jax.data.canonical import with_ids
from hir_jax.data.example import Example, letter
from hir_jax.data.files import raise_faults, read_examples
from hir_jax.data.stories import with_premises
from hir_jax.errors import UserError

_CHOICE = re.compile(r"(?P<question>.*)\nOptions:\n(?P<options>\(A\) .*)", re.DOTALL)
_OPTION = re.compile(r"^(\([A-Z]\)) (.*)$", re.MULTILINE)


def files(path: Path, tasks: list[str]) -> list[Path]:
    """The files to read: `task`.json of each task in the folder `path`.

    Raises:
        UserError: there is no such task in it.
    """
    known = sorted(file.stem for file in path.glob("*.json"))
    unknown = sorted(set(tasks) - set(known))
    if unknown or not tasks:
        raise UserError(
            f"Expected data.task to name files of the folder {path}, found "
            f"{', '.join(unknown) or 'no task'}. It has: {', '.join(known) or 'no .json file'}."
        )
    return [path / f"{task}.json" for task in tasks]


def read(path: Path) -> list[Example]:
    """The examples of one file; the task is named after it.

    An input that ends with lettered options and has a letter for its target is a multiple-choice
    question; any other is free-form. Examples of one story share a premise (`with_premises`).

    Raises:
        UserError: the file cannot be read or an example has no "input" or "target" text.
    """
    records = read_examples(path)["examples"]
    faults = [
        f'example {i}: "{field}" is not a text'
        for i, record in enumerate(records)
        for field in ("input", "target")
        if not isinstance(record.get(field), str)
    ]
    raise_faults(path, faults)
    return with_premises(
        with_ids(_example(path.stem, i, record) for i, record in enumerate(records))
    )


def _example(task: str, index: int, record: dict[str, Any]) -> Example:
    question, options, answer = record["input"], (), record["target"]
    choice = _CHOICE.fullmatch(question)
    if choice:
        lettered = dict(_OPTION.findall(choice["options"]))
        lines = [f"{letter(i)} {option}" for i, option in enumerate(lettered.values())]
        if answer in lettered and choice["options"].rstrip() == "\n".join(lines):
            question, options = choice["question"], tuple(lettered.values())
            answer = lettered[answer]
    return Example(
        id="",
        question=question,
        options=options,
        answers=(answer,),
        task=task,
        premise="",
        where=f"{task}[{index}]",
    )
