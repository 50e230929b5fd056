"""The default: a small base model and generated questions; minutes on a laptop, no network.

python main.py
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    config = common.get_config()
    config.model.path = "assets/tiny"
    config.data.task = "word_sorting"
    config.data.difficulty = 3
    config.data.size = 2000
    config.iterations = 3
    config.sample.max_new_tokens = 16
    config.sample.kl_to_start = True
    config.sample.opposite = True
    config.replay.keep_iterations = 1
    # 640 pieces leave little room for junk, and the smoothing of the paper, made for 32,128, would
    # fill it.
    config.loss.smoothing = 0.05
    # Answers of several words share most of them, right or wrong: the mean over a whole answer
    # dilutes the few that differ.
    config.loss.contrastive_weight = 3.0
    config.loss.contrastive_smoothing = 0.2
    # Suffixes teach so small a model to leave out the first words of an answer.
    config.sub_output.mode = "full"
    # At the rate of large models, or with more passes, so small a one learns these very questions
    # and forgets others. Methods that do not imitate want less still.
    config.train.learning_rate = 2e-4
    config.train.epochs = 2
    config.buckets.source = 1
    return config
