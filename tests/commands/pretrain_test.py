"""The small base model: what it is trained on, and what is written."""

import itertools
import pathlib

import pytest

from configs import pretrain as pretrain_config
from hir_jax.commands import pretrain
from hir_jax.data import generators
from hir_jax.data.example import format_prompt
from hir_jax.data.generators import words
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.model import hf
from hir_jax.model.codec import Codec

CARDINALS = [words.number_word(n) for n in range(20)]


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
    verifier = verify.resolve("auto")
    difficulty = generators.FAMILIES[task].difficulties[-1]
    for example in generators.generate(task, 200, difficulty, seed=3):
        verdict = verifier(pretrain.wrong_answer(example), example)
        assert verdict.parsed and not verdict.correct, example


def test_mistakes_of_each_family():
    def mistake(task, difficulty):
        (example,) = generators.generate(task, 1, difficulty, seed=0)
        return example.targets[0], pretrain.wrong_answer(example)

    assert mistake("word_sorting", 4) == ("air egg more plum", "egg air more plum")
    right, wrong = mistake("boolean_expressions", 4)
    assert {right, wrong} == {"True", "False"}
    right, wrong = mistake("object_counting", 4)
    assert words.number_word(1 + int(CARDINALS.index(right))) == wrong
    right, wrong = mistake("tracking_shuffled_objects", 3)
    assert f"({'ABCA'['ABC'.index(right[1]) + 1]})" == wrong


def test_no_test_question_is_trained_on():
    pools = pretrain.question_pools(config().pretrain)
    for task, pools_of_task in pools.items():
        seen = {example.question for pool in pools_of_task for example in pool}
        assert len(seen) > 200
        for difficulty in config().pretrain.tasks[task]:
            # The same seed as the pool's, so the same questions come up; and another.
            for seed in (config().pretrain.seed, 0):
                examples = itertools.islice(generators.stream(task, difficulty, seed), 300)
                held_out = {e.question for e in examples if generators.split_of(e) == "test"}
                assert held_out and not held_out & seen


def test_a_pool_has_what_there_is_of_an_easy_task():
    settings = config(**{"pretrain.size": 120}).pretrain
    with settings.unlocked():
        settings.tasks = {"object_counting": (1, 2)}
    easy, harder = pretrain.question_pools(settings)["object_counting"]
    assert len(easy) == 117 and len(harder) == 120  # 160 questions in all, 70% to train on


def test_mistakes_come_in_the_second_phase_only():
    made = config(**{"pretrain.right_steps": pretrain.BATCHES_A_DRAW, "pretrain.batch_size": 8})
    with made.pretrain.unlocked():
        made.pretrain.tasks = {"boolean_expressions": (3,)}
    pools = pretrain.question_pools(made.pretrain)
    codec = Codec(pretrain.train_tokenizer(pools, made), eos_id=1)
    answer_to = {}
    for example in pools["boolean_expressions"][0]:
        for instruction in (made.instruction.correct, made.instruction.wrong):
            answer_to[codec.encode([format_prompt(instruction, example)])[0]] = example.targets[0]
    shares = []
    batches = pretrain.training_batches(pools, codec, made)
    for _ in range(2):
        right = [
            codec.decode(target[mask].tolist()) == answer_to[(*source[source_mask][:-1].tolist(),)]
            for batch in itertools.islice(batches, pretrain.BATCHES_A_DRAW)
            for source, source_mask, target, mask in zip(
                batch.sources_BxPxS[:, 0],
                batch.source_masks_BxPxS[:, 0],
                batch.targets_BxT,
                batch.target_mask_BxT,
                strict=True,
            )
        ]
        shares.append(sum(right) / len(right))
    assert shares[0] == 1 and 0.35 < shares[1] < 0.65


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


def test_a_model_that_is_not_finite_is_not_written(tmp_path):
    made = quick()
    with made.unlocked():
        made.pretrain.learning_rate = 1e30
    with pytest.raises(UserError, match=r"finite numbers in pretraining.*pretrain.learning_rate"):
        pretrain.pretrain(made, str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_the_shipped_model_is_the_configs():
    made = pretrain_config.get_config()
    tokenizer = pretrain.train_tokenizer(pretrain.question_pools(made.pretrain), made)
    folder = pathlib.Path(__file__).parents[2] / "assets" / "tiny"
    shape = hf.read_config(folder)
    assert hf.load_tokenizer(folder, shape).get_vocab() == tokenizer.get_vocab()
    expected = pretrain._raw_config(made.pretrain, len(tokenizer))
    assert hf.read_raw_config(folder).items() >= expected.items()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8e6


def test_a_folder_in_use_is_refused_before_any_work(tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(UserError, match="new or empty folder"):
        pretrain.pretrain(quick(), str(tmp_path))
    assert (tmp_path / "model.safetensors").read_text() == "precious"
