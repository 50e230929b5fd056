"""What is measured before a run, and what is advised by it."""

import dataclasses
import json

import numpy as np
import pytest

from hir_jax.commands import advice, pace
from hir_jax.commands.advice import Measured, advise
from hir_jax.commands.diagnose import ask, diagnose, possible_answers
from hir_jax.commands.diagnosis import spoken
from hir_jax.commands.drawn import Drawn
from hir_jax.commands.pace import Pace, Timed
from hir_jax.data import Example, Splits
from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample
from hir_jax.run.statistics import Estimate, accuracy
from tests import tiny

pytestmark = pytest.mark.usefixtures("cache")


# Advice -------------------------------------------------------------------------------------------

HARD = Measured(
    greedy=Estimate(0.4, 0.3, 0.5),
    constant=0.1,
    found={1: 0.3, 2: 0.5, 4: 0.6, 8: 0.7},
    unparseable=0.0,
    distinct=3.0,
    answers=10.0,
    accepted=1.0,
    both=False,
)
EASY = {"found": {1: 0.5, 2: 0.8, 4: 0.9, 8: 0.95}}
RIGHT = {"greedy": Estimate(0.97, 0.9, 1.0), "found": {1: 0.92, 2: 0.95}}
CASES = [  # in the order of the rules
    ({"both": True, **EASY}, "hir", 4, "hir alone trains on both"),
    ({"unparseable": 0.6}, "sft", None, "60% of the samples cannot be read"),
    (RIGHT, "farl", 1, "right to 97% of the questions"),
    ({"found": {1: 0.0, 2: 0.0, 4: 0.04}}, "sft", None, "Of 4 samples one is right for 4% of"),
    ({"constant": 0.35, **EASY}, "sft", None, "(40%, at least 30%) are not shown to be better"),
    (EASY, "farl", 4, "Most questions have a right sample among 8"),
    ({}, "topr", 8, "30% of the questions have no right sample among 8"),
]


@pytest.mark.parametrize(("changes", "algorithm", "samples", "says"), CASES)
def test_advice_and_its_reason(changes, algorithm, samples, says):
    found = advise(dataclasses.replace(HARD, **changes))
    assert (found.algorithm, found.samples) == (algorithm, samples)
    assert says in found.reasons[0]
    if samples:
        assert "among 1" in found.reasons[1]


def test_every_rule_has_a_case_and_stands_where_the_case_finds_it():
    assert len(CASES) == len(advice.METHODS)
    for rule, (changes, *_) in zip(advice.METHODS, CASES, strict=True):
        assert rule.holds(dataclasses.replace(HARD, **changes))


def test_without_true_answers_none_are_advised_to_train_on():
    for changes in ({"unparseable": 0.6}, {"found": {1: 0.0, 4: 0.0}}, {"constant": 0.35}):
        found = advise(dataclasses.replace(HARD, accepted=0.2, **changes))
        assert found.algorithm == "topr"
        assert any("takes 20% of the true answers" in reason for reason in found.reasons)
        assert not any("sft" in reason for reason in found.reasons)


def test_remarks_on_what_was_measured():
    def remarks(**changes):
        return " ".join(advise(dataclasses.replace(HARD, **changes)).reasons)

    assert "two possible answers" in remarks(answers=2.0)
    assert "two possible answers" not in remarks(answers=3.0)
    assert "raise config.sample.temperature" in remarks(distinct=1.0)
    assert "raise config.sample.temperature" not in remarks(distinct=1.0, found={1: 0.5})
    assert "compare with sft" in remarks()
    assert "compare with sft" not in remarks(unparseable=0.6)  # which advises it
    assert "diagnose.both" in remarks()
    assert "diagnose.both" not in remarks(both=True)


# Figures ------------------------------------------------------------------------------------------

NAMED = {"a": "yyyy", "b": "nyny", "c": "nnn?"}  # right, wrong or unreadable


def sample(name, index, kind):
    return Sample(
        example_id=name,
        index=index,
        tokens=(5,) * (index + 1),
        text=f"text {kind}",
        correct=kind == "y",
        parsed=kind != "?",
        logprob=-0.5,
        iteration=1,
        read="" if kind == "?" else kind,
    )


def test_figures_of_samples_by_hand():
    samples = [sample(n, i, kind) for n, kinds in NAMED.items() for i, kind in enumerate(kinds)]
    drawn = Drawn.of(samples, 4, (0, 1, 2))
    assert drawn.right == (4, 2, 0)
    # Of b's six pairs of samples one has no right one.
    values = {k: e.value for k, e in drawn.found.items()}
    assert values == pytest.approx({1: 1.5 / 3, 2: (1 + 5 / 6) / 3, 4: 2 / 3})
    assert drawn.found[1] == accuracy(np.array([1, 0.5, 0]), np.arange(3))
    # b's first sample is wrong, and among equals the first counts.
    assert {k: e.value for k, e in drawn.majority.items()} == {1: 1 / 3, 2: 1 / 3, 4: 1 / 3}
    assert (drawn.distinct, drawn.answers) == (5 / 3, 5 / 3)
    assert drawn.unparseable == pytest.approx(1 / 12)
    assert (drawn.nats, drawn.summary["tokens_mean"]) == (0.5, 2.5)
    assert drawn.histogram() == {"0%": 1, "to 20%": 0, "to 60%": 1, "below 100%": 0, "100%": 1}
    assert drawn.tables().count("#" * 13) == 3  # of 40 for all
    assert json.loads(json.dumps(drawn.to_json()))["found"]["4"]["value"] == 2 / 3


