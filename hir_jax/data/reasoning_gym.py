"""Questions of reasoning-gym, a package of task families, each with its own scorer of answers.

Stojanovski et al. 2025, arXiv 2505.24760; https://github.com/open-thought/reasoning-gym.
"""

import functools
import importlib
from types import ModuleType
from typing import Any

from hir_jax.data.canonical import canonical, question_key, with_ids
from hir_jax.data.example import Example
from hir_jax.data.splits import keyed_hash
from hir_jax.errors import UserError

_REPEATS_IN_A_ROW = 1000  # after so many draws that give nothing new, a family is exhausted


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
    dataset = _dataset(task, size, level, seed)
    examples: dict[tuple[str, ...], Example] = {}
    index = new = 0
    while len(examples) < size and index - new < _REPEATS_IN_A_ROW:
        example = _example(task, index, dataset)
        if examples.setdefault(question_key(example), example) is example:
            new = index
        index += 1
    if len(examples) < size:
        raise UserError(
            f"{task}: expected {size:,} different questions, but found only {len(examples):,} "
            "(case, white space and outer punctuation aside). Set a smaller --config.data.size, or "
            "another --config.data.level."
        )
    return with_ids(examples.values())


def _dataset(task: str, size: int, level: int | None, seed: int) -> Any:
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
        raise _failed(task, error) from error


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


def _example(task: str, index: int, dataset: Any) -> Example:
    try:
        entry = dataset[index]
    except Exception as error:
        raise _failed(task, error) from error
    question, answer = entry["question"], entry["answer"]
    if not (isinstance(answer, str) and answer.strip()):
        raise UserError(
            f"{task}: expected an answer that is a text, found {answer!r} for question {index}. "
            "Such a family cannot be trained or checked here; take another."
        )
    return Example(
        id="",
        question=question,
        options=(),
        answers=(answer,),
        task=task,
        premise=canonical(question),
        where=f"{task}[{index}]",
        score=functools.partial(_score, dataset, entry),
    )


def _score(dataset: Any, entry: dict[str, Any], answer: str) -> float:
    """The family's own score. Some raise where they cannot read an answer: that is 0."""
    try:
        return dataset.score_answer(answer, entry)
    except Exception:
        return 0.0


def _failed(task: str, error: Exception) -> UserError:
    return UserError(
        f"{task}: reasoning-gym has failed with {type(error).__name__}: {error}. Take another "
        "--config.data.level or family."
    )
