"""Answers that a tokenizer cannot write, prompts that it cannot read."""

import logging

import pytest

from hir_jax.data import Example
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.model.codec import Codec
from hir_jax.run import writing
from tests import tiny

CODEC = Codec(tiny.tokenizer(), 1)
EXACT = verify.resolve("exact")


def example(name, *answers):
    return Example(name, "True is", (), answers, "t", name)


def check(*examples, verifier=EXACT, unwritable="error"):
    return writing.check_answers(CODEC, examples, verifier, unwritable)


def test_answers_that_come_back_are_no_fault(caplog):
    assert check(example("a", "True"), example("b", "not", "False")) == set()
    assert not caplog.records


def test_an_answer_without_tokens_is_refused_or_left_out(caplog):
    examples = example("a", "True"), example("b", "maybe")
    with pytest.raises(UserError) as e:
        check(*examples)
    assert str(e.value) == (
        "1 of 2 answers cannot be written by the model's tokenizer: that of 'b', 'maybe', comes "
        "back as '<unk>'. Spell the answers otherwise, take another model, or leave such questions "
        "out with --config.data.unwritable=drop."
    )
    assert check(*examples, unwritable="drop") == {"b"}
    assert caplog.records[-1].getMessage().endswith("They are left out.")
    with pytest.raises(UserError, match="1 of 1 answers"):
        check(examples[1], unwritable="drop")


def test_an_answer_that_is_a_special_token_cannot_be_written():
    with pytest.raises(UserError, match="'</s>', comes back as"):
        check(example("a", "True"), example("b", "</s>"))


def test_a_further_answer_that_cannot_be_written_is_told(caplog):
    assert check(example("a", "True", "maybe")) == set()
    assert "1 further accepted answers" in caplog.records[-1].getMessage()


def test_a_verifier_that_takes_no_answer_as_it_stands_has_its_own_mind():
    never = lambda text, example: verify.Verdict(False, True)  # noqa: E731
    assert check(example("a", "maybe"), verifier=never) == set()


def test_prompts_with_unknown_characters_are_counted(caplog):
    caplog.set_level(logging.WARNING)
    prompts = dict(zip("abc", CODEC.encode(["True is", "x^2 is", "日 and"]), strict=True))
    writing.tell_unknown(CODEC, "prompts", {"a": prompts["a"]})
    assert not caplog.records
    writing.tell_unknown(CODEC, "prompts", prompts)
    assert "2 of 3 prompts" in caplog.text and "'b' reads '<unk><unk><unk>is'" in caplog.text
