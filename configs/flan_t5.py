"""FLAN-T5 on a BIG-bench task. 80M to 11B parameters; needs the weights (hub name or folder).

    python main.py --config=configs/flan_t5.py:base --workdir=runs/ld3 \
        --config.data.bigbench_dir=BIG-bench/bigbench/benchmark_tasks \
        --config.data.task=logical_deduction_three_objects

After the colon: small | base | large | xl | xxl.
"""

import ml_collections

from configs import common

SIZES = ("small", "base", "large", "xl", "xxl")


def get_config(size: str = "base") -> ml_collections.ConfigDict:
    if size not in SIZES:
        raise ValueError(
            f"configs/flan_t5.py: expected a size of {', '.join(SIZES)}; found {size!r}"
        )
    config = common.get_config()
    config.model.path = f"google/flan-t5-{size}"
    config.model.dtype = "bfloat16"
    config.data.source = "bigbench"
    config.data.task = "logical_deduction_three_objects"
    config.train.accumulation = 0
    config.iterations = 30
    if size in ("xl", "xxl"):
        config.train.optimizer = "adafactor"  # moments of AdamW would triple the memory
        config.train.accumulation = 4
        config.mesh.data = 1
        config.mesh.fsdp = -1
    return config
