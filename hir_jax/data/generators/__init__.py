"""Generated tasks: questions of the families of BIG-bench's tasks, any number, from a seed.

The prompts have the shape of the real files (Srivastava et al. 2022, arXiv 2206.04615;
boolean_expressions: BIG-Bench Hard, arXiv 2210.09261); sentences and words are our own. Options
stand in a fixed order: whoever loads the examples shuffles them.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator

from hir_jax.data.example import Example
from hir_jax.data.generators import (
    boolean_expressions,
    logical_deduction,
    object_counting,
    reasoning_about_colored_objects,
    tracking_shuffled_objects,
    word_sorting,
)
from hir_jax.data.generators.draft import Draft, Family
from hir_jax.errors import UserError

FAMILIES: dict[str, Family] = {
    "boolean_expressions": boolean_expressions.FAMILY,
    "logical_deduction": logical_deduction.FAMILY,
    "object_counting": object_counting.FAMILY,
    "reasoning_about_colored_objects": reasoning_about_colored_objects.FAMILY,
    "tracking_shuffled_objects": tracking_shuffled_objects.FAMILY,
    "word_sorting": word_sorting.FAMILY,
}

_REPEATS_IN_A_ROW = 10_000  # after so many draws that give nothing new, a family is exhausted


def generate(task: str, size: int, difficulty: int, seed: int) -> list[Example]:
    """The first `size` examples of `stream`.

    Raises:
        UserError: unknown task; size or difficulty out of range; fewer than `size` different
            questions to be had.
    """
    if size < 1:
        raise UserError(f"{task}: expected a size of at least 1, found {size}.")
    examples = list(itertools.islice(stream(task, difficulty, seed), size))
    if len(examples) < size:
        raise UserError(
            f"{task}: expected {size:,} different questions at difficulty {difficulty} (seed "
            f"{seed}), but found only {len(examples):,}. Ask for fewer or raise the difficulty."
        )
    return examples


def stream(task: str, difficulty: int, seed: int) -> Iterator[Example]:
    """Examples fixed by (task, difficulty, seed), for as long as there are new ones.

    No two of them ask the same: they differ in the question or in the options. Questions about
    one story stand together.

    Args:
        task: a name in `FAMILIES`.
        difficulty: what it counts depends on the family; see `Family.meaning`.
        seed: any integer.

    Raises:
        UserError: unknown task; difficulty out of range.
    """
    drafts = _distinct_drafts(
        _checked_family(task, difficulty), difficulty, random.Random(f"{task}/{difficulty}/{seed}")
    )
    for index, draft in enumerate(drafts):
        yield Example(
            id=f"{task}/{difficulty}/{seed}/{index}",
            question=draft.question,
            options=draft.options,
            answers=draft.answers,
            task=task,
            premise=draft.premise,
        )


def split_of(example: Example) -> str:
    """The split an example belongs to for good: "train" (70%), "dev" (10%) or "test" (20%).

    Decided by a hash of the task's name and the premise alone, case and white space aside, so that
    no test question is a training question of another seed, size or difficulty.
    """
    text = f"{example.task}\n{' '.join(example.premise.lower().split())}"
    percent = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % 100
    if percent < 70:
        return "train"
    return "dev" if percent < 80 else "test"


def _checked_family(task: str, difficulty: int) -> Family:
    if task not in FAMILIES:
        raise UserError(f"Unknown generated task {task!r}. Choose one of: {', '.join(FAMILIES)}.")
    family = FAMILIES[task]
    if difficulty not in family.difficulties:
        low, high = family.difficulties[0], family.difficulties[-1]
        raise UserError(
            f"{task}: expected difficulty ({family.meaning}) from {low} to {high}, "
            f"found {difficulty}."
        )
    return family


def _distinct_drafts(family: Family, difficulty: int, rng: random.Random) -> Iterator[Draft]:
    seen = set()
    repeats = 0
    while repeats < _REPEATS_IN_A_ROW:
        repeats += 1
        for draft in family.draw(rng, difficulty):
            asked = (draft.question, draft.options)
            if asked not in seen:
                seen.add(asked)
                repeats = 0
                yield draft
