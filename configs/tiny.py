"""The default: a small base model and generated questions; minutes on a laptop, no network.

python main.py
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    config = common.get_config()
    config.model.path = "assets/tiny"
    config.data.task = "word_sorting"
    config.data.difficulty = 6
    config.sample.max_new_tokens = 24
    return config
