"""What a checkpoint says of a run's place, by this hir_jax and by others."""

import pytest

from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample
from hir_jax.run.progress import Progress

SAMPLE = Sample("q", 0, (3, 1), "True", True, True, -0.5, 2)


def test_what_is_written_is_read_back():
    progress = Progress(iteration=2, steps=7, buffer=(SAMPLE,), best=[0.5, 0.1])
    assert Progress.from_json(progress.to_json()) == progress


def test_absent_fields_have_their_defaults():
    assert Progress.from_json({"iteration": 3}) == Progress(iteration=3)


def test_fields_of_another_type_are_of_another_version():
    with pytest.raises(UserError, match=r"steps: expected int, found '7'; method: expected dict"):
        Progress.from_json({"iteration": 3, "steps": "7", "method": [1]})


def test_unknown_fields_are_of_a_later_version():
    with pytest.raises(UserError, match=r"unknown to this hir_jax: \['mood'\]"):
        Progress.from_json({"iteration": 3, "mood": "good"})
