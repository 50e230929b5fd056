"""Ways of answering: votes, margins, guidance, beside the likeliest tokens."""

import json

import jax
import numpy as np
import pytest

from hir_jax.commands.drawn import Drawn
from hir_jax.commands.eval import evaluate_policy
from hir_jax.commands.sample import sample_file
from hir_jax.data.example import Example
from hir_jax.data.splits import Splits
from hir_jax.decoding.prompt import Output, Prompt
from hir_jax.decoding.sampler import Sampler
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.hindsight.relabel import Instructions
from hir_jax.hindsight.sample import Sample
from hir_jax.hindsight.verify import Verdict
from hir_jax.model.batching import Buckets
from hir_jax.run import choosing, judging, loop, models, statistics
from hir_jax.run.asking import Asking
from hir_jax.run.choices import Choices
from hir_jax.run.evaluation import Evaluation
from hir_jax.run.prompts import PromptTable
from hir_jax.run.questions import Questions
from hir_jax.training import scoring
from tests import tiny

pytestmark = pytest.mark.usefixtures("cache")

CHOICES = Choices({"greedy": (True, False, False, True), "guided": (True,) * 4}, (0, 1, 2, 3))


def test_majority_is_of_what_was_read_and_of_the_first_among_equals():
    assert choosing.majority(["b", "a", "a"]) == 1
    assert choosing.majority(["b", "a", "a", "b"]) == 0
    assert choosing.majority(["x"]) == 0


@pytest.mark.parametrize(
    ("verifier", "answer", "outputs", "chosen"),
    [  # two of three say the same, each in its own way
        ("number", "1200", ("900", "1,200", "$1200"), 1),
        ("number", "0.5", ("a half", "5", "50%"), 0),
        ("exact", "Paris", ("Rome", '"paris."', "Paris"), 1),
        ("exact", "5!", ("5", "5!", "5!!"), 0),
        ("list", "a b", ("b a", "a, b", "A and b."), 1),
        ("final:number", "1200", ("900", "#### 1,200", "The answer is 1200."), 1),
        ("reference", "1.5", ("2", "15", "1.5"), 1),
        ("auto", "Paris", ("Rome", "paris", "Paris."), 1),
    ],
)
def test_samples_agree_that_say_the_same(verifier, answer, outputs, chosen):
    example = Example("q", "?", (), (answer,), "t", "p")
    judge = verify.resolve(verifier)
    (verdicts,) = judging.judge(judge, [example], [outputs])
    own = [judging.Judged(Output((), 0.0), *each) for each in zip(outputs, verdicts, strict=True)]
    right = choosing.of_samples([own], [[0.0] * 3], (3,))
    assert right["majority of 3"] == [verdicts[chosen].correct]
    said = [verdict.canonical or verdict.read for verdict in verdicts]
    assert choosing.majority(said) == chosen
    samples = [Sample.from_json(each.to_json()) for each in judging.as_samples([example], [own], 1)]
    drawn = Drawn.of(samples, 3, (0,))
    assert drawn.answers == len(set(said))
    assert drawn.majority[3].value == verdicts[chosen].correct


def test_choices_are_compared_with_greedy_in_pairs():
    (accuracy, same), (guided, change) = CHOICES.estimates().values()
    assert (accuracy.value, same.value, guided.value, change.value) == (0.5, 0, 1.0, 0.5)
    expected = statistics.difference(np.array([0, 1.0, 1, 0]), np.arange(4))
    assert change == expected
    lines = CHOICES.table().splitlines()
    assert lines[2].startswith("greedy") and "guided" in lines[3] and "+50.0" in lines[3]
    assert Choices.from_json(json.loads(json.dumps(CHOICES.to_json())), (0, 1, 2, 3)) == CHOICES


class Codec:
    """A token is a letter."""

    eos_id = 1

    def encode(self, texts):
        return [tuple(map(ord, text)) for text in texts]

    def decode(self, tokens):
        return "".join(map(chr, tokens))

    def is_readable(self, tokens):
        return True


class Drawer:
    """Gives what is said here, in the place of a policy."""

    SAMPLES = (("a", "B", "b", "c"), ("b", "a", "A", "a"))  # of the first question, of the second
    GUIDED = (("a",), ("a",))

    def prepare(self, params):
        return params

    def __call__(
        self, params, prompts, key, temperature, samples=1, *, receive, guide=None, among=None
    ):
        if guide is None:
            assert (temperature, samples) == (0.7, 4)
            said = self.SAMPLES
        else:
            assert (temperature, samples, guide.guidance, guide.cutoff) == (0.0, 1, 2.0, 0.3)
            away = [chr(tokens[0]) for tokens in guide.opposite]
            assert away == ["W", "W"] and [chr(p.tokens[0]) for p in prompts] == ["C", "C"]
            said = self.GUIDED
        outputs = [[Output((ord(text),), 0.0) for text in own] for own in said]
        receive({(i, n): o for i, own in enumerate(outputs) for n, o in enumerate(own)})
        return outputs


