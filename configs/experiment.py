"""The grids behind the README's tables: every variant on every task, three seeds, equal samples.

python main.py --mode=experiment --config=configs/experiment.py:grid --workdir=runs/grid
python main.py --mode=experiment --config=configs/experiment.py:ablation --workdir=runs/ablation
python main.py --mode=experiment --config=configs/experiment.py:methods --workdir=runs/methods
"""

import ml_collections

from configs import tiny

# Field names are those of the config with "__" for the dot.
GRIDS = {
    "grid": {
        "sft": {"algorithm": "sft"},
        "farl": {"algorithm": "farl"},
        "hir": {"algorithm": "hir"},
    },
    "methods": {
        name: {"algorithm": name}
        for name in (
            *("hir", "farl", "sft", "reinforce", "rloo", "grpo"),
            *("ppo", "nft", "topr", "w_reinforce", "maxrl"),
        )
    },
    "ablation": {
        "hir": {},
        "no sub-outputs": {"sub_output__mode": "full"},
        "no entropy term": {"loss__entropy_weight": 0.0},
        "no smoothing": {"loss__smoothing": 0.0, "loss__contrastive_smoothing": 0.0},
        "no contrastive term": {"loss__contrastive_weight": 0.0},
        "repeats counted": {"replay__dedup": "count"},
        "half of it right": {"replay__share_right": 0.5},
    },
}

# Task, difficulty, questions in all splits. In counting and sorting the base model knows both the
# answer and a mistake (assets/tiny/README.md); of expressions so short that it does there are too
# few to split, so these are beyond it. The sizes bring each run to a minute or two.
TASKS = (
    ("object_counting", 2, 1000),
    ("boolean_expressions", 4, 1000),
    ("word_sorting", 3, 2000),
)


def get_config(grid: str = "grid") -> ml_collections.ConfigDict:
    if grid not in GRIDS:
        raise ValueError(f"configs/experiment.py: expected {' or '.join(GRIDS)}; found {grid!r}")
    config = tiny.get_config()
    if grid == "ablation":
        config.sub_output.mode = "suffix"  # all parts on, so that each can be taken away
        # Short: given time, most variants learn all that there is to learn.
        config.iterations = 2
        config.train.epochs = 2
    config.experiment = ml_collections.ConfigDict(
        {
            "variants": GRIDS[grid],
            "first": "hir",  # of the variants, which the others are compared with
            "tasks": {
                task: {"data__task": task, "data__difficulty": difficulty, "data__size": size}
                for task, difficulty, size in TASKS
            },
            "seeds": (0, 1, 2),
            "part": (1, 1),  # what this process runs: (2, 3) is the second of three parts
            "cells": "*",  # to run: VARIANT/TASK/SEED with * for anything, several with commas
        }
    )
    return config
