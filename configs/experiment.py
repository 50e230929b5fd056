"""The grids behind the README's tables: every variant on every task, three seeds, equal samples.

python main.py --mode=experiment --config=configs/experiment.py:grid --workdir=runs/grid
python main.py --mode=experiment --config=configs/experiment.py:ablation --workdir=runs/ablation
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
    "ablation": {
        "hir": {},
        "no sub-outputs": {"sub_output__mode": "full"},
        "no entropy term": {"loss__entropy_weight": 0.0},
        "no smoothing": {"loss__smoothing": 0.0},
        "no contrastive term": {"loss__contrastive_weight": 0.0},
    },
}


def get_config(grid: str = "grid") -> ml_collections.ConfigDict:
    if grid not in GRIDS:
        raise ValueError(f"configs/experiment.py: expected {' or '.join(GRIDS)}; found {grid!r}")
    config = tiny.get_config()
    if grid == "ablation":
        config.sub_output.mode = "suffix"  # all parts on, so that each can be taken away
    config.experiment = ml_collections.ConfigDict(
        {
            "variants": GRIDS[grid],
            "tasks": {
                "word_sorting": {"data__task": "word_sorting", "data__difficulty": 6},
                "object_counting": {"data__task": "object_counting", "data__difficulty": 5},
                "boolean_expressions": {"data__task": "boolean_expressions", "data__difficulty": 6},
            },
            "seeds": (0, 1, 2),
        }
    )
    return config
