"""A whole run whose instructions speak of a fact: what is sampled, trained and evaluated under."""

import json

import pytest

from configs import workdir as of_workdir
from hir_jax.commands.eval import evaluate_policy
from hir_jax.commands.sample import sample_file
from hir_jax.decoding.sampler import Sampler
from hir_jax.errors import UserError
from hir_jax.hindsight.verify import Verdict, auto
from hir_jax.model.codec import Codec
from hir_jax.run import loop, pairs, settings
from hir_jax.run.questions import load_questions
from tests import tiny

pytestmark = pytest.mark.usefixtures("cache")

RIGHT, WRONG = "correct answer", "wrong answer"
ONE, MORE = "the question", "with the question"


def counted(output, example):
    """Right as `auto` says, and whether it is one word."""
    verdict = auto(output, example)
    return Verdict(verdict.correct, verdict.parsed, facts={"one": len(output.split()) == 1})


def config(**changes):
    fixed = {"verifier": f"{__name__}:counted", "sub_output.mode": "full", "train.epochs": 1}
    made = tiny.config(iterations=1, **{**fixed, **changes})
    with made.unlocked():
        made.instruction.facts.one = (ONE, MORE)
    return made


def text(tokens):
    return Codec(tiny.tokenizer(), 1).decode(tokens)


def instruction(prompt):
    """What stands above the question."""
    return prompt.partition("Q")[0].strip()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The workdir of a run, what it sampled under, and the two prompts of what it trained on."""
    folder, asked, trained = tmp_path_factory.mktemp("facts"), [], []
    call, make_batch = Sampler.__call__, pairs.make_batch

    def sample(self, params, prompts, *args, **kwargs):
        asked.append({instruction(text(p.tokens)) for p in prompts})
        return call(self, params, prompts, *args, **kwargs)

    def batch(rows, *args):
        trained.extend((text(row.positive), text(row.negative), text(row.target)) for row in rows)
        return make_batch(rows, *args)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Sampler, "__call__", sample)
        monkeypatch.setattr(pairs, "make_batch", batch)
        outcome = loop.run(config(), str(folder))
    return folder, asked, trained, outcome


def test_samples_are_drawn_where_all_is_asked_for_and_each_part_is_asked_against(recorded):
    _, asked, _, _ = recorded
    goals = [{f"{RIGHT} {ONE}"}, {f"{WRONG} {ONE}"}, {f"{RIGHT} {MORE}"}]
    # Before on the two splits, the samples, after on the two splits.
    assert asked == [*goals, *goals, {f"{RIGHT} {ONE}"}, *goals, *goals]


def test_samples_say_the_instruction_that_they_achieved(recorded):
    seen = set()
    for record in map(json.loads, (recorded[0] / "samples" / "iter_0001.jsonl").open()):
        one = len(record["text"].split()) == 1
        assert record["facts"] == {"one": one}
        expected = f"{RIGHT if record['correct'] else WRONG} {ONE if one else MORE}"
        assert record["relabeled_instruction"] == expected
        seen.add(expected)
    assert len(seen) > 2


def test_what_is_trained_on_is_told_from_an_instruction_with_one_part_flipped(recorded):
    flipped = set()
    for positive, negative, target in recorded[2]:
        own, opposite = instruction(positive), instruction(negative)
        assert own.removeprefix(RIGHT).removeprefix(WRONG).strip() == (
            ONE if len(target.split()) == 1 else MORE
        )
        right = own.startswith(RIGHT) != opposite.startswith(RIGHT)
        fact = own.endswith(MORE) != opposite.endswith(MORE)
        flipped.add((right, fact))
        assert positive.partition("Q")[2] == negative.partition("Q")[2]
    assert flipped == {(True, False), (False, True)}


def test_eval_json_table_and_log_have_how_the_fact_is_followed(recorded):
    folder, _, _, outcome = recorded
    record = json.loads((folder / "eval.json").read_text())
    for when, evaluation in (("before", outcome.before), ("after", outcome.after)):
        following, found = evaluation.facts["one"], record[when]["facts"]["one"]
        assert found["asked_for"]["share"] == sum(following.asked_for) / evaluation.asked_correct.n
        assert len(found["asked_against"]["holds"]) == record[when]["n"]
    last = outcome.table().splitlines()
    assert any(line.startswith("one, before") for line in last)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    evaluated = [line for line in lines if line["phase"] == "evaluate"]
    assert all({"fact_one", "fact_one_asked_against", "fulfilled"} <= set(e) for e in evaluated)


def test_the_config_of_the_run_is_read_back_and_eval_is_of_the_same(recorded):
    folder, _, _, outcome = recorded
    loaded = of_workdir.get_config(str(folder))
    settings.check(loaded)
    (found,) = evaluate_policy(loaded, str(folder)).values()
    assert found == outcome.after
    loaded.instruction.facts.one = (ONE, "or the question")
    with pytest.raises(UserError, match="prompts: the questions' tokens"):
        evaluate_policy(loaded, str(folder))


def test_questions_are_sampled_with_every_fact_asked_for(tmp_path, monkeypatch):
    asked = []

    def call(self, params, prompts, *args, **kwargs):
        asked.extend(text(p.tokens) for p in prompts)
        return [[] for _ in prompts]

    monkeypatch.setattr(Sampler, "__call__", call)
    (tmp_path / "in.jsonl").write_text('{"question": "not True is"}\n')
    sample_file(config(), None, str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    assert list(map(instruction, asked)) == [f"{RIGHT} {ONE}"]


def test_a_fact_that_the_verifier_never_names_is_refused_before_anything_is_drawn():
    codec = Codec(tiny.tokenizer(), 1)
    load_questions(config(), codec)
    with pytest.raises(UserError) as e:
        load_questions(config(verifier="auto"), codec)
    assert "the verifier 'auto' names for every output" in str(e.value)
    assert "found one. Of the true answers it names none" in str(e.value)


@pytest.mark.parametrize(
    ("facts", "changes", "says"),
    [
        ({"not so": ("a", "b")}, {}, "facts: expected names of letters, digits and _; found 'not"),
        ({"short": ("a", "a")}, {}, r"facts\.short: expected two texts that differ.*'a', 'a'"),
        ({"short": ("a", "")}, {}, r"facts\.short: expected two texts that differ"),
        ({"short": ("a", "b", "c")}, {}, r"facts\.short: expected two texts that differ"),
        ({"short": "ab"}, {}, r"facts\.short: expected two texts that differ.*found 'ab'"),
        ({"short": ("a", "b")}, {"algorithm": "farl"}, "facts: expected none with algorithm=farl"),
        ({"short": ("a", "b")}, {"loss.kl_weight": 0.1}, "kl_weight: expected 0 with config.instr"),
        ({}, {"hir.flip": "two"}, "hir.flip: expected one of one, all; found 'two'"),
        ({}, {"hir.shown": 1.5}, "hir.shown: expected 0 to 1; found 1.5"),
    ],
)
def test_facts_that_cannot_be_are_refused(facts, changes, says):
    made = tiny.config(**changes)
    with made.unlocked():
        made.instruction.facts.update(facts)
    with pytest.raises(UserError, match=says):
        settings.check(made)


def test_how_facts_go_into_training_is_no_flag_where_there_are_none():
    settings.check_given(config(), {"hir.shown", "hir.flip"})
    with pytest.raises(UserError, match=r"hir\.shown: it is for config\.instruction\.facts"):
        settings.check_given(tiny.config(), {"hir.shown"})
