"""What an iteration trains on: what a method is shown of a run."""

import dataclasses

import pytest

from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample
from hir_jax.methods.method import Method, View, whole
from hir_jax.model.codec import Codec
from hir_jax.run import pairs, settings
from hir_jax.run.questions import load_questions
from hir_jax.training.batch import Layout, TrainingExample, make_batch
from tests import tiny

CODEC = Codec(tiny.tokenizer(), 1)


def test_parts_of_outputs_with_a_forced_beginning_begin_with_it():
    config = tiny.config(**{"sub_output.prob": 1.0})
    method = settings.method_of(config)
    for forced in (None, 5):
        questions = load_questions(config, dataclasses.replace(CODEC, forced_bos_id=forced))
        of = questions.splits.train[0].id
        buffer = [Sample(of, i, (5, 6, 7, 8, 1), "", True, True, 0.0, 1) for i in range(20)]
        view = pairs.view(config, questions, buffer, 1, 0, {})
        made = method.pairs(view)
        assert {pair.target[0] for pair in made} == ({5} if forced else {5, 6, 7, 8})
        assert all((5 in pair.prefix) == (not forced and pair.prefix != ()) for pair in made)
        assert {len(pair.prefix) for pair in made} == set(range(3 if forced else 4))


SAMPLE = Sample("q", 0, (5, 1), "", True, True, 0.0, 1)


class Mine(Method):
    """A user's; its rows are what the test says."""

    of_rows, of_tokens = ("push",), ("advantage",)

    def pairs(self, view):
        return view.state["rows"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (None, "expected `pairs` of Mine to give a list of rows, .* found None"),
        ([SAMPLE], "to give a list of rows, .* found .Sample"),
        (iter([]), "to give a list of rows, .* found <list_iterator"),
        ([whole(SAMPLE, push=1.0)], "each row of Mine to have advantage, push, .* behaviour, push"),
    ],
)
def test_rows_of_a_users_method_that_are_none(rows, says):
    view = View((), (), 1, 0, 0, str, str, 1, {"rows": rows})
    with pytest.raises(UserError, match=says):
        pairs.made(Mine(), view)


def test_scalars_of_tokens_are_as_many_as_these():
    example = TrainingExample((5, 1), (5, 1), (6, 1), True, 1.0, {"push": 1.0, "advantage": [1.0]})
    with pytest.raises(UserError, match=r"for advantage 2 numbers, one a token.*found \[1.0\]"):
        make_batch([example], 1, (2, 2), Layout(False, ("push",), ("advantage",)))
