"""FLAN-T5 on a BIG-bench task. 80M to 11B parameters; needs the weights (hub name or folder).

    python main.py --config=configs/flan_t5.py:base --workdir=runs/ld3 \
        --config.data.bigbench_dir=BIG-bench/bigbench/benchmark_tasks \
        --config.data.task=logical_deduction_three_objects

After the colon: small | base | large | xl | xxl. The last is for a v5e:4x4 or more, where
scripts/tpu_pod.sh starts it.
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
        config.mesh.data = 1
        config.mesh.fsdp = -1
    if size == "xxl":  # for 16 chips of 16 GB; see docs/planning.md
        config.train.remat = True
        config.mesh.tensor = 4  # or the copy that decodes would be whole on each
    return config
