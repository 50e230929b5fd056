"""The default: a small base model and generated questions; minutes on a laptop, no network.

python main.py
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    config = common.get_config()
    config.model.path = "assets/tiny"
    config.data.task = "word_sorting"
    config.data.difficulty = 4
    config.data.size = 1000
    config.data.max_train = 300
    config.iterations = 5
    config.sample.max_new_tokens = 24
    # The small model is unsure of every word: at temperature 1 few of its answers are right.
    config.sample.temperature = 0.5
    config.replay.keep_iterations = 2
    # Right and wrong orders share most of their words, and 512 pieces leave little room for junk:
    # the paper's coefficients, made for 32,128 pieces and answers of a letter, push too hard here.
    config.loss.smoothing = 0.05
    config.loss.contrastive_weight = 0.3
    config.loss.contrastive_smoothing = 0.2
    config.sub_output.mode = "full"
    config.train.epochs = 4
    config.buckets.source = 1
    return config
