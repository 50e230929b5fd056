"""The small base model: what it is trained on, and what is written."""

import random

import pytest

from configs import pretrain as pretrain_config
from hir_jax import hf, pretrain, verify
from hir_jax.data import generators
from hir_jax.errors import UserError
from hir_jax.prompts import Codec


def config(**changes):
    made = pretrain_config.get_config()
    made.pretrain.size = 300
    made.pretrain.tokenizer_questions = 200
    made.update_from_flattened_dict(changes)
    return made


def quick():
    """One optimizer step or two of a very small model."""
    made = config(**{"pretrain.steps": 3, "pretrain.warmup_steps": 1, "pretrain.batch_size": 8})
    made.pretrain.model.update(
        {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_decoder_layers": 1}
    )
    made.pretrain.tasks = {"boolean_expressions": (4,)}
    return made.lock()


@pytest.mark.parametrize("task", generators.FAMILIES)
def test_wrong_answers_are_wrong_but_readable(task):
    rng = random.Random(0)
    verifier = verify.resolve("auto")
    difficulty = generators.FAMILIES[task].difficulties[-1]
    for example in generators.generate(task, 200, difficulty, seed=3):
        verdict = verifier(pretrain.wrong_answer(example, rng), example)
        assert verdict.parsed and not verdict.correct, example


def test_no_test_question_is_trained_on():
    pools = pretrain.question_pools(config().pretrain)
    for task, pool in pools.items():
        seen = {example.question for example in pool}
        assert len(seen) > 200
        for difficulty in config().pretrain.tasks[task]:
            # The same seed as the pool's, so the same questions come up; and another.
            for seed in (config().pretrain.seed, 0):
                examples = generators.generate(task, 300, difficulty, seed)
                held_out = {e.question for e in examples if generators.split_of(e) == "test"}
                assert held_out and not held_out & seen


def test_tokenizer_keeps_t5s_conventions():
    made = config()
    pools = pretrain.question_pools(made.pretrain)
    tokenizer = pretrain.train_tokenizer(pools, made)
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    assert tokenizer("pear")["input_ids"][-1] == 1
    codec = Codec(tokenizer, eos_id=1)
    every = "".join(chr(c) for c in range(33, 127))
    for text in (every, "pear plum", "(A)", "twenty-one", "not ( True )"):
        (tokens,) = codec.encode([text])
        assert 2 not in tokens
        assert codec.decode(tokens) == text
    assert codec.encode(["a\n\n b"]) == codec.encode(["a b"])


def test_the_folder_loads_and_is_the_same_twice(tmp_path):
    for name in ("one", "two"):
        pretrain.pretrain(quick(), str(tmp_path / name))
    shape = hf.read_config(tmp_path / "one")
    hf.load_params(tmp_path / "one", shape)
    hf.load_tokenizer(tmp_path / "one", shape)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_a_folder_in_use_is_refused_before_any_work(tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(UserError, match="new or empty folder"):
        pretrain.pretrain(quick(), str(tmp_path))
    assert (tmp_path / "model.safetensors").read_text() == "precious"
