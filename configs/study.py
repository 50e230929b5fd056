"""When does hindsight pay? Grids that are to say so.

    python main.py --mode=experiment --config=configs/study.py:tuning --workdir=runs/tuning
    python main.py --mode=experiment --config=configs/study.py:ideas --workdir=runs/ideas
    python main.py --mode=experiment --config=configs/study.py:methods --workdir=runs/methods
    python main.py --mode=experiment --config=configs/study.py:data --workdir=runs/data

A grid that was stopped goes on, and one that is changed runs its new cells only. A process that is
given `--config.experiment.part=1,2` does every second cell, one with 2,2 the others.
"""

import ml_collections

from configs import tiny

# The learning rate of each method's best mean accuracy in `tuning`.
TUNED = {
    "sft": {"train__learning_rate": 2e-4},
    "farl": {"train__learning_rate": 5e-4},
    "hir": {"train__learning_rate": 5e-4, "hir__share_right": 0.0},
    "reinforce": {"train__learning_rate": 3e-5},
    "rloo": {"train__learning_rate": 3e-5},
    "grpo": {"train__learning_rate": 1e-4},
    "ppo": {"train__learning_rate": 3e-5},
    "nft": {"train__learning_rate": 1e-4},
    "topr": {"train__learning_rate": 1e-4},
    "w_reinforce": {"train__learning_rate": 3e-5},
}
# Learning rates that each method was tried with, on questions of another seed.
RATES = {
    **dict.fromkeys(("sft", "farl", "hir"), (2e-4, 5e-4, 1e-3)),
    **dict.fromkeys(TUNED.keys() - {"sft", "farl", "hir"}, (3e-5, 1e-4, 3e-4)),
}

SLOW = {"train__learning_rate": 2e-4}
# What came of `ideas`: HIR to follow both instructions, and to answer right.
MENDED = {
    "hir mended": {
        "algorithm": "hir",
        "train__learning_rate": 2e-4,
        "hir__share_right": 0.9,
    },
    "hir for accuracy": {
        "algorithm": "hir",
        "train__learning_rate": 5e-4,
        "hir__share_right": 0.9,
        "loss__contrastive_weight": 0.3,
    },
}

SLOWER = {"train__learning_rate": 1e-4}
SUMS = {"loss__contrastive_score": "sum"}
# One thing about HIR changed at a time: what it is made of taken away, then what might serve it.
IDEAS = {
    "hir": {},
    "no entropy term": {"loss__entropy_weight": 0.0},
    "no smoothing": {"loss__smoothing": 0.0, "loss__contrastive_smoothing": 0.0},
    "no contrastive term": {"loss__contrastive_weight": 0.0},
    "repeats counted": {"replay__dedup": "count"},
    "half of it right": {"hir__share_right": 0.5},
    "three quarters right": {"hir__share_right": 0.75},
    "wrong outputs a quarter": {"hir__wrong_weight": 0.25},
    "no wrong outputs imitated": {"hir__wrong_weight": 0.0},
    "contrast 1": {"loss__contrastive_weight": 1.0},
    "contrast 10": {"loss__contrastive_weight": 10.0},
    "contrast of sums": SUMS,
    "sums 1": SUMS | {"loss__contrastive_weight": 1.0},
    "sums, wrong outputs a quarter": SUMS | {"hir__wrong_weight": 0.25},
    "sums, no wrong outputs imitated": SUMS | {"hir__wrong_weight": 0.0},
    "sums, none, counted": SUMS | {"hir__wrong_weight": 0.0, "replay__dedup": "count"},
    "in batch": {"loss__contrastive": "in_batch", "loss__contrastive_weight": 1.0},
    "suffixes": {"sub_output__mode": "suffix"},
    "5 epochs": {"train__epochs": 5},
    "all iterations": {"replay__keep_iterations": 0},
    "guided by 1": {"sample__guidance": 1.0},
    "2e-4": SLOW,
    "nine tenths right": {"hir__share_right": 0.9},
    "three quarters right, 2e-4": {"hir__share_right": 0.75} | SLOW,
    "nine tenths right, 2e-4": {"hir__share_right": 0.9} | SLOW,
    "three quarters right, all iterations": {
        "hir__share_right": 0.75,
        "replay__keep_iterations": 0,
    },
    "three quarters right, sums 1": SUMS
    | {"hir__share_right": 0.75, "loss__contrastive_weight": 1.0},
    "three quarters right, no contrastive term": {
        "hir__share_right": 0.75,
        "loss__contrastive_weight": 0.0,
    },
    "nine tenths right, contrast 1": {
        "hir__share_right": 0.9,
        "loss__contrastive_weight": 1.0,
    },
    "nine tenths right, hardly any contrast": {
        "hir__share_right": 0.9,
        "loss__contrastive_weight": 0.3,
    },
    "sums 1, no wrong outputs imitated, 1e-4": SUMS
    | SLOWER
    | {"loss__contrastive_weight": 1.0, "hir__wrong_weight": 0.0},
    "wrong outputs a tenth, contrast 1, 1e-4": SLOWER
    | {"loss__contrastive_weight": 1.0, "hir__wrong_weight": 0.1},
    "nine tenths right, sums 1, 1e-4": SUMS
    | SLOWER
    | {"hir__share_right": 0.9, "loss__contrastive_weight": 1.0},
    "nine tenths right, 1e-4": SLOWER | {"hir__share_right": 0.9},
    "nine tenths right, 2e-4, contrast 1": SLOW
    | {"hir__share_right": 0.9, "loss__contrastive_weight": 1.0},
}

