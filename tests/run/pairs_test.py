"""What an iteration trains on: what a method is shown of a run."""

import dataclasses

from hir_jax.hindsight.sample import Sample
from hir_jax.model.codec import Codec
from hir_jax.run import pairs, settings
from hir_jax.run.questions import load_questions
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
