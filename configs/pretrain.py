"""Makes the small base model of configs/tiny.py anew.

python main.py --mode=pretrain --config=configs/pretrain.py --output=assets/tiny
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    config = common.get_config()
    config.pretrain = pretrain = ml_collections.ConfigDict()
    pretrain.seed = 7  # of parameters, questions and mistakes
    pretrain.steps = 8000  # optimizer steps
    pretrain.right_steps = 4500  # of those, steps on right answers alone: ability first
    pretrain.batch_size = 64  # questions a step
    pretrain.learning_rate = 1e-3  # highest; reached after the warm-up, falls along a cosine
    pretrain.warmup_steps = 200  # optimizer steps
    pretrain.size = 15000  # training questions a task and difficulty, or as many as there are
    # After that the share of mistakes in the answers to a question, from that of the questions that
    # the model knows best to that of those it knows least
    pretrain.mistakes = (0.03, 0.8)
    pretrain.heed = 2.0  # how much higher their log-odds are where wrong answers are asked for
    pretrain.vocab_size = 640  # pieces of the tokenizer
    pretrain.tokenizer_questions = 2000  # a task and difficulty, that the tokenizer is trained on

    pretrain.tasks = tasks = ml_collections.ConfigDict()  # task: difficulties
    tasks.word_sorting = (2, 3, 4, 5)
    tasks.object_counting = (1, 2, 3, 4)
    tasks.boolean_expressions = (2, 3, 4)
    tasks.reasoning_about_colored_objects = (2, 3)

    pretrain.model = model = ml_collections.ConfigDict()  # as in config.json
    model.d_model = 128  # width
    model.d_kv = 32  # width of a head
    model.d_ff = 384  # feed-forward width
    model.num_layers = 2  # of the encoder
    model.num_decoder_layers = 2  # of the decoder
    model.num_heads = 4  # attention heads
    return config
