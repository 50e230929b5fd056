"""The small base model: what it is trained on, and what is written."""

import itertools
import pathlib

import pytest

from configs import pretrain as pretrain_config
from hir_jax.commands import pretrain
from hir_jax.data import generators
from hir_jax.data.example import format_prompt
from hir_jax.errors import UserError
from hir_jax.model import hf
from hir_jax.model.codec import Codec


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


def test_mistakes_come_in_the_second_phase_only_and_more_where_they_are_asked_for():
    made = config(**{"pretrain.right_steps": pretrain.BATCHES_A_DRAW, "pretrain.heed": 2.0})
    with made.pretrain.unlocked():
        made.pretrain.tasks = {"boolean_expressions": (3,)}
    pools = pretrain.question_pools(made.pretrain)
    codec = Codec(pretrain.train_tokenizer(pools, made), eos_id=1)
    known = {}
    for example in pools["boolean_expressions"][0]:
        for asked in ("correct", "wrong"):
            (prompt,) = codec.encode([format_prompt(made.instruction[asked], example)])
            known[(*prompt, codec.eos_id)] = example.targets[0], asked
    shares = []
    batches = pretrain.training_batches(pools, codec, made)
    for _ in range(2):
        right = {"correct": [], "wrong": []}
        for batch in itertools.islice(batches, pretrain.BATCHES_A_DRAW):
            for source, source_mask, target, mask in zip(
                batch.sources_BxPxS[:, 0],
                batch.source_masks_BxPxS[:, 0],
                batch.targets_BxT,
                batch.target_mask_BxT,
                strict=True,
            ):
                answer, asked = known[(*source[source_mask].tolist(),)]
                right[asked].append(codec.decode(target[mask].tolist()) == answer)
        shares.append({asked: sum(each) / len(each) for asked, each in right.items()})
    assert shares[0] == {"correct": 1, "wrong": 1}
    # Rates of 3 to 80%, their odds e times as low and e times as high, averaged over the questions.
    assert 0.7 < shares[1]["correct"] < 0.85
    assert 0.35 < shares[1]["wrong"] < 0.5


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


def test_the_folder_loads_and_is_the_same_twice(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pretrain, "TELL", 2)
    caplog.set_level("INFO")
    for name in ("one", "two"):
        pretrain.pretrain(quick(), str(tmp_path / name))
    shape = hf.read_config(tmp_path / "one")
    hf.load_params(tmp_path / "one", shape)
    hf.load_tokenizer(tmp_path / "one", shape)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    assert sum(line.startswith("step 2: loss ") for line in caplog.messages) == 2


def test_a_model_that_is_not_finite_is_not_written(tmp_path):
    made = quick()
    with made.unlocked():
        made.pretrain.learning_rate = 1e30
    with pytest.raises(UserError, match=r"finite numbers in pretraining.*pretrain.learning_rate"):
        pretrain.pretrain(made, str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_the_shipped_model_is_the_configs():
    made = pretrain_config.get_config()
    made.pretrain.size = made.pretrain.tokenizer_questions  # of more the tokenizer reads no more
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


def test_a_warm_up_of_all_steps_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"fewer than the 3 of config\.pretrain\.steps; found 3"):
        pretrain.pretrain(
            config(**{"pretrain.steps": 3, "pretrain.warmup_steps": 3}), tmp_path / "a"
        )
