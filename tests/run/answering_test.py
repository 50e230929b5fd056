"""What outputs are allowed, and evaluations and samples that are among them, or by beams."""

import json
import pathlib

import pytest

from hir_jax.commands.eval import evaluate_policy
from hir_jax.commands.sample import sample_file
from hir_jax.errors import UserError
from hir_jax.model.codec import Codec
from hir_jax.run import answering, loop, models
from tests import tiny

pytestmark = pytest.mark.usefixtures("cache")

CODEC = Codec(tiny.tokenizer(), 1)
FILE = "True\n  not True \n\nnot  True\nTrue and False\n"
MEMBERS = {"True", "not True", "True and False"}
QUESTIONS = [{"question": f"w{i} or w2 is", "note": i} for i in range(5)]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "outputs.txt").write_text(FILE)
    return str(tmp_path / "outputs.txt")


class Letters:
    """A tokenizer that writes a letter a token, and "(" and ")" none."""

    eos_id = 1

    def encode_outputs(self, texts):
        return [tuple(ord(c) for c in text if c not in "()") for text in texts]

    def lacks(self, tokens):
        return ord("C") in tokens


def load(among, codec=CODEC, options=(("q", 0),), **changes):
    return answering.load(
        tiny.config(**{"sample.among": among}, **changes), "sample", codec, options
    )


def outputs(allowed, root):
    """The tokens that may begin an output."""
    first = allowed.trie.first_M
    return allowed.trie.token_E[first[root] : first[root + 1]].tolist()


def test_nothing_said_allows_all():
    assert load("") is None


def test_a_files_lines_blank_and_equal_ones_once(file, monkeypatch):
    allowed = load(file)
    assert allowed.among([0, 3]).roots == [0, 0]
    assert len(allowed.trie.token_E) == 8  # True, not; EOS, and, True; False, EOS; EOS
    assert sorted(outputs(allowed, 0)) == sorted(CODEC.encode(["True not"])[0])
    monkeypatch.setenv("HOME", str(pathlib.Path(file).parent))
    assert load("~/outputs.txt").digest == load(file).digest == allowed.digest


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("\n \n", "expected an output a line in .*, found an empty file"),
        ("True\nhello\nw1 you\n", "2 faults.*\n.*line 2: 'hello' has characters that .*\n.*line 3"),
        ("True\nw1 w2 w3 w4\n", "line 2: 5 tokens, more than config.sample.max_new_tokens=4"),
        (None, "Cannot read the data file"),
    ],
)
def test_faults_of_a_file(tmp_path, text, fault):
    path = tmp_path / "outputs.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=fault):
        load(str(path))


def test_options_are_the_letters_of_as_many_as_a_question_has():
    allowed = load("options", Letters(), [("p", 2), ("q", 1), ("r", 2)])
    assert allowed.among([2, 1]).roots == [1, 0]
    assert [outputs(allowed, root) for root in (0, 1)] == [[ord("A")], [ord("A"), ord("B")]]
    with pytest.raises(UserError, match="found 2 of 3 without, first q"):
        load("options", Letters(), [("p", 2), ("q", 0), ("r", 0)])
    with pytest.raises(UserError, match=r"config.sample.among: option 3: '\(C\)' has characters"):
        load("options", Letters(), [("p", 3)])


# Commands -----------------------------------------------------------------------------------------


def sample(folder, name, **changes):
    source = folder / "questions.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in QUESTIONS))
    sample_file(tiny.config(**changes), None, str(source), str(folder / name))
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_samples_among_a_files(tmp_path, file):
    found = sample(tmp_path, "samples", **{"sample.among": file})
    for record, line in zip(QUESTIONS, found, strict=True):
        assert record.items() <= line.items()
        assert set(line["samples"]) <= MEMBERS and len(line["samples"]) == 2
        for own, among in zip(line["logprobs"], line["logprobs_among"], strict=True):
            assert own < among <= 1e-5
    with pytest.raises(UserError, match="expected options with every question"):
        sample(tmp_path, "other", **{"sample.among": "options"})


def test_the_best_of_a_search_with_their_scores(tmp_path, file):
    search = {"sample.beams": 4, "sample.samples": 2, "beam.length_penalty": 0.5}
    found = sample(tmp_path, "samples", **search)
    for line in found:
        assert len(line["samples"]) == len(line["logprobs"]) == len(line["scores"]) == 2
        assert line["scores"] == sorted(line["scores"], reverse=True)
        assert "logprobs_among" not in line
    # As many as there are, where these are fewer than asked for.
    both = search | {"sample.samples": 4, "sample.among": file}
    for line in sample(tmp_path, "both", **both):
        assert set(line["samples"]) == MEMBERS and len(line["logprobs_among"]) == 3


def test_evaluations_say_what_is_unusual_about_them(tmp_path, file):
    changes = {"evaluate.among": file, "evaluate.beams": 2}
    written = str(tmp_path / "eval.json")
    ((name, _),) = evaluate_policy(tiny.config(**changes), None, output=written).items()
    assert name.endswith(f": test, among {file}, 2 beams")
    record = json.loads((tmp_path / "eval.json").read_text())
    assert (record["among"], record["beams"]) == (file, 2)
    assert record["asked_correct"]["unparseable"] == 0
    assert answering.said("", 1) == ""
    assert answering.said("options", 4) == ", among options, 4 beams"


def test_best_is_of_the_search_or_of_the_likeliest_tokens(file):
    config = tiny.config(**{"evaluate.beams": 3, "evaluate.among": file})
    model = models.load_model(config)
    sampler = models.make_sampler(config, model, (8,))
    allowed = answering.load(config, "evaluate", model.codec, [("q", 0)])
    prompts = [answering.Prompt((5, 6, 1), 0)]
    among = allowed.among([0])
    (greedy,) = answering.best(sampler, model.params, prompts, None, among)
    beams = answering.beams(config, "evaluate")
    (found,) = answering.best(sampler, model.params, prompts, beams, among)
    assert CODEC.decode(greedy.tokens) in MEMBERS and CODEC.decode(found.tokens) in MEMBERS
    assert beams.score(found) >= beams.score(greedy) - 1e-5
    assert answering.beams(tiny.config(), "evaluate") is None


def test_a_run_trains_on_outputs_among_given_ones(tmp_path, file):
    changes = {"sample.among": file, "evaluate.among": file, "iterations": 1, "train.epochs": 1}
    loop.run(tiny.config(**changes), str(tmp_path / "run"))
    samples = (tmp_path / "run" / "samples").glob("*.jsonl")
    drawn = [json.loads(line) for each in samples for line in each.read_text().splitlines()]
    assert drawn and {line["text"] for line in drawn} <= MEMBERS
    (tmp_path / "outputs.txt").write_text(FILE + "False\n")
    with pytest.raises(UserError, match=r"outputs that sample\.among and evaluate\.among allow"):
        loop.run(tiny.config(**changes), str(tmp_path / "run"))
