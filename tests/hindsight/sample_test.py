"""Samples, as files and checkpoints have them."""

import json

import pytest

from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample

PLAIN = Sample("t/0", 1, (5, 1), "blue", True, True, -0.1, 3)
WHOLE = Sample(
    "t/0",
    1,
    (5, 1),
    "blue",
    False,
    True,
    -0.1,
    3,
    "blue",
    reward=0.1 + 0.2,
    facts={"short": True, "whole": False},
    rewards={"exact": 0.0, "my_checks:near": 1 / 3},
    opposite=-2.5,
    logprobs=(-0.1, -1e-17),
    values=(0.0, 1.0),
    reference=(-12.5, float("-inf")),
)


@pytest.mark.parametrize("sample", [PLAIN, WHOLE])
def test_what_is_written_is_read_back(sample):
    again = Sample.from_json(json.loads(json.dumps(sample.to_json())))
    assert again == sample
    assert hash(again) == hash(sample)
    assert {name: type(value) for name, value in vars(again).items()} == {
        name: type(value) for name, value in vars(sample).items()
    }


def test_what_is_empty_is_left_out():
    expected = {
        "example_id": "t/0",
        "index": 1,
        "tokens": [5, 1],
        "text": "blue",
        "correct": True,
        "parsed": True,
        "logprob": -0.1,
        "iteration": 3,
        "read": "",
        "reward": 1.0,
    }
    assert PLAIN.to_json() == expected
    also = {"facts", "rewards", "opposite", "logprobs", "values", "reference"}
    assert WHOLE.to_json().keys() == expected.keys() | also


def test_the_records_of_earlier_versions_are_read():
    record = PLAIN.to_json()
    del record["read"], record["reward"]
    assert Sample.from_json(record) == PLAIN
    assert Sample.from_json(record | {"correct": False}).reward == 0.0


def test_whole_numbers_of_a_file_are_floats():
    record = json.loads(json.dumps(WHOLE.to_json()).replace("-0.1", "-2"))
    again = Sample.from_json(record)
    assert (again.logprob, again.logprobs[0]) == (-2.0, -2.0)
    assert isinstance(again.logprob, float) and isinstance(again.logprobs[0], float)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"mood": 1}, "field 'mood' is unknown"),
        ({"mood": 1, "text": None}, "'mood' is unknown; 'text' must be str, found None"),
        ({"index": "0"}, "'index' must be int, found '0'"),
        ({"index": True}, "'index' must be int, found True"),
        ({"correct": 1}, "'correct' must be bool"),
        ({"tokens": [5, "3"]}, "'tokens' must hold integers from 0"),
        ({"tokens": [5, -1]}, "'tokens' must hold integers from 0"),
        ({"reward": "1"}, "'reward' must be float, found '1'"),
        ({"reward": None}, "'reward' must be float, found None"),
        ({"reward": 1.5}, r"rewards must be numbers from 0 to 1, found \[1.5"),
        ({"reward": float("nan")}, "rewards must be numbers from 0 to 1"),
        ({"rewards": {"exact": "1"}}, "rewards must be numbers from 0 to 1"),
        ({"rewards": [1.0]}, "'rewards' must be dict"),
        ({"facts": {"short": 1}}, "'facts' must be true or false"),
        ({"logprobs": [-0.1]}, r"'logprobs' must hold a number for each token, found \[-0.1\]"),
        ({"values": ["a", "b"]}, "'values' must hold a number for each token"),
        ({"reference": -1.0}, "'reference' must be list"),
    ],
)
def test_faulty_records(changes, fault):
    with pytest.raises(UserError, match=rf"line 3: not a sample as hir_jax writes it:.*{fault}"):
        Sample.from_json(WHOLE.to_json() | changes, "line 3")


def test_what_is_missing_is_listed():
    with pytest.raises(UserError, match=r"'index' is missing; .*'iteration' is missing"):
        Sample.from_json({"example_id": "t/0"})
    with pytest.raises(UserError, match="expected a JSON object, found 3"):
        Sample.from_json(3)


def test_all_faults_of_a_record_are_listed():
    record = WHOLE.to_json() | {"mood": 1, "parsed": 0, "facts": {"short": "yes"}}
    del record["text"]
    with pytest.raises(UserError) as e:
        Sample.from_json(record)
    for fault in ("'text' is missing", "'mood' is unknown", "'parsed' must be", "'facts' must be"):
        assert fault in str(e.value)
