"""The tasks: their names here and their folders in BIG-bench's `benchmark_tasks/`.

Any task is known by its folder, such as "navigate" or "cs_algorithms/lcs"; those of the paper that
are subtasks have a name besides.
"""

import re

from hir_jax.errors import UserError

_SIZES = ("three", "five", "seven")
_FAMILIES = ("logical_deduction", "tracking_shuffled_objects")
_SINGLE = (
    "date_understanding",
    "object_counting",
    "geometric_shapes",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "word_sorting",
)

# Of the twelve tasks of the paper.
RAW_FOLDER = {
    f"{family}_{size}_objects": f"{family}/{size}_objects"
    for family in _FAMILIES
    for size in _SIZES
} | {task: task for task in _SINGLE}


def folder_of(task: str) -> str:
    """The folder of a task, from its name.

    Raises:
        UserError: the name cannot be one.
    """
    if not re.fullmatch(r"\w+(/\w+)?", task):
        raise UserError(
            f"Expected data.task to name a folder of BIG-bench's benchmark_tasks, such as navigate "
            f"or cs_algorithms/lcs, or one of {', '.join(RAW_FOLDER)}; found {task!r}."
        )
    return RAW_FOLDER.get(task, task)
