"""Questions of reasoning-gym, a package of task families, each with its own scorer of answers.

Stojanovski et al. 2025, arXiv 2505.24760; https://github.com/open-thought/reasoning-gym.

Some families draw in the order of a set of texts, which differs from process to process, and one
by Python's own random state. So questions are drawn in a process where both are fixed.
"""

import ast
import functools
import importlib
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hir_jax.data.canonical import canonical, with_ids
from hir_jax.data.example import Example
from hir_jax.data.splits import keyed_hash
from hir_jax.errors import UserError

Entry = dict[str, Any]  # "question", "answer" and "metadata"

_DRAWS = 4  # for each question that is wanted, since some come again
_DRAW = "from hir_jax.data import reasoning_gym; reasoning_gym.draw_to_file()"


def generate(task: str, size: int, level: int | None, seed: int) -> list[Example]:
    """The first `size` different questions of a family, each with its scorer.

    Args:
        task: the family's name, such as "spell_backward".
        size: of all splits.
        level: of its curriculum, from 0; None = the family's own defaults.
        seed: of the draws: the same gives the same questions.

    Raises:
        UserError: the package is not installed; no such family or level; the family fails, has no
            answers that are texts, or fewer different questions.
    """
    if size < 1:
        raise UserError(f"{task}: expected a size of at least 1, found {size}.")
    scorer = _dataset(task, level, seed, size=1)
    drawn = _drawn(task, size, level, seed)
    if len(drawn) < size:
        raise UserError(
            f"{task}: expected {size:,} different questions, but found only {len(drawn):,} in "
            f"{_DRAWS * size:,} draws. Set a smaller --config.data.size, or another "
            "--config.data.level."
        )
    return with_ids(_example(task, index, entry, scorer) for index, entry in drawn.items())


def draw_to_file() -> None:
    """Draws what the process's arguments say; writes it, or the error, to the file they name."""
    path, task, *numbers = sys.argv[1:]
    size, level, seed = (int(number) if number else None for number in numbers)
    try:
        drawn = _plain(_draw(task, size, _dataset(task, level, seed, _DRAWS * size)))
    except UserError as error:
        drawn = str(error)
    except TypeError as error:
        drawn = str(_failed(task, error))
    Path(path).write_text(repr(drawn), encoding="utf-8")


def _plain(value: Any) -> Any:
    """The value with Python's own scalars for NumPy's, to be read as it is written.

    Raises:
        TypeError: it holds something else.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(map(_plain, value))
    if value is None or type(value) in (str, bool, int, bytes):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    raise TypeError(f"an entry that holds {value!r}, which is none of Python's plain types")


def _drawn(task: str, size: int, level: int | None, seed: int) -> dict[int, Entry]:
    """As `_draw`, by another process."""
    numbers = [str(size), "" if level is None else str(level), str(seed)]
    search = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "drawn")
        done = subprocess.run(
            [sys.executable, "-c", _DRAW, str(file), task, *numbers],
            env=os.environ | search,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise _failed(task, done.stderr.strip().rpartition("\n")[2] or done.returncode)
        drawn = ast.literal_eval(file.read_text(encoding="utf-8"))
    if isinstance(drawn, str):
        raise UserError(drawn)
    return drawn


def _draw(task: str, size: int, dataset: Any) -> dict[int, Entry]:
    """The first `size` entries that ask something new, or all that there are, by their number.

    Those whose answer is empty are left out.
    """
    random.seed(dataset.seed)
    entries: dict[int, Entry] = {}
    asked: set[str] = set()
    answer = None
    for index in range(_DRAWS * size):
        try:
            entry = dataset[index]
        except IndexError:  # there are no others
            break
        except Exception as error:
            raise _failed(task, f"{type(error).__name__}: {error}") from error
        question, answer = canonical(entry["question"]), entry["answer"]
        if question not in asked and isinstance(answer, str) and answer.strip():
            asked.add(question)
            entries[index] = entry
        if len(entries) == size:
            break
    if not entries:
        raise UserError(
            f"{task}: expected answers that are texts, found {answer!r}. Such a family cannot be "
            "asked here; take another."
        )
    return entries


def _dataset(task: str, level: int | None, seed: int, size: int) -> Any:
    package = _package()
    families = package.factory.DATASETS
    if task not in families:
        raise UserError(
            f"Unknown family {task!r} of reasoning-gym. Choose one of: "
            f"{', '.join(sorted(families))}."
        )
    given = {} if level is None else _of_level(package, task, level)
    # Item i of seed s is item 0 of seed s + i: neighbouring seeds would share their questions.
    given["seed"] = int.from_bytes(keyed_hash(seed, "reasoning_gym", task)[:4]) // 2
    try:
        return package.create_dataset(task, **(given | {"size": size}))
    except Exception as error:  # the package asserts, and reads files
        raise _failed(task, f"{type(error).__name__}: {error}") from error


def _of_level(package: ModuleType, task: str, level: int) -> dict[str, Any]:
    """What the family is configured by, where all attributes of its curriculum have that level."""
    if not package.factory.has_curriculum(task):
        raise UserError(
            f"data.level: expected None, since {task} has no curriculum; found {level}."
        )
    curriculum = package.factory.create_curriculum(task)
    most = max((len(each.levels) - 1 for each in curriculum.attributes.values()), default=0)
    if not 0 <= level <= most:
        raise UserError(f"data.level: expected 0 to {most} for {task}, found {level}.")
    curriculum.set_global_level(level)
    return dict(vars(curriculum.generate_configuration()))


def _package() -> ModuleType:
    try:
        importlib.import_module("reasoning_gym.factory")
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise UserError(
            f"data.source='reasoning_gym' expects the package reasoning-gym ({error}). Install it: "
            'pip install "hir_jax[reasoning_gym]", or pip install reasoning-gym.'
        ) from error


def _example(task: str, index: int, entry: Entry, dataset: Any) -> Example:
    return Example(
        id="",
        question=entry["question"],
        options=(),
        answers=(entry["answer"],),
        task=task,
        premise=canonical(entry["question"]),
        where=f"{task}[{index}]",
        score=functools.partial(_score, dataset, entry),
    )


def _score(dataset: Any, entry: Entry, answer: str) -> float:
    """The family's own score. Some raise where they cannot read an answer: that is 0."""
    try:
        return dataset.score_answer(answer, entry)
    except Exception:
        return 0.0


def _failed(task: str, error: object) -> UserError:
    return UserError(
        f"{task}: reasoning-gym has failed with {error}. Take another --config.data.level or "
        "another family."
    )
