"""What passes over samples say of them, on a tiny model."""

import dataclasses

import pytest

from hir_jax.hindsight.sample import Sample
from hir_jax.run import annotate, models, questions
from hir_jax.training import scoring
from tests import tiny


@pytest.fixture(scope="module")
def made():
    config = tiny.config(**{"sample.opposite": True})
    model = models.load_model(config)
    return model, questions.load_questions(config, model.codec)


def samples_of(example_id, *outputs):
    return [
        Sample(example_id, i, tokens, "", correct, True, logprob, 1)
        for i, (tokens, correct, logprob) in enumerate(outputs)
    ]


def test_each_output_has_its_log_probability_under_the_wrong_answer_instruction(made, monkeypatch):
    model, asked = made
    first, second = asked.splits.train[:2]
    samples = [
        *samples_of(first.id, ((5, 1), True, -1.0), ((6, 1), False, -1.0), ((5, 1), True, -1.0)),
        *samples_of(second.id, ((5, 1), False, -1.0)),
    ]
    scored = []

    def counted(params, shape, mesh, pairs, *rest):
        scored.append(len(pairs))
        return scoring.score_tokens(params, shape, mesh, pairs, *rest)

    monkeypatch.setattr(annotate, "score_tokens", counted)
    passes = annotate.Passes(values=False, start=False, opposite=True)
    place = (model.config, model.mesh, model.params, None, 4)
    found = annotate.annotate(samples, passes, asked, *place)
    assert scored == [3]  # what was drawn twice is scored once
    away = asked.instructions.wanted.against(0)
    for sample, each in zip(samples, found, strict=True):
        pair = (asked.prompts.source(sample.example_id, away, ()), sample.tokens)
        (expected,) = scoring.score(
            model.params, model.config, model.mesh, [pair], 4, asked.buckets
        )
        assert each.opposite == pytest.approx(expected, abs=1e-5)
        assert (each.reference, each.values) == ((), ())
    assert found[0].opposite == found[2].opposite != found[1].opposite


def test_what_was_told_apart():
    outputs = [((5, 1), True, -1.0), ((6, 1), False, -3.0), ((7, 1), False, -1.0)]
    samples = samples_of("q", *outputs)
    assert annotate.summary(samples) == {}
    asked_wrong = [dataclasses.replace(s, opposite=-2.0) for s in samples]
    assert annotate.summary(asked_wrong) == {"told_apart": pytest.approx(2 / 3)}