# How many answers a question of the task may have is what parts them, two, some twenty, hundreds: a
# wrong one says most where there are two. True answers to 800 questions teach the base model some
# of each; of colored objects, whose answers are among five, they teach it nothing, nor of three
# objects to count, so that these tasks could show no difference.
TASKS = {
    "expressions": {"data__task": "boolean_expressions", "data__difficulty": 4},
    "counting": {"data__task": "object_counting", "data__difficulty": 4},
    "sorting": {"data__task": "word_sorting", "data__difficulty": 5},
}
OTHERS = {name: task | {"data__seed": 2} for name, task in TASKS.items()}  # drawn anew


def tuning() -> dict:
    """The methods of `TUNED` at three learning rates, on questions of another seed: of sorting none
    that `methods` and `data` ask, of expressions, of which there are few, many of them."""
    variants = {
        f"{name} {rate:.0e}": {"algorithm": name, "train__learning_rate": rate}
        for name in TUNED
        for rate in RATES[name]
    }
    tasks = {name: OTHERS[name] for name in ("expressions", "sorting")}
    return {"variants": variants, "tasks": tasks, "seeds": (100,)}


def ideas() -> dict:
    """One thing about HIR changed at a time, on the questions of `tuning`."""
    variants = {name: {"algorithm": "hir"} | TUNED["hir"] | IDEAS[name] for name in IDEAS}
    slow = {"in batch": ("sorting",)}  # a step takes twenty times as long
    return {"variants": variants, "tasks": OTHERS, "seeds": (200,), "first": "hir", "only": slow}


def methods() -> dict:
    """HIR and eight others on every task, four samples a question."""
    variants = {name: {"algorithm": name} | TUNED[name] for name in TUNED} | MENDED
    for name in ("hir mended", "farl", "topr"):
        variants[name] = variants[name] | {"evaluate__samples": (4, 16)}
    del variants["reinforce"]  # w_reinforce and rloo stand for it
    settings = {"first": "hir mended", "pass_samples": 16}
    return {"variants": variants, "tasks": TASKS, "seeds": (0, 1, 2, 3, 4), **settings}


def data() -> dict:
    """Few questions or many, one sample of each or four."""
    tasks = {
        f"{questions:,} x {samples}": TASKS["sorting"]
        | {"data__max_train": questions, "sample__samples": samples}
        for samples in (1, 4)
        for questions in (100, 400, 1600)
    }
    variants = {name: {"algorithm": name} | TUNED[name] for name in ("sft", "farl", "topr")}
    variants |= {"hir mended": MENDED["hir mended"]}
    once = {"sft": tuple(name for name in tasks if name.endswith("x 4"))}  # draws no samples
    return {
        "variants": variants,
        "tasks": tasks,
        "seeds": (0, 1, 2),
        "first": "hir mended",
        "only": once,
    }


GRIDS = {made.__name__: made for made in (tuning, ideas, methods, data)}


def get_config(grid: str = "methods") -> ml_collections.ConfigDict:
    if grid not in GRIDS:
        raise ValueError(f"configs/study.py: expected {' or '.join(GRIDS)}; found {grid!r}")
    config = tiny.get_config()
    config.sample.max_new_tokens = 24
    config.sample.kl_to_start = False
    config.sample.opposite = False
    config.train.learning_rate = None  # the method's own, where it is not tuned
    config.data.size = 2500
    config.data.max_train = 600
    config.data.max_dev = 200
    shared = {
        "part": (1, 1),  # what this process runs: (2, 3) is the second of three parts
        "cells": "*",  # to run: VARIANT/TASK/SEED with * for anything, several with commas between
        "keep_checkpoints": False,  # of cells that are done
    }
    config.experiment = ml_collections.ConfigDict(shared | GRIDS[grid]())
    return config