def test_a_rate_belongs_to_the_bin_that_it_ends():
    found = Drawn(10, (0, 1, 2, 3, 6, 7, 9, 10), {}, {}, 1, 1, 1, {}).histogram()
    assert list(found.values()) == [1, 2, 2, 2, 1]
    # Stories count together: an interval of two that are wholly alike is wider than of four.
    samples = [sample(n, 0, kind) for n, kind in zip("abcd", "yynn", strict=True)]
    apart, together = (Drawn.of(samples, 1, s).found[1] for s in ((0, 1, 2, 3), (0, 0, 1, 1)))
    assert together.low < apart.low


def test_possible_answers():
    def example(answer, *options):
        return Example(answer, answer, options, (answer,), "task", answer)

    assert possible_answers([example("x"), example("y"), example("x")]) == 2
    assert possible_answers([example("x", "x", "y"), example("y", "x", "y", "z", "w")]) == 3


# Time ---------------------------------------------------------------------------------------------

PACE = Pace(Timed(0.01, 5.0), Timed(0.001), Timed(0.5, 9.0), rows=3.0, lengths=(64, 8))


@pytest.mark.parametrize(
    ("changes", "samples", "steps"),
    [
        ({}, 40, 2 * 4),  # 30 rows in batches of 8, two epochs
        ({"algorithm": "rloo"}, 40, 4),  # one
        ({"algorithm": "sft"}, 0, 8),
        ({"replay.max_size": 16}, 40, 2 * 2),
        ({"algorithm": "grpo", "replay.max_size": 16}, 40, 8),  # reads no such field
    ],
)
def test_the_work_of_an_iteration_by_hand(changes, samples, steps):
    config = tiny.config(**{"sample.samples": 4, "evaluate.every": 2, **changes})
    found = pace.expected(config, PACE, train=10, dev=6, asked=2)
    assert (found.samples, found.steps, found.answers) == (samples, steps, 6)
    assert list(found.seconds.values()) == pytest.approx(
        [samples * 0.01, samples * 0.001, steps * 0.5, 6 * 0.01]
    )


def test_what_is_timed_is_the_second_time(monkeypatch):
    clock = iter([0.0, 7.0, 7.0, 9.0])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
    done = []
    assert pace.timed(lambda: done.append(1) or len(done), 4) == (2, Timed(0.5, 5.0))


def test_seconds_as_people_say_them():
    assert [*map(spoken, (0.84, 119, 720, 12240))] == ["0.8 s", "119.0 s", "12 min", "3.4 h"]


# The mode -----------------------------------------------------------------------------------------


def test_a_page_and_its_figures_and_the_model_is_as_it_was(tmp_path):
    file = tmp_path / "diagnosis.json"
    changes = {"diagnose.questions": 8, "diagnose.samples": 4, "sample.kl_to_start": True}
    config = tiny.config(**changes)
    before = (tiny.folder() / "model.safetensors").read_bytes()
    page = diagnose(config, None, str(file))
    found = json.loads(file.read_text())
    titles = ["Greedy answers", "Samples", "Time", "Advice"]
    assert [line for line in page.splitlines() if line in titles] == titles
    assert "questions asked: 8" in page and "training questions: 12" in page
    assert f"--config.algorithm={found['advice']['algorithm']}" in page
    assert (found["greedy"]["n"], found["possible_answers"]) == (8, 2)
    drawn = found["drawn"]
    assert (len(drawn["right"]), drawn["count"]) == (8, 4)
    assert sum(drawn["right"]) == round(32 * drawn["found"]["1"]["value"])
    assert list(drawn["found"]) == list(drawn["majority"]) == ["1", "2", "4"]
    seconds = found["iteration"]["seconds"]
    assert all(value > 0 for value in seconds.values())
    assert found["iteration"]["samples"] == 12 * 2  # the run's own R
    # Two samples a question, repeats dropped.
    assert 1 <= found["pace"]["rows"] <= 2
    assert (tiny.folder() / "model.safetensors").read_bytes() == before
    with pytest.raises(UserError, match="is there already"):
        diagnose(config, None, str(file))


def test_questions_are_drawn_from_the_training_side_by_the_seed():
    train = tuple(Example(f"{i}", "q", (), ("a",), "task", f"{i}") for i in range(50))

    @dataclasses.dataclass
    class Questions:
        splits: Splits

    def drawn(**changes):
        sides = Splits(train, train[:1], train[1:2])
        return ask(Questions(sides), tiny.config(**changes)).splits.train

    few = {"diagnose.questions": 9}
    assert len(set(drawn(**few))) == 9 and set(drawn(**few)) < set(train)
    assert drawn(**few) == drawn(**few) != drawn(**few, seed=1)
    assert drawn() == train  # fewer than are asked for
    with pytest.raises(UserError, match=r"expected training questions, found none; sizes are {'tr"):
        ask(Questions(Splits((), (), train)), tiny.config())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"diagnose.samples": 0}, r"config\.diagnose\.samples: expected 1 or more; found 0"),
        ({"diagnose.questions": 0}, r"config\.diagnose\.questions: expected 1 or more; found 0"),
        ({"algorithm": "rloo", "diagnose.samples": 1}, "expected 2 or more with algorithm=rloo"),
        ({"model.path": "./nowhere"}, r"model\.path.*'\./nowhere'"),
        ({"train.batch_size": 12}, r"train\.batch_size: expected a multiple of 8"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(changes, says):
    with pytest.raises(UserError, match=says):
        diagnose(tiny.config(**changes), None, None)
