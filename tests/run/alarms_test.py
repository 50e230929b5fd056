"""What is wrong with a run, though it goes on."""

import pytest

from hir_jax.run import alarms
from hir_jax.run.alarms import Alarms, of_evaluations, of_samples, of_step, told

SAMPLES = {
    "size": 8,
    "questions": 4,
    "repeated": 0.25,
    "correct": 0.5,
    "all_right": 0.25,
    "all_wrong": 0.25,
}
STEP = {"entropy": 0.5}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"repeated": 0.5}, "all samples of each question are equal"),
        (
            {"repeated": 0.5, "correct": 1.0, "all_right": 1.0, "all_wrong": 0.0},
            "all samples are right",
        ),
        ({"correct": 0.0, "all_right": 0.0, "all_wrong": 1.0}, "all samples are wrong"),
        ({"repeated": 0.0, "size": 4}, None),  # one sample each
        ({"all_right": 0.75}, "no question has both"),
        ({"kl_to_start": 3.0}, None),
        ({"kl_to_start": 21.0}, "more than 20 nats"),
        ({"kl_to_start": -0.05}, None),
        ({"kl_to_start": -0.5}, "below 0"),
    ],
)
def test_of_samples(changes, says):
    found = list(of_samples(SAMPLES | changes))
    assert len(found) == (says is not None)
    assert says is None or says in found[0]


@pytest.mark.parametrize(
    ("changes", "first", "says"),
    [
        ({}, True, None),
        ({"entropy": 1e-4}, False, "entropy is below"),
        ({"ratio_off": 1e-5}, True, None),
        ({"ratio_off": 0.2}, True, "from 1 at the first step"),
        ({"ratio_off": 0.2}, False, None),
        ({"kl_behaviour": 0.5, "kl": 0.5}, False, None),
        ({"kl_behaviour": 1.5}, False, "away from the policy that drew"),
        ({"kl": 1.5}, False, "away from the start"),
        ({"kl": -0.1}, False, "the divergence from the start is below 0"),
    ],
)
def test_of_a_step(changes, first, says):
    found = list(of_step(STEP | changes, first))
    assert len(found) == (says is not None)
    assert says is None or says in found[0]


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [
        ([0.5], False),
        ([0.5, 0.4, 0.4], False),
        ([0.5, 0.4, 0.3, 0.4], True),
        ([0.5, 0.4, 0.5, 0.4, 0.4], False),
        ([0.5, 0.6, 0.4, 0.4, 0.4], True),
        ([0.5, 0.4, 0.4, 0.4, 0.5], False),
    ],
)
def test_of_evaluations(accuracies, told):
    assert len(list(of_evaluations(accuracies))) == told


def test_nothing_to_train_on_is_counted():
    counts = {}
    for count in (0, 3, 0):
        Alarms(counts, lambda line: None).pairs(count)
    assert counts == {"an iteration had nothing to train on": 2}


def test_each_kind_is_told_once_and_counted(caplog):
    counts, written = {}, []
    watch = Alarms(counts, written.append)
    for _ in range(3):
        watch.step(STEP | {"kl": 2.0}, first=False)
    watch.samples(SAMPLES | {"repeated": 0.5})
    assert sorted(counts.values()) == [1, 3]
    assert [line["alarm"] for line in written] == list(counts)
    assert caplog.text.count("ALARM") == 2
    # A run that goes on does not tell again what it has told.
    Alarms(counts, written.append).step(STEP | {"kl": 2.0}, first=False)
    assert len(written) == 2 and max(counts.values()) == 4
    assert told(counts).splitlines()[0].startswith("alarm (4x): the policy is more than 1 nats")
    assert told({}) == "" and alarms.RATIO_OFF < 0.2
