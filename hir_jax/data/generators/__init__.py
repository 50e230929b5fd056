"""Generated tasks: questions of the families of BIG-bench's tasks, any number, from a seed.

The prompts have the shape of the real files (Srivastava et al. 2022, arXiv 2206.04615;
boolean_expressions: BIG-Bench Hard, arXiv 2210.09261); sentences and words are our own. Options
stand in a fixed order: whoever loads the examples shuffles them.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator

from hir_jax.data.canonical import canonical, with_ids
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

# Percent of the premises on each side, for good: models were trained on the first of them.
SHARES = {"train": 70, "dev": 10, "test": 20}

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

    No two of them ask the same: they differ in the premise or in what is asked of it, not only in
    wording, brackets or order. Questions about one story stand together.

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
    for draft in drafts:
        yield from with_ids(
            [Example("", draft.question, draft.options, draft.answers, task, draft.premise)]
        )


def split_of(example: Example) -> str:
    """The split an example belongs to for good, one of `SHARES`.

    Decided by a hash of the task's name and the canonical premise alone, so that no test question
    is a training question of another seed, size or difficulty.
    """
    text = f"{example.task}\n{canonical(example.premise)}"
    percent = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % 100
    ends = itertools.accumulate(SHARES.values())
    return next(side for side, end in zip(SHARES, ends, strict=True) if percent < end)


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
            question = (draft.premise, draft.asked)
            if question not in seen:
                seen.add(question)
                repeats = 0
                yield draft
