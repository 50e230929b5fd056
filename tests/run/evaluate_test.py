import dataclasses
import json
import re

import numpy as np
import pytest

from hir_jax.data import Example, Splits
from hir_jax.decoding.prompt import Output
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.hindsight.relabel import Goal, Instructions
from hir_jax.model.batching import Buckets
from hir_jax.model.codec import Codec
from hir_jax.run import statistics
from hir_jax.run.asking import Asking
from hir_jax.run.constant import Constant
from hir_jax.run.evaluate import evaluate
from hir_jax.run.evaluation import Evaluation, Score, compare, estimate, table
from hir_jax.run.following import Following
from hir_jax.run.prompts import PromptTable
from hir_jax.run.questions import Questions
from tests import tiny


def free(name, answer, premise=None):
    return Example(name, "q", (), (answer,), "task", premise or name)


EXAMPLES = [
    free("1", "True"),
    free("2", "False", "story"),
    free("3", "True"),
    free("4", "True", "story"),
]
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
                (prompt,) = prompts.prompts([e], Goal(correct))
                self.answers[prompt] = answer

    def prepare(self, params):
        return params

    def __call__(self, params, prompts, key, temperature, samples=1, receive=None, among=None):
        assert (params, temperature, samples) == ("params", 0.0, 1)
        texts = self.codec.encode([self.answers[prompt] for prompt in prompts])
        outputs = [[Output((*ids, self.codec.eos_id), -1.0)] for ids in texts]
        receive({(i, 0): own[0] for i, own in enumerate(outputs)})
        return outputs


def test_evaluation_of_scripted_answers(capsys):
    codec = Codec(tiny.tokenizer(), 1)
    prompts = PromptTable(codec, EXAMPLES, Instructions("correct", "wrong"))
    splits, judge = Splits((), (), tuple(EXAMPLES)), verify.resolve("auto")
    questions = Questions(splits, prompts, Buckets((), ()), judge, {"": None})
    scripted = ScriptedSampler(codec, prompts)
    found = evaluate(Asking(tiny.config(), scripted, "params", questions, EXAMPLES), "asking")
    assert found.asked_correct == Score((True, True, True, False), unparseable=1)
    assert found.asked_wrong == Score((False, True, False, False), unparseable=1)
    assert found.constant == Constant("True", 0.75, tried=2, candidates=2)
    assert found.stories == (0, 1, 2, 1)
    assert found.gap == 0.5
    assert "asking: 100% 8/8" in capsys.readouterr().err
    assert found.scalars() == {
        "accuracy": 0.75,
        "accuracy_asked_wrong": 0.25,
        "gap": 0.5,
        "unparseable": 0.25,
    }


def evaluation(correct, wrong, stories=None, digest="d", constant=None):
    """Of strings of digits, as records have them."""
    scores = [
        Score(tuple(d == "1" for d in digits), digits.count("u")) for digits in (correct, wrong)
    ]
    constant = constant or Constant("four", 0.6, 3, 3)
    return Evaluation(*scores, constant, stories or tuple(range(len(correct))), digest)


FOUND = evaluation("11111111u0", "1111111110")


def test_json_round_trip():
    record = json.loads(json.dumps(FOUND.to_json()))
    assert Evaluation.from_json(record) == FOUND
    assert record["stories"] == ""  # each question is its own
    shared = evaluation("1111", "0000", stories=(0, 1, 1, 0))
    assert Evaluation.from_json(json.loads(json.dumps(shared.to_json()))) == shared
    assert record["asked_correct"]["right"] == "1111111100"
    assert record["asked_correct"]["interval"] == pytest.approx([0.4902, 0.9433], abs=5e-5)
    assert record["gap"] == pytest.approx(-0.1)
    assert record["gap_interval"][0] < -0.1 < record["gap_interval"][1]
    assert (record["n"], record["n_stories"]) == (10, 10)


def test_bounds_are_those_of_the_record():
    bounds, record = FOUND.bounds(), FOUND.to_json()
    assert [bounds["accuracy_low"], bounds["accuracy_high"]] == record["asked_correct"]["interval"]
    assert bounds["accuracy_asked_wrong_high"] == record["asked_wrong"]["interval"][1]
    assert [bounds["gap_low"], bounds["gap_high"]] == record["gap_interval"]


FOLLOWED = dataclasses.replace(
    FOUND, facts={"short": Following((True,) * 9 + (False,), (True,) * 2 + (False,) * 8)}
)


def test_facts_stand_in_the_record_and_nothing_does_where_there_are_none():
    record = json.loads(json.dumps(FOLLOWED.to_json()))
    assert Evaluation.from_json(record) == FOLLOWED
    facts = record.pop("facts")
    assert record == json.loads(json.dumps(FOUND.to_json()))
    short = facts["short"]
    assert short["asked_for"]["share"] == 0.9
    assert short["asked_against"]["share"] == 0.2
    assert short["asked_against"]["holds"] == "1100000000"
    assert short["asked_for"]["interval"] == pytest.approx([0.5958, 0.9821], abs=5e-5)
    assert short["gap"] == pytest.approx(0.7)
    # 7 of 10, and one of each extreme: 7/12 ± 1.96 * sqrt((9/12 - 49/144) / 12).
    assert short["gap_interval"] == pytest.approx([0.2212, 0.9455], abs=5e-4)
    assert FOLLOWED.scalars() == {
        **FOUND.scalars(),
        "fact_short": 0.9,
        "fact_short_asked_against": 0.2,
        "fulfilled": 0.8,
    }


