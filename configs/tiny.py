"""The default: a small base model and generated questions; minutes on a laptop, no network.

python main.py
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    config = common.get_config()
    config.model.path = "assets/tiny"
    config.data.task = "object_counting"
    config.data.difficulty = 2
    config.data.size = 1000
    config.iterations = 3
    config.sample.max_new_tokens = 8
    config.sample.kl_to_start = True
    config.replay.keep_iterations = 1
    # 527 pieces leave little room for junk, and the smoothing of the paper, made for 32,128, would
    # fill it.
    config.loss.smoothing = 0.05
    # Answers of several words share most of them, right or wrong: the mean over a whole answer
    # dilutes the few that differ.
    config.loss.contrastive_weight = 3.0
    config.loss.contrastive_smoothing = 0.2
    # Suffixes teach so small a model to leave out the first words of an answer.
    config.sub_output.mode = "full"
    config.train.epochs = 4
    config.buckets.source = 1
    return config