def test_ways_by_hand(monkeypatch):
    # Right is "b". Votes are of what is read, capital or not.
    def verifier(text, example):
        return Verdict(text.lower() == "b", read=text.lower())

    examples = [Example(name, name, (), ("b",), name, "") for name in "pq"]
    table = PromptTable(Codec(), examples, Instructions("C", "W"))
    questions = Questions(Splits((), (), ()), table, Buckets((), ()), verifier, {"": None})
    margins = [[0.1, 0.3, 0.2, 0.9], [-0.5, -0.7, -0.1, -0.9]]
    monkeypatch.setattr(choosing, "margins", lambda *_: margins)
    config = tiny.config(
        **{
            "evaluate.samples": (3, 4),
            "evaluate.guidance": (2.0,),
            "sample.temperature": 0.7,
            "sample.guidance_cutoff": 0.3,
        }
    )
    seen = []
    asking = Asking(config, Drawer(), None, questions, examples)
    assert choosing.choices(asking, (True, False), seen.append).right == {
        "greedy": (True, False),
        "majority of 3": (True, False),  # a B b; b a A
        "reranked of 3": (True, False),  # B, A
        "any of 3": (True, True),
        "majority of 4": (True, False),
        "reranked of 4": (False, False),  # c, A
        "any of 4": (True, True),
        "guided by 2": (False, False),
    }
    assert sum(seen) == 4 * 2 + 2


CHANGES = {
    "iterations": 1,
    "evaluate.samples": (1, 3),
    "evaluate.guidance": (1.0,),
    "sample.guidance": 0.5,
    "train.epochs": 1,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that draws guided samples, and says how else it might answer."""
    workdir, guides, call = tmp_path_factory.mktemp("choosing"), [], Sampler.__call__

    def spy(self, params, prompts, key, temperature, *args, **kwargs):
        guides.append((temperature, kwargs.get("guide")))
        return call(self, params, prompts, key, temperature, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "__call__", spy)
        outcome = loop.run(tiny.config(**CHANGES), str(workdir))
    return workdir, outcome, guides


def test_a_run_ends_with_the_ways_that_were_asked_for(run):
    workdir, outcome, _ = run
    chosen = outcome.after.choices
    names = ["greedy", "majority of 1", "reranked of 1", "any of 1"]
    names += ["majority of 3", "reranked of 3", "any of 3", "guided by 1"]
    assert list(chosen.right) == names
    assert chosen.right["greedy"] == outcome.after.asked_correct.right
    one = {chosen.right[f"{way} of 1"] for way in ("majority", "reranked", "any")}
    assert len(one) == 1  # of one sample there is no choice
    best = np.array(chosen.right["any of 3"])
    for name in ("majority of 3", "reranked of 3", "any of 1"):
        assert (best >= np.array(chosen.right[name])).all()
    assert "guided by 1" in outcome.table()
    record = json.loads((workdir / "eval.json").read_text())
    assert Evaluation.from_json(record["after"]).choices == chosen
    assert outcome.before.choices is None


def test_the_online_phase_is_guided_and_evaluation_is_not(run):
    *_, guides = run
    guided = [(temperature, guide) for temperature, guide in guides if guide]
    # The samples of the only iteration; then greedy answers at the end.
    assert [(t, guide.guidance, guide.cutoff) for t, guide in guided] == [
        (1.0, 0.5, 0.1),
        (0.0, 1.0, 0.1),
    ]
    assert [len(guide.opposite) for _, guide in guided] == [12, 4]


def test_mode_eval_says_the_same(run):
    workdir, outcome, _ = run
    (found,) = evaluate_policy(tiny.config(**CHANGES), str(workdir)).values()
    assert found == outcome.after
    (plain,) = evaluate_policy(tiny.config(iterations=1), str(workdir)).values()
    assert plain.choices is None


def test_samples_are_written_in_the_order_of_their_margins(tmp_path):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"question": "not True is"}\n{"question": "True and False is"}\n')
    config = tiny.config(**{"sample.rerank": True, "sample.samples": 3, "sample.guidance": 0.3})
    sample_file(config, None, str(source), str(output))
    for line in map(json.loads, output.read_text().splitlines()):
        assert line["margins"] == sorted(line["margins"], reverse=True)
        assert len(line["samples"]) == len(line["logprobs"]) == 3


def test_margins_are_differences_of_scores():
    config = tiny.config()
    model = models.load_model(config)
    sampler = models.make_sampler(config, model, (16,))
    sources = [((5, 6, 1), (6, 7, 8, 1)), ((9, 1), (4, 1))]
    prompts = [Prompt(correct, i) for i, (correct, _) in enumerate(sources)]
    outputs = sampler(model.params, prompts, jax.random.key(0), 1.0, 2)
    buckets = Buckets((8,), (8,))
    got = choosing.margins(model.params, sampler, sources, outputs, 8, buckets)
    for both, own, margins in zip(sources, outputs, got, strict=True):
        for output, margin in zip(own, margins, strict=True):
            pairs = [(side, output.tokens) for side in both]
            right, wrong = scoring.score(model.params, model.config, model.mesh, pairs, 8, buckets)
            assert margin == pytest.approx(right - wrong, abs=1e-5)


def test_a_prompt_as_it_is_has_no_opposite(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "True and"}\n')
    config = tiny.config(**{"sample.guidance": 1.0})
    with pytest.raises(UserError, match="question"):
        sample_file(config, None, str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