def test_a_policy_is_better_that_fulfils_all_that_is_asked_and_then_the_wider_its_gaps():
    assert FOUND.quality == [0.8, FOUND.gap]
    assert FOLLOWED.fulfilled == (True,) * 8 + (False,) * 2
    assert FOLLOWED.quality == [0.8, pytest.approx((-0.1 + 0.7) / 2)]
    rarely = Following((True,) * 3 + (False,) * 7, (False,) * 10)
    assert dataclasses.replace(FOUND, facts={"short": rarely}).quality == [0.3, pytest.approx(0.1)]


def test_the_table_has_a_line_a_fact():
    lines = table({"before": FOLLOWED, "after": FOLLOWED}).splitlines()
    start = lines.index("") + 1
    assert lines[: start - 1] == table({"before": FOUND, "after": FOUND}).splitlines()
    names = ["fact holds", "all asked for", "it asked against", "difference"]
    assert re.split(r"\s{2,}", lines[start].strip()) == names
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines[start + 2 :]]
    assert [c[0] for c in cells] == [
        *("short, before", "short, after", "all and right, before", "all and right, after"),
    ]
    assert cells[0][1:] == ["90.0% [59.6%, 98.2%]", "20.0% [5.7%, 51.0%]", "+70.0 [+22.1, +94.5]"]
    assert cells[2][1:] == ["80.0% [49.0%, 94.3%]"]


def test_the_record_of_another_version_is_refused():
    record = FOUND.to_json()
    del record["best_constant"]
    with pytest.raises(UserError, match=r"field 'best_constant', found n, .*another version"):
        Evaluation.from_json(record)


def test_estimates_of_one_run_are_paired():
    # Right under p_correct where it is under p_wrong, but for one question.
    few = estimate([evaluation("1010101010", "1010101000")])["gap"]
    unpaired = estimate([evaluation("1010101010", "0101010100")])["gap"]
    assert few.value == unpaired.value == pytest.approx(0.1)
    assert few.high - few.low < (unpaired.high - unpaired.low) / 1.5


def test_estimates_know_stories():
    apart = evaluation("1111100000", "0000011111")
    together = dataclasses.replace(apart, stories=(0,) * 5 + (1,) * 5)
    for name, found in estimate([together]).items():
        narrow = estimate([apart])[name]
        assert found.value == narrow.value
        assert found.high - found.low > narrow.high - narrow.low


def test_estimates_of_several_runs_are_of_their_mean():
    found = estimate([evaluation("1100", "0000"), evaluation("1010", "1000")])
    assert found["asked_correct"].value == 0.5
    assert found["gap"].value == 0.375
    # The first question is right in both, the last in none.
    expected = statistics.accuracy(np.array([1, 0.5, 0.5, 0]), np.arange(4))
    assert found["asked_correct"] == expected


def test_comparison_is_paired_by_question():
    before, after = evaluation("1100110011", "1111111111"), evaluation("1100110111", "0000000000")
    change = compare([after], [before])
    expected = np.array([0] * 7 + [1] + [0] * 2)
    assert change["asked_correct"] == statistics.difference(expected, np.arange(10))
    assert change["asked_wrong"].value == -1
    # A gap may change by as much as two.
    assert change["gap"].value == pytest.approx(1.1)
    assert change["gap"] == statistics.difference(expected + 1, np.arange(10), bound=2.0)


def test_other_questions_are_not_compared():
    with pytest.raises(UserError, match="same questions"):
        compare([FOUND], [dataclasses.replace(FOUND, digest="other")])
    with pytest.raises(UserError, match="same questions"):
        estimate([FOUND, dataclasses.replace(FOUND, digest="other")])


def test_table():
    header, rule, row = table({"after": FOUND}).splitlines()
    names = ["asked correct", "asked wrong", "gap", "unparseable", "best constant", "n", "stories"]
    assert re.split(r"\s{2,}", header.strip()) == names
    assert set(rule) == {"-", " "}
    assert row.split() == [
        "after",
        *("80.0%", "[49.0%,", "94.3%]"),
        *("90.0%", "[59.6%,", "98.2%]"),
        # -1 of 10, and one of each extreme: (-1/12 ± 1.96 * sqrt((3/12 - 1/144) / 12))
        *("-10.0", "[-36.2,", "+19.6]"),
        *("10.0%", "60.0%", '"four"', "10", "10"),
    ]


def test_table_counts_stories_and_shows_what_was_tried():
    tried = Constant("a rather long answer,\nof two lines", 0.6, tried=20, candidates=3000)
    found = evaluation("1100", "1100", stories=(0, 1, 1, 2), constant=tried)
    *_, row, note = table({"after": found}).splitlines()
    assert row.split()[-2:] == ["4", "3"]
    assert '60.0% "a rather long a…"' in row
    assert note == (
        "best constant: all 3,000 answers were tried on some questions, "
        "the 20 most promising on all"
    )


def test_table_with_a_change():
    change = compare([FOUND], [FOUND])
    *_, row = table({"before": FOUND, "after": FOUND}, change).splitlines()
    # Nothing changed in ten questions: ± 1.96 * sqrt(2/12 / 12).
    assert row.split()[:4] == ["change", "+0.0", "[-23.1,", "+23.1]"]
