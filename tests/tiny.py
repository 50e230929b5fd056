"""A T5 of a few thousand weights, its tokenizer, and a config: whole runs in seconds."""

import atexit
import contextlib
import functools
import pathlib
import shutil
import tempfile

import jax
import numpy as np
import pytest
import tokenizers
import transformers
from jax.experimental.compilation_cache import compilation_cache as jax_cache
from jax.sharding import Mesh
from tokenizers import pre_tokenizers
from tokenizers.models import WordLevel

from configs import common
from hir_jax.devices import sharding
from hir_jax.model import hf, t5
from hir_jax.model.config import T5Config
from hir_jax.run import settings, trainers

SPECIAL = ("<pad>", "</s>", "<unk>")
TEXT = "True False not and or ( ) is Solve the question with correct wrong answer . Q : A"
WORDS = TEXT.split()
VOCABULARY = (*SPECIAL, *WORDS, *(f"w{i}" for i in range(64 - len(SPECIAL) - len(WORDS))))
LIKELY = {"True": 3.0, "False": 3.0, "</s>": 2.0, "not": 1.0}


# 8 divides every dimension, so that each mesh axis may take all devices.
EVEN = T5Config(
    vocab_size=40,
    d_model=16,
    d_kv=4,
    d_ff=32,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=16,
)


def one_device():
    """A mesh of the first device alone."""
    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), sharding.AXES)


def get_config():
    """Boolean expressions, two iterations; also read by main.py as --config=tests/tiny.py."""
    config = common.get_config()
    config.seed = 4  # with which some samples of each iteration are right
    config.iterations = 2
    # Short, so that prompts with a part of an output fit into the bucket of prompts without one.
    config.instruction.correct = "correct answer"
    config.instruction.wrong = "wrong answer"
    config.data.task = "boolean_expressions"
    config.data.difficulty = 2
    config.data.size = 40
    config.data.seed = 1
    config.data.max_train = 12
    config.data.max_test = 5
    config.sample.samples = 2
    config.sample.top_k = 5
    config.sample.max_new_tokens = 4
    config.sample.rows = 8
    config.hir.share_right = 0.0  # of so few samples hardly one is right
    config.train.batch_size = 8
    config.train.epochs = 2
    config.train.log_every = 1
    config.train.learning_rate = 1e-2
    config.buckets.source = 1
    config.report.every = 0
    return config


def config(**changes):
    """The config with the model's folder in it; changes by "sample.rows" and the like."""
    made = get_config()
    made.model.path = str(folder())
    made.update_from_flattened_dict(changes)
    return made.lock()


@functools.cache
def folder():
    """The model's folder, written once a session."""
    path = home() / "model"
    hf.export(path, params(), shape(), tokenizer(), raw_config())
    return path


@functools.cache
def home():
    """A folder that is removed when the process ends."""
    path = tempfile.mkdtemp(prefix="hir_jax_tiny_")
    atexit.register(shutil.rmtree, path)
    return pathlib.Path(path)


def tokenizer():
    pieces = {word: i for i, word in enumerate(VOCABULARY)}
    words = tokenizers.Tokenizer(WordLevel(pieces, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def raw_config():
    return {
        "model_type": "t5",
        "vocab_size": len(VOCABULARY),
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "dropout_rate": 0.0,
    }


def shape():
    return hf.parse_config(raw_config(), pathlib.Path("tiny"), "float32", has_head=True)


def params():
    """Random weights that answer "True" or "False" more often than chance would.

    The first width of every embedding is large, so the first row of the head acts as a bias.
    """
    tree = jax.tree.map(np.array, t5.init_params(shape(), jax.random.key(0)))
    tree["shared"][:, 0] = 8.0
    tree["lm_head"][0] = [LIKELY.get(word, 0.0) / 4 for word in VOCABULARY]
    return tree


@contextlib.contextmanager
def compiled_once():
    """Within it, what one run or process of the session has compiled serves the next ones.

    Gives a folder for --compilation_cache.
    """
    settings = {
        "jax_compilation_cache_dir": str(home() / "cache"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        _configure(settings)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(trainers, "make_training", _make_training)
            yield settings["jax_compilation_cache_dir"]
    finally:
        _configure(before)


def _configure(settings):
    for name, value in settings.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()  # JAX reads these settings once


_trainings = {}


def _make_training(config, model, in_parts=None, make=trainers.make_training):
    """One jitted step for all runs that ask for the same, so that it is traced once, too."""
    parts = [config[name].to_json() for name in ("train", "loss", "mesh", "lora")]
    method = settings.method_of(config)
    key = (method, model.config, model.mesh, in_parts, *parts)
    if key not in _trainings:
        _trainings[key] = make(config, model, in_parts)
    return _trainings[key]
