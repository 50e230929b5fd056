"""Your own questions, a JSON object with "question", "answer" and "options" a line, or CSV.

python main.py --config=configs/jsonl.py --config.data.path=questions.jsonl --workdir=runs/mine
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    config = common.get_config()
    config.model.path = "google/flan-t5-base"
    config.data.source = "jsonl"
    return config
