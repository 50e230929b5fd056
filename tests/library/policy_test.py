import json
import shutil

import numpy as np
import pytest

import hir_jax
from hir_jax.commands.sample import sample_file
from hir_jax.commands.score import score_file
from hir_jax.run import loop
from tests import tiny
from tests.model.hf_test import edit_json

pytestmark = pytest.mark.usefixtures("cache")

PROMPTS = [f"correct answer Q : not w{i} is A :" for i in range(4)]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of a run of no iterations: its best checkpoint is the starting model."""
    folder = tmp_path_factory.mktemp("run")
    loop.run(tiny.config(iterations=0), str(folder))
    return folder


@pytest.fixture(scope="module")
def policy(workdir):
    return hir_jax.load(workdir)


@pytest.fixture(scope="module")
def asked(policy):
    chosen = hir_jax.examples(
        [{"question": "w1 or w2 is", "options": ["True", "False"], "answer": "A"}]
    )
    return [*hir_jax.questions(policy.config).test, *chosen]


def lines_of(command, folder, workdir, records, **changes):
    """What a command makes of these records."""
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    command(tiny.config(**changes), str(workdir), str(source), str(output))
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def test_a_policy_is_a_runs_or_a_models(policy, workdir):
    assert policy.name == f"{workdir}, best checkpoint (step 0)"
    assert policy.config.instruction.correct == "correct answer"
    other = hir_jax.load(tiny.folder(), {"instruction.wrong": "wrongly", "model.dtype": "bfloat16"})
    assert (other.name, other.config.sample.max_new_tokens) == (str(tiny.folder()), 32)
    assert other.config.instruction.wrong == "wrongly"
    assert other.model.config.dtype == "bfloat16"
    assert other.model.params.keys() == policy.model.params.keys()


@pytest.mark.parametrize("rerank", [False, True])
def test_samples_are_those_of_the_command(policy, asked, workdir, tmp_path, rerank):
    questions = [
        {"question": e.question} | ({"options": e.options} if e.options else {}) for e in asked
    ]
    prompts = [] if rerank else PROMPTS
    records = [*questions, *({"prompt": prompt} for prompt in prompts)]
    lines = lines_of(
        sample_file, tmp_path, workdir, records, **{"sample.rerank": rerank, "seed": 7}
    )
    policy = hir_jax.load(workdir, {"sample.rerank": rerank})
    outputs = hir_jax.sample(policy, [*asked, *prompts], seed=7)
    assert [[o.text for o in own] for own in outputs] == [line["samples"] for line in lines]
    assert [[o.logprob for o in own] for own in outputs] == [line["logprobs"] for line in lines]
    if rerank:
        assert [[o.margin for o in own] for own in outputs] == [line["margins"] for line in lines]


def test_draws_belong_to_the_seed_and_the_place(policy):
    told = []
    outputs = hir_jax.sample(policy, PROMPTS, seed=1, progress=told.append)
    assert sum(told) == 2 * len(PROMPTS)
    assert hir_jax.sample(policy, PROMPTS[:2], seed=1) == outputs[:2]
    assert hir_jax.sample(policy, PROMPTS, seed=2) != outputs
    assert hir_jax.sample(policy, PROMPTS) == hir_jax.sample(policy, PROMPTS, seed=4)  # the run's
    assert hir_jax.sample(policy, []) == []


def test_what_is_asked_may_be_given_but_once(policy):
    asked = ["w1", "w2"]
    assert hir_jax.sample(policy, iter(asked)) == hir_jax.sample(policy, asked)


def test_what_is_said_goes_before_the_config(policy):
    outputs = hir_jax.sample(policy, PROMPTS, samples=3, top_k=1, max_new_tokens=2)
    assert [len(own) for own in outputs] == [3] * 4
    assert all(own[0].tokens == other.tokens for own in outputs for other in own)
    assert max(len(own[0].tokens) for own in outputs) <= 2
    greedy = hir_jax.sample(policy, PROMPTS, samples=3, temperature=0, max_new_tokens=2)
    assert [[own[0].tokens] for own in outputs] == [[o.tokens for o in own] for own in greedy]
    assert policy.config.sample.samples == 2


def test_scores_are_those_of_the_command(policy, workdir, tmp_path):
    pairs = [(prompt, text) for prompt in PROMPTS for text in ("True", "", "not w1 w2 w3 w4 w5 w6")]
    records = [{"prompt": prompt, "output": output} for prompt, output in pairs]
    lines = lines_of(score_file, tmp_path, workdir, records)
    told = []
    assert hir_jax.score(policy, pairs, progress=told.append) == [line["logprob"] for line in lines]
    assert sum(told) == len(pairs)
    assert hir_jax.score(policy, zip(PROMPTS[:1], ["True"], strict=True)) == [lines[0]["logprob"]]
    assert hir_jax.score(policy, []) == []


def test_tokens_are_scored_as_they_were_drawn(policy):
    outputs = hir_jax.sample(policy, PROMPTS)
    pairs = [(p, o.tokens) for p, own in zip(PROMPTS, outputs, strict=True) for o in own]
    wanted = [output.logprob for own in outputs for output in own]
    assert hir_jax.score(policy, pairs) == pytest.approx(wanted, abs=1e-4)


def test_a_forced_beginning_is_scored_as_by_the_command(tmp_path):
    folder = shutil.copytree(tiny.folder(), tmp_path / "model")
    edit_json(folder / "config.json", forced_bos_token_id=9)
    policy = hir_jax.load(folder)
    (target,) = policy.model.codec.encode_outputs(["w5"])
    by_text, by_tokens = hir_jax.score(policy, [("w1", "w5"), ("w1", (*target, 1))])
    assert target[0] == 9
    assert by_text == by_tokens


def refused(says, function, *args, **kwargs):
    with pytest.raises(hir_jax.UserError) as found:
        function(*args, **kwargs)
    assert says in str(found.value)


def test_what_cannot_be_sampled_from(policy, workdir):
    refused("list of questions, of `hir_jax.examples`", hir_jax.sample, policy, "w1")
    refused("found [{'question': 'w1'}]", hir_jax.sample, policy, [{"question": "w1"}])
    refused("sample.temperature: expected 0 or more", hir_jax.sample, policy, ["a"], temperature=-1)
    refused("sample.samples: expected int; found 2.5", hir_jax.sample, policy, ["a"], samples=2.5)
    refused("sample.top_k: expected int; found 1.5", hir_jax.sample, policy, ["a"], top_k=1.5)
    refused("Expected a policy, of `hir_jax.load`, found 'a/b'", hir_jax.sample, "a/b", ["a"])
    refused("Expected a policy, of `hir_jax.load`, found 'a/b'", hir_jax.score, "a/b", ["a"])
    refused("or of prompts, found None", hir_jax.sample, policy, None)
    refused("longest, 'prompt 1', has 601", hir_jax.sample, policy, ["w1", "w1 " * 600])
    guided = hir_jax.load(workdir, {"sample.guidance": 1.0})
    refused("found a prompt at 0: a prompt", hir_jax.sample, guided, ["w1"])


def test_what_cannot_be_scored(policy):
    refused("longest, 'prompt 0', has 601", hir_jax.score, policy, [("w1 " * 600, "w1")])
    refused("output 1: expected a text", hir_jax.score, policy, [("w1", "w1"), ("w1", ())])
    refused("pairs of a prompt and an output, found ('w1',)", hir_jax.score, policy, [("w1",)])
    refused("pairs of a prompt and an output, found 'w1'", hir_jax.score, policy, ["w1"])
    refused("pairs of a prompt and an output, found None", hir_jax.score, policy, [None])
    refused("pairs of a prompt and an output, found 3", hir_jax.score, policy, 3)
    refused("output 0: expected a text", hir_jax.score, policy, [("w1", None)])
    refused("from 0 to 63; found (5, 64)", hir_jax.score, policy, [((5, 64), "w1")])
    refused("from 0 to 63; found (0.5,)", hir_jax.score, policy, [((0.5,), "w1")])


def test_what_is_no_policy(tmp_path):
    refused("'./nowhere'", hir_jax.load, "./nowhere")
    refused("source: expected a path of a file system", hir_jax.load, "gs://bucket/run")
    refused("model.dtyp: there is no such field", hir_jax.load, tiny.folder(), {"model.dtyp": ""})


@pytest.mark.parametrize(
    ("field", "value"), [("algorithm", "evil_code:Method"), ("verifier", "exact,evil_code:f")]
)
def test_code_of_a_workdir_runs_only_where_it_is_named(workdir, tmp_path, field, value):
    (tmp_path / "checkpoints").mkdir()
    made = json.loads((workdir / "config.json").read_text()) | {field: value}
    (tmp_path / "config.json").write_text(json.dumps(made))
    refused("asks for code that is not hir_jax's", hir_jax.load, tmp_path)
    refused(f"add {field!r}: {value!r}", hir_jax.load, tmp_path)
    says = "evil_code" if field == "algorithm" else "found no checkpoint"
    refused(says, hir_jax.load, tmp_path, {field: value})  # and now it is looked for


def test_a_prompt_with_half_of_a_character_is_refused(policy):
    for call, given in ((hir_jax.sample, "a\ud800"), (hir_jax.score, ("a", "\udfff"))):
        with pytest.raises(hir_jax.UserError, match=r"half of a surrogate pair in '.*ud"):
            call(policy, [given])


def test_settings_may_be_numbers_of_numpy(policy):
    given = {"samples": np.int64(2), "temperature": np.float32(0.5), "seed": np.int32(3)}
    plain = {name: value.item() for name, value in given.items()}
    asked = PROMPTS[:1]
    assert hir_jax.sample(policy, asked, **given) == hir_jax.sample(policy, asked, **plain)
