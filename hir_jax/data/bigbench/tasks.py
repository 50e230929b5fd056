"""The tasks: their names here and their folders in BIG-bench's `benchmark_tasks/`."""

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

RAW_FOLDER = {
    f"{family}_{size}_objects": f"{family}/{size}_objects"
    for family in _FAMILIES
    for size in _SIZES
} | {task: task for task in _SINGLE}
