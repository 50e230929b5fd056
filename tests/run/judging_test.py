"""Verdicts are given while the device works on other outputs, and are the same as afterwards."""

import dataclasses

import jax
import pytest

from hir_jax.data.example import Example
from hir_jax.decoding import beam, sampler
from hir_jax.decoding.prompt import Output
from hir_jax.hindsight import verify
from hir_jax.model.codec import Codec
from hir_jax.run import answering, drawing, evaluate, judging, models, questions
from hir_jax.run.asking import Asking
from tests import tiny
from tests.decoding import sampler_test

CODEC = Codec(tiny.tokenizer(), 1)
EXACT = verify.resolve("exact")
EXAMPLES = [Example(name, "q", (), (name,), "t", name) for name in ("True", "False")]
PAD, KEY = 0, jax.random.key(3)


def output(text):
    return Output((*CODEC.encode([text])[0], CODEC.eos_id), -1.0)


UNREADABLE = Output((*output("True").tokens[:-1], PAD, CODEC.eos_id), -1.0)
POOLS = (  # an output of the first question ends last
    {(1, 0): output("False"), (0, 1): output("not")},
    {(1, 1): UNREADABLE, (0, 0): output("True")},
)


def test_each_pool_is_judged_before_more_is_drawn():
    events = []

    def verifier(text, example):
        events.append((text, example.id))
        return EXACT(text, example)

    def draw(receive):
        for pool in POOLS:
            receive(pool)
            events.append("drawn")

    found = judging.judged_as_drawn(draw, verifier, EXAMPLES, CODEC, events.append)
    first = [2, ("False", "False"), ("not", "True"), "drawn"]
    assert events == [*first, 2, ("True", "True"), "drawn"]
    outputs = [[(POOLS[0] | POOLS[1])[i, sample] for sample in range(2)] for i in range(2)]
    assert found == judging.judged(EXACT, EXAMPLES, outputs, CODEC)
    samples = judging.as_samples(EXAMPLES, found, iteration=5)
    assert [(s.example_id, s.index, s.correct, s.parsed) for s in samples] == [
        ("True", 0, True, True),
        ("True", 1, False, True),
        ("False", 0, True, True),
        ("False", 1, False, False),
    ]


@pytest.mark.parametrize("faulty", ["progress", "verifier"])
def test_a_fault_stops_the_draws(faulty):
    def stop(*_):
        raise KeyboardInterrupt

    def draw(receive):
        receive(POOLS[0])
        raise AssertionError("went on")

    calls = {"verifier": EXACT, "progress": lambda n: None, faulty: stop}
    with pytest.raises(KeyboardInterrupt):
        judging.judged_as_drawn(draw, examples=EXAMPLES, codec=CODEC, **calls)


@pytest.fixture(scope="module")
def made():
    """A config, a codec, a sampler that takes many pools, parameters for it, and questions."""
    config = tiny.config(**{"sample.rows": 1})
    model = models.load_model(config)
    asked = questions.load_questions(config, model.codec)
    engine = models.make_sampler(config, model, asked.buckets.source)
    engine = dataclasses.replace(engine, mesh=tiny.one_device())
    params = sampler_test.place(jax.device_get(model.params), engine.mesh)
    return config, model.codec, engine, params, asked


def telling(asked, events):
    """The questions, with a verifier that says "judged" as it is called."""

    def verifier(text, example):
        events.append("judged")
        return asked.verifier(text, example)

    return dataclasses.replace(asked, verifier=verifier)


def assert_judged_meanwhile(events, times):
    """Between any two dispatches there are verdicts, but for the first two each time."""
    _, *between = "".join(event[0] for event in events).split("d")  # ["", "j", "jj"]
    assert len(between) >= 3 * times
    assert between.count("") == times


def test_samples_are_judged_while_others_are_drawn(made, monkeypatch):
    config, codec, engine, params, asked = made
    events, train = [], asked.splits.train
    prompts = asked.prompts.prompts(train, asked.instructions.wanted)
    outputs = engine(params, prompts, KEY, config.sample.temperature, 2)
    after = judging.judged(asked.verifier, train, outputs, codec)
    sampler_test.dispatches(monkeypatch, sampler, "programs", events)
    asking = Asking(config, engine, params, telling(asked, events), train)
    during = drawing.draw(asking, KEY, samples=2, iteration=1, progress=lambda n: None)
    assert_judged_meanwhile(events, 1)
    assert during == judging.as_samples(train, after, iteration=1)
    assert {sample.correct for sample in during} == {True, False}


@pytest.mark.parametrize("width", [1, 2], ids=["greedy", "beams"])
def test_answers_are_judged_while_others_are_found(made, monkeypatch, width):
    _, codec, engine, params, asked = made
    events, train, judge = [], asked.splits.train, asked.verifier
    config = tiny.config(**{"evaluate.beams": width})
    beams = answering.beams(config, "evaluate")

    def right(goal):
        prompts = asked.prompts.prompts(train, goal)
        answers = answering.best(engine, params, prompts, beams, None)
        judged = judging.judged(judge, train, [[answer] for answer in answers], codec)
        return tuple(one.verdict.correct for (one,) in judged)

    expected = [right(goal) for goal in asked.instructions.asked]
    program = (beam, "program") if beams else (sampler, "programs")
    sampler_test.dispatches(monkeypatch, *program, events)
    monkeypatch.setattr(evaluate, "best_constant", lambda *_: None)  # which calls verifiers, too
    asking = Asking(config, engine, params, telling(asked, events), train)
    found = evaluate.evaluate(asking, "asking")
    assert_judged_meanwhile(events, len(expected))
    assert [found.asked_correct.right, found.asked_wrong.right] == expected
