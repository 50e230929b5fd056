import re

import pytest

from hir_jax.data import Example
from hir_jax.decoding.prompt import Output
from hir_jax.hindsight import verify
from hir_jax.hindsight.relabel import Instructions
from hir_jax.model.codec import Codec
from hir_jax.run.evaluate import Evaluation, Score, evaluate, majority_baseline, table
from hir_jax.run.prompts import PromptTable
from tests import tiny


# Wilson, 1927, with z = 1.959964, by hand: centre (p + z²/2n) / (1 + z²/n), half width
# z/(1 + z²/n) * sqrt(p(1-p)/n + z²/4n²).
@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_interval(correct, n, low, high):
    assert Score(correct, 0, n).interval == pytest.approx((low, high), abs=5e-5)


def free(name, *answers):
    return Example(name, "q", (), answers, "task", name)


def choice(name, options, *answers):
    return Example(name, "q", options, answers, "task", name)


def test_majority_baseline_of_free_answers():
    # "4" is right for three of four questions, though it is listed first for two only.
    examples = [free("1", "four", "4"), free("2", "4"), free("3", "5"), free("4", "4", "four")]
    assert majority_baseline(examples) == 0.75


def test_majority_baseline_of_choices_is_a_letter():
    # "(A)" is right twice, "(B)" twice (once beside "(A)"), "blue" never counts as a text.
    examples = [
        choice("1", ("blue", "red"), "blue"),
        choice("2", ("red", "blue"), "blue"),
        choice("3", ("red", "blue"), "red", "blue"),
    ]
    assert majority_baseline(examples) == pytest.approx(2 / 3)


def test_majority_baseline_counts_an_answer_given_twice_once():
    assert majority_baseline([free("1", "a", "a", "a"), free("2", "b"), free("3", "b")]) == 2 / 3


EXAMPLES = [free("1", "True"), free("2", "False"), free("3", "True"), free("4", "True")]
SCRIPT = {  # under p_correct, under p_wrong
    "1": ("True", "False"),
    "2": ("False", "False"),
    "3": ("True", "not"),
    "4": ("", ""),
}


class ScriptedSampler:
    def __init__(self, codec, prompts):
        self.codec = codec
        self.answers = {}
        for e in EXAMPLES:
            for correct, answer in zip((True, False), SCRIPT[e.id], strict=True):
                (prompt,) = prompts.prompts([e], correct)
                self.answers[prompt] = answer

    def prepare(self, params):
        return params

    def __call__(self, params, prompts, key, temperature, samples=1, progress=None):
        assert (params, temperature, samples) == ("params", 0.0, 1)
        progress(len(prompts))
        texts = self.codec.encode([self.answers[prompt] for prompt in prompts])
        return [[Output((*ids, self.codec.eos_id), -1.0)] for ids in texts]


def test_evaluation_of_scripted_answers():
    codec = Codec(tiny.tokenizer(), 1)
    prompts = PromptTable.build(codec, EXAMPLES, Instructions("correct", "wrong"))
    done = []
    found = evaluate(
        ScriptedSampler(codec, prompts),
        "params",
        EXAMPLES,
        prompts,
        codec,
        verify.resolve("auto"),
        progress=done.append,
    )
    assert found.asked_correct == Score(correct=3, unparseable=1, n=4)
    assert found.asked_wrong == Score(correct=1, unparseable=1, n=4)
    assert found.majority == 0.75
    assert found.gap == 0.5
    assert sum(done) == 8
    assert found.scalars() == {
        "accuracy": 0.75,
        "accuracy_asked_wrong": 0.25,
        "gap": 0.5,
        "unparseable": 0.25,
    }


FOUND = Evaluation(Score(8, 1, 10), Score(9, 0, 10), majority=0.6)


def test_json_round_trip():
    record = FOUND.to_json()
    assert Evaluation.from_json(record) == FOUND
    assert record["gap"] == pytest.approx(-0.1)
    assert record["asked_correct"]["interval"] == pytest.approx([0.4902, 0.9433], abs=5e-5)


def test_table():
    header, rule, row = table({"after": FOUND}).splitlines()
    names = ["asked correct", "asked wrong", "gap", "unparseable", "majority", "n"]
    assert re.split(r"\s{2,}", header.strip()) == names
    assert set(rule) == {"-", " "}
    assert row.split() == [
        "after",
        *("80.0%", "[49.0%,", "94.3%]"),
        *("90.0%", "[59.6%,", "98.2%]"),
        *("-10.0", "10.0%", "60.0%", "10"),
    ]
