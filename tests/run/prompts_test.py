import logging

import pytest

from hir_jax.data import Example, Splits
from hir_jax.decoding.prompt import uid
from hir_jax.errors import UserError
from hir_jax.hindsight.relabel import Goal, Instructions
from hir_jax.model.codec import Codec
from hir_jax.run.prompts import PromptTable, check_lengths, check_sides
from tests import tiny

EOS = 1


@pytest.fixture(scope="module")
def codec():
    return Codec(tiny.tokenizer(), EOS)


def ids(text):
    return tuple(tiny.VOCABULARY.index(word) for word in text.split())


def example(name, question):
    return Example(name, question, (), ("True",), "boolean_expressions", question)


def test_prompts_under_both_instructions(codec):
    one = example("t/1", "not True is")
    table = PromptTable(codec, [one], Instructions("correct answer", "wrong"))
    correct = ids("correct answer Q : not True is A :")
    wrong = ids("wrong Q : not True is A :")
    assert table.prompts([one], Goal(True)) == [((*correct, EOS), uid("t/1"))]
    assert table.prompts([one], Goal(False)) == [((*wrong, EOS), uid("t/1"))]
    # Trained on: what was given of the output stands between the prompt and the EOS.
    assert table.source("t/1", Goal(True), ids("False and")) == (*correct, *ids("False and"), EOS)
    assert table.source("t/1", Goal(False), ()) == (*wrong, EOS)
    assert table.length("t/1") == len(correct) + 1


def test_prompts_under_instructions_that_speak_of_facts(codec):
    one, other = example("t/1", "not True is"), example("t/2", "True is")
    facts = {"a": ("with the", "or"), "b": ("and", "not ( )")}
    table = PromptTable(codec, [one, other], Instructions("correct answer", "wrong", facts))
    goal = Goal(False, (("a", True), ("b", False)))
    expected = ids("wrong with the not ( ) Q : not True is A :")
    assert table.source("t/1", goal, ()) == (*expected, EOS)
    # The longer phrase of each: two tokens for a, three for b.
    assert (
        table.length("t/1") == len(ids("correct answer with the not ( ) Q : not True is A :")) + 1
    )
    assert table.length("t/2") == table.length("t/1") - 1


def test_uids_belong_to_the_id_alone():
    # Draws of a run are keyed by them; CRC-32's published check value.
    assert uid("123456789") == 0xCBF43926
    assert len({uid(f"task/{i}") for i in range(1000)}) == 1000


def test_prompts_within_the_limit_pass():
    assert check_lengths({"a": 5, "b": 6}, 6, "error") == set()


def test_longer_prompts_are_refused_with_count_and_longest():
    lengths = {"short": 6, "long": 7, "longest": 9}
    with pytest.raises(UserError) as e:
        check_lengths(lengths, 6, "error")
    message = str(e.value)
    assert "2 of 3 prompts are longer than config.data.max_source_tokens=6" in message
    assert "'longest', has 9" in message
    assert "--config.data.too_long=drop" in message


def test_drop_leaves_longer_prompts_out_and_logs_how_many(caplog):
    with caplog.at_level(logging.WARNING):
        over = check_lengths({"short": 6, "long": 7, "longest": 9}, 6, "drop")
    assert over == {"long", "longest"}
    assert "2 of 3 prompts" in caplog.text


def test_drop_does_not_leave_everything_out():
    with pytest.raises(UserError, match="2 of 2"):
        check_lengths({"a": 7, "b": 8}, 6, "drop")


def sides(codec, *texts):
    """Splits of one question each, and the tokens of their prompts."""
    examples = [example(f"t/{i}", text) for i, text in enumerate(texts)]
    table = PromptTable(codec, examples, Instructions("correct answer", "wrong"))
    return Splits(*((e,) for e in examples)), table.under(Goal(True))


def test_prompts_that_differ_pass(codec):
    check_sides(*sides(codec, "not True is", "True is", "False is"), "premise")


@pytest.mark.parametrize("text", ["not  True is", "not True is", "not\nTrue is"])
def test_the_same_tokens_on_two_sides_are_refused(codec, text):
    with pytest.raises(UserError) as e:
        check_sides(*sides(codec, "not True is", "True is", text), "premise")
    assert "1 prompts of one side are" in str(e.value)
    assert "t/0 in train, t/2 in test: 'not True is'" in str(e.value)


def test_what_the_tokenizer_does_not_tell_apart_is_refused(codec):
    with pytest.raises(UserError, match=r"'猫 is' and '犬 is'.*\n.*tokenizer can tell them apart"):
        check_sides(*sides(codec, "猫 is", "犬 is", "True is"), "premise")


def test_what_the_tokenizer_does_not_tell_apart_may_be_left_out(codec, caplog):
    one, other, third = (example(f"t/{i}", q) for i, q in enumerate(("猫 is", "犬 is", "True is")))
    table = PromptTable(codec, [one, other, third], Instructions("correct answer", "wrong"))
    prompts = table.under(Goal(True))
    assert check_sides(Splits((one, third), (), (other,)), prompts, "premise", "drop") == {"t/0"}
    assert check_sides(Splits((third,), (one, one), (other,)), prompts, "paper", "drop") == set()
    with caplog.at_level(logging.WARNING):
        check_sides(Splits((one, third), (other,), ()), prompts, "premise", "drop")
    assert "1 are left out of the side that comes first" in caplog.text
    with pytest.raises(UserError, match="tokenizer can tell them apart"):
        check_sides(Splits((third,), (one,), (other,)), prompts, "premise", "drop")


def test_the_papers_protocol_leaks_with_a_warning(codec, caplog):
    with caplog.at_level(logging.WARNING):
        check_sides(*sides(codec, "True is", "True is", "True is"), "paper")
    assert "2 prompts of one side are" in caplog.text


def test_questions_that_share_a_side_may_be_the_same(codec):
    one, other = example("t/0", "True is"), example("t/1", "True is")
    table = PromptTable(codec, [one, other], Instructions("correct answer", "wrong"))
    check_sides(Splits((one, other), (), ()), table.under(Goal(True)), "premise")
