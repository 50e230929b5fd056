"""The config of a run, from its workdir: what eval, sample, score and export begin with.

python main.py --mode=eval --workdir=runs/mine                # takes it by itself
python main.py --mode=plan --config=configs/workdir.py:runs/mine --topology=v5e:4x4
"""

import json

import ml_collections

from configs import common


def get_config(workdir: str = "") -> ml_collections.ConfigDict:
    file = f"{workdir}/config.json"
    config = common.get_config().lock()  # a field that there is not is a fault
    config.instruction.facts.unlock()  # their names are the run's own
    try:
        with open(file, encoding="utf-8") as f:
            config.update(json.load(f))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise ValueError(f"--workdir: expected a run's config in {file}, found a fault: {e}") from e
    return config.unlock()
