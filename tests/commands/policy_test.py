import json
import os
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax import data
from hir_jax.commands import continued
from hir_jax.commands import sample as sampling
from hir_jax.commands import score as commands_score
from hir_jax.commands.eval import evaluate_policy
from hir_jax.commands.export import export_policy
from hir_jax.commands.lines import read_jsonl
from hir_jax.commands.sample import sample_file
from hir_jax.commands.score import score_file
from hir_jax.decoding import sampler
from hir_jax.decoding.prompt import Output
from hir_jax.devices import sharding
from hir_jax.errors import UserError
from hir_jax.hindsight.relabel import Goal
from hir_jax.model import attention, hf, hub, t5
from hir_jax.model.codec import Codec
from hir_jax.run import checkpoint, loop, models, workdirs
from hir_jax.run.questions import load_questions
from hir_jax.training import scoring
from tests import tiny

pytestmark = pytest.mark.usefixtures("cache")

QUESTIONS = [
    {"question": "not True and ( False or True ) and not False is", "note": "kept"},
    {"prompt": "correct answer Q : True is A :"},
    {"question": "w1 or w2 is", "options": ["True", "False"]},
    {"prompt": "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18"},
    *({"prompt": f"correct answer Q : not w{i} is A :"} for i in range(8)),
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of a run whose best checkpoint is not the starting model."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as monkeypatch:
        # Newest is best without development questions; the generated ones always have some.
        monkeypatch.setattr(loop, "load_questions", without_dev)
        loop.run(tiny.config(), str(folder))
    return folder


def without_dev(config, codec, load=load_questions):
    questions = load(config, codec)
    return type(questions)(**vars(questions) | {"splits": questions.splits._replace(dev=())})


def write(file, records):
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def read(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def sample(folder, records=QUESTIONS, workdir=None, name="samples.jsonl", **changes):
    source = write(folder / "questions.jsonl", records)
    sample_file(tiny.config(**changes), workdir, source, str(folder / name))
    return read(folder / name)


def score(folder, records, **changes):
    source = write(folder / "pairs.jsonl", records)
    score_file(tiny.config(**changes), None, source, str(folder / "scores.jsonl"))
    return read(folder / "scores.jsonl")


# sample -------------------------------------------------------------------------------------------


def test_sample_keeps_lines_in_order_and_their_fields(tmp_path):
    found = sample(tmp_path)
    assert len(found) == len(QUESTIONS)
    for record, line in zip(QUESTIONS, found, strict=True):
        assert record.items() <= line.items()
        assert len(line["samples"]) == len(line["logprobs"]) == 2
        assert all(isinstance(text, str) for text in line["samples"])
        assert all(logprob < 0 for logprob in line["logprobs"])


def test_sample_puts_questions_into_the_template_and_prompts_as_they_are(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Codec, "encode", lambda codec, texts: asked.extend(texts) or [(5,)] * len(texts)
    )
    monkeypatch.setattr(
        sampler.Sampler, "__call__", lambda *a, **k: [[Output((1,), -1.0)]] * len(a[2])
    )
    sample(tmp_path)
    assert asked[0] == f"correct answer\n\nQ: {QUESTIONS[0]['question']}\nA:"
    assert asked[1] == "correct answer Q : True is A :"
    assert asked[2] == "correct answer\n\nQ: w1 or w2 is\nOptions:\n(A) True\n(B) False\nA:"


def test_sample_repeats_itself_with_a_seed(tmp_path):
    first = sample(tmp_path, name="first")
    assert sample(tmp_path, name="again") == first
    assert sample(tmp_path, name="other", seed=1) != first
    # Draws belong to the line and the seed, not to the batch; and each line has draws of its own.
    assert sample(tmp_path, QUESTIONS[:4], name="fewer") == first[:4]


def test_sample_at_temperature_zero_gives_one_output(tmp_path):
    found = sample(tmp_path, **{"sample.temperature": 0.0})
    assert [len(line["samples"]) for line in found] == [1] * len(QUESTIONS)


def test_sample_and_score_agree(tmp_path, monkeypatch):
    drawn = []
    call = sampler.Sampler.__call__

    def recorded(*args, **kwargs):
        outputs = call(*args, **kwargs)
        drawn.extend(outputs)
        return outputs

    monkeypatch.setattr(sampler.Sampler, "__call__", recorded)
    prompts_alone = [record for record in QUESTIONS if "prompt" in record]
    found = sample(tmp_path, prompts_alone)
    codec = Codec(tiny.tokenizer(), 1)
    pairs, logprobs = [], []
    for line, outputs in zip(found, drawn, strict=True):
        for text, logprob, output in zip(line["samples"], line["logprobs"], outputs, strict=True):
            if (*codec.encode([text])[0], 1) == output.tokens:
                pairs.append({"prompt": line["prompt"], "output": text})
                logprobs.append(logprob)
    assert len(pairs) >= 5
    scores = [line["logprob"] for line in score(tmp_path, pairs)]
    assert scores == pytest.approx(logprobs, abs=1e-4)


def test_sample_leaves_long_prompts_out_only_if_told_to(tmp_path, caplog):
    limit = {"data.max_source_tokens": 20}
    with pytest.raises(UserError, match=r"1 of 12 prompts.*questions\.jsonl:3', has 21"):
        sample(tmp_path, **limit)
    assert not (tmp_path / "samples.jsonl").exists()
    found = sample(tmp_path, **limit, **{"data.too_long": "drop"})
    assert "1 of 12 prompts" in caplog.text
    whole = sample(tmp_path, name="whole.jsonl")
    assert [line["samples"] for line in found] == [r["samples"] for r in whole[:2] + whole[3:]]


# score --------------------------------------------------------------------------------------------

PAIRS = [
    {"prompt": QUESTIONS[3]["prompt"], "output": "True and False", "note": "kept"},
    {"prompt": "w1", "output": ""},
    {"prompt": " ".join(["w2"] * 17), "output": "w3"},
    *({"prompt": f"correct answer Q : w{i}", "output": f"w{i}"} for i in range(8)),
]


def logprob_by_hand(pair):
    codec = Codec(tiny.tokenizer(), 1)
    (source,), (target,) = codec.encode([pair["prompt"]]), codec.encode([pair["output"]])
    source, target = [*source, 1], [*target, 1]
    logits = t5.forward(
        tiny.params(),
        tiny.shape(),
        jnp.array([source]),
        jnp.ones((1, len(source)), bool),
        jnp.array([[0, *target[:-1]]]),  # begins with the pad token
    )[0]
    logprobs = np.asarray(logits) - np.log(np.exp(np.asarray(logits)).sum(-1, keepdims=True))
    return logprobs[np.arange(len(target)), target].sum(), len(target)


def test_score_sums_log_probabilities_with_the_eos_in_order(tmp_path):
    found = score(tmp_path, PAIRS)
    assert len(found) == len(PAIRS)
    for pair, line in zip(PAIRS, found, strict=True):
        assert pair.items() <= line.items()
        assert line["tokens"] == len(pair["output"].split()) + 1
    for i in (0, 1, 5):
        logprob, tokens = logprob_by_hand(PAIRS[i])
        assert (found[i]["logprob"], found[i]["tokens"]) == (
            pytest.approx(logprob, abs=1e-4),
            tokens,
        )


def test_score_leaves_long_prompts_out_only_if_told_to(tmp_path, caplog):
    limit = {"data.max_source_tokens": 18}
    with pytest.raises(UserError, match="1 of 11 prompts"):
        score(tmp_path, PAIRS, **limit)
    found = score(tmp_path, PAIRS, **limit, **{"data.too_long": "drop"})
    assert "1 of 11 prompts" in caplog.text
    assert [line["prompt"] for line in found] == [pair["prompt"] for pair in PAIRS[1:]]


def test_score_says_which_outputs_cannot_be_written(tmp_path, caplog):
    score(tmp_path, [*PAIRS, {"prompt": "zebra", "output": "w2 zebra"}])
    assert "1 of 12 outputs have characters that the tokenizer cannot write" in caplog.text
    assert "'line 12' reads 'w2<unk>'" in caplog.text


def test_scores_of_long_targets_are_those_of_the_whole(tmp_path, monkeypatch):
    pairs = [*PAIRS, {"prompt": "w5", "output": " ".join(f"w{i % 30}" for i in range(60))}]
    whole = score(tmp_path, pairs)
    (tmp_path / "scores.jsonl").unlink()
    monkeypatch.setattr(commands_score, "POSITIONS", 8)  # targets of several lengths
    monkeypatch.setattr(attention, "CPU", attention.Most(128, 64, 64, 64))  # in parts
    monkeypatch.setattr(scoring, "LOGITS", 256)
    monkeypatch.setattr(commands_score, "TOKENS", 64)  # one of the longest at a time
    assert commands_score.target_lengths(61, 1) == (8, 16, 32, 64)
    scoring.score_batch.clear_cache()
    shapes = []
    score_batch = scoring.score_batch
    monkeypatch.setattr(
        scoring, "score_batch", lambda *a, **k: shapes.append(a[3].shape) or score_batch(*a, **k)
    )
    found = score(tmp_path, pairs)
    score_batch.clear_cache()
    assert {length for _, length in shapes} == {8, 64}
    assert max(rows for rows, length in shapes if length == 64) == 8  # a row a device
    for one, other in zip(found, whole, strict=True):
        assert one == other | {"logprob": pytest.approx(other["logprob"], abs=1e-4)}


def test_score_holds_the_decoding_copy_alone(tmp_path, monkeypatch):
    seen = []
    score_batch = scoring.score_batch

    def spied(params, *args, **kwargs):
        seen.append((params["shared"].dtype, kwargs["config"].dtype))
        seen.append(sum(x.dtype == jnp.float32 and x.shape == (64, 16) for x in jax.live_arrays()))
        return score_batch(params, *args, **kwargs)

    before = sum(x.dtype == jnp.float32 and x.shape == (64, 16) for x in jax.live_arrays())
    monkeypatch.setattr(scoring, "score_batch", spied)
    score(tmp_path, PAIRS[:1], **{"sample.dtype": "bfloat16"})
    assert seen == [(jnp.bfloat16, "bfloat16"), before]


# sample and score, cut short ----------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("command", "records", "size", "changes"),
    [
        (sample_file, QUESTIONS, "PROMPTS_A_WRITE", {}),
        (sample_file, [QUESTIONS[0], QUESTIONS[2]] * 4, "PROMPTS_A_WRITE", {"sample.rerank": True}),
        (score_file, PAIRS, "LINES_A_WRITE", {}),
    ],
    ids=["sample", "rerank", "score"],
)
def test_what_was_cut_short_goes_on_to_the_same_bytes(
    tmp_path, monkeypatch, command, records, size, changes
):
    monkeypatch.setattr(sys.modules[command.__module__], size, 4)
    source, config = write(tmp_path / "in.jsonl", records), tiny.config(**changes)
    command(config, None, source, str(tmp_path / "whole"))
    out, note = tmp_path / "out", tmp_path / "out.unfinished"
    written = continued.Lines.write
    drawn = []

    def killed(lines, piece, results):
        drawn.append(piece)
        written(lines, piece, results)
        if piece.start == 4:
            raise Killed

    monkeypatch.setattr(continued.Lines, "write", killed)
    with pytest.raises(Killed):
        command(config, None, source, str(out))
    whole = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    assert out.read_bytes() == b"".join(whole[:8]) and note.exists()
    monkeypatch.setattr(continued.Lines, "write", lambda *a: drawn.append(a[1]) or written(*a))
    # Killed within a line of the second piece: its finished lines stay, and are not written again.
    out.write_bytes(b"".join(whole[:5]) + whole[5][:-9])
    with pytest.raises(UserError, match=r"made of something else.*\n  config.seed: 4 then, 5 now"):
        command(tiny.config(seed=5, **changes), None, source, str(out))
    other = write(tmp_path / "other.jsonl", [*records[1:], records[0]])
    with pytest.raises(UserError, match=r"digest\.input"):
        command(config, None, other, str(out))
    drawn.clear()
    command(config, None, source, str(out))
    assert out.read_bytes() == b"".join(whole) and not note.exists()
    assert [piece.start for piece in drawn] == [*range(4, len(records), 4)]
    with pytest.raises(UserError, match="is there already"):  # it is whole
        command(config, None, source, str(out))


def test_a_log_probability_that_is_not_finite_is_never_written(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "score", lambda *a, **k: [float("nan")] * len(a[3]))
    with pytest.raises(UserError, match=r"pairs.jsonl, line 1: expected finite .*, found nan"):
        score(tmp_path, PAIRS)
    assert (tmp_path / "scores.jsonl").read_bytes() == b""
    monkeypatch.setattr(
        sampler.Sampler, "__call__", lambda *a, **k: [[Output((1,), float("-inf"))]] * len(a[2])
    )
    with pytest.raises(UserError, match=r"questions.jsonl, line 1: expected finite .*, found -inf"):
        sample(tmp_path)
    assert (tmp_path / "samples.jsonl").read_bytes() == b""


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    params = tiny.params()
    params["shared"][3, 3] = value
    hf.export(tmp_path / "model", params, tiny.shape(), tiny.tokenizer(), tiny.raw_config())
    with pytest.raises(UserError, match=r"finite weights, .* in 1 arrays of \d+, first shared\."):
        sample(tmp_path, **{"model.path": str(tmp_path / "model")})
    assert not (tmp_path / "samples.jsonl").exists()


# export, eval -------------------------------------------------------------------------------------


def best_params(workdir):
    model = models.load_model(tiny.config())
    folder = workdirs.checkpoint_folder(str(workdir))
    wanted = sharding.abstract(model.params, model.mesh)
    params, progress = checkpoint.Checkpoints(folder).restore_best(wanted)
    return progress["best"]["step"], params


def assert_equal(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_export_gives_the_best_parameters_bit_for_bit(tmp_path, workdir, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(hf, "load_params", None)  # the weights that the run began with are not read
        export_policy(tiny.config(), str(workdir), str(tmp_path / "exported"))
    step, best = best_params(workdir)
    assert step > 0
    folder = hub.find(str(tmp_path / "exported"))
    assert_equal(hf.load_params(folder, hf.read_config(folder)), best)
    start = tiny.params()
    assert not np.array_equal(best["shared"], start["shared"])
    assert hf.load_tokenizer(folder, tiny.shape()).get_vocab() == tiny.tokenizer().get_vocab()


def test_a_run_of_another_mesh_says_what_it_had_and_which_flags_to_give(tmp_path, workdir):
    folder = shutil.copytree(workdir, tmp_path / "run")
    config = tiny.config(**{"mesh.fsdp": 3})
    (folder / "config.json").write_text(config.to_json_best_effort())
    with pytest.raises(UserError, match="devices, 8") as e:
        export_policy(config, str(folder), str(tmp_path / "exported"))
    for part in (f"{folder} had data=-1 x fsdp=3 x tensor=1", "--config.mesh.fsdp=1"):
        assert part in str(e.value)
    assert not (tmp_path / "exported").exists()


def test_export_without_a_workdir_gives_the_model(tmp_path):
    export_policy(tiny.config(), None, str(tmp_path / "exported"))
    folder = tmp_path / "exported"
    assert_equal(hf.load_params(folder, hf.read_config(folder)), tiny.params())


def test_eval_scores_the_best_checkpoint_and_writes_the_split(workdir):
    config = tiny.config()  # with development questions, which the run had none of
    (name, found), *rest = evaluate_policy(config, str(workdir), transfer=True).items()
    assert not rest
    assert name == f"{workdir}, best checkpoint (step {best_params(workdir)[0]}): test"
    after = json.loads((workdir / "eval.json").read_text())["after"]
    assert found.to_json() == after
    record = json.loads((workdir / "eval_test.json").read_text())
    assert after.items() <= record.items()
    assert (record["task"], record["split"]) == ("boolean_expressions", "test")
    config = tiny.config(**{"evaluate.split": "dev"})
    (found,) = evaluate_policy(config, str(workdir), transfer=True).values()
    assert found.asked_correct.n == len(data.load(config.data).dev) > 0
    assert (workdir / "eval_dev.json").exists()


def test_eval_into_a_folder_that_takes_nothing_is_refused_before_the_work(workdir, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # as root may write anywhere
    monkeypatch.setattr("hir_jax.commands.eval.load_policy", None)
    for output in (None, str(workdir / "own.json")):
        with pytest.raises(UserError, match=r"nothing can be written in .* an --output elsewhere"):
            evaluate_policy(tiny.config(), str(workdir), output=output)


def test_eval_of_test_questions_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    question = f"{' and '.join(['True'] * 6)} is"
    file = write(tmp_path / "test.jsonl", [{"question": question, "answer": "True"}])
    changes = {"data.source": "jsonl", "data.test_path": file, "data.task": ""}
    (found,) = evaluate_policy(tiny.config(**changes), None).values()
    assert found.asked_correct.n == 1
    assert not pathlib.Path("eval_test.json").exists()  # nobody asked for it
    with pytest.raises(UserError, match="found 'train'; sizes are"):
        evaluate_policy(tiny.config(**changes, **{"evaluate.split": "train"}), None)


def test_eval_looks_at_its_own_questions_and_writes_where_it_is_told_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    long = " ".join(["True"] * 40)
    changes = {
        "data.source": "jsonl",
        "data.task": "",
        "data.path": write(tmp_path / "train.jsonl", [{"question": long, "answer": "True"}]),
        "data.test_path": write(
            tmp_path / "test.jsonl", [{"question": "not True is", "answer": "False"}]
        ),
        "data.dev_fraction": 0.0,
        "data.max_source_tokens": 20,
    }
    before = sorted(tmp_path.iterdir())
    (found,) = evaluate_policy(tiny.config(**changes), None).values()
    assert len(found.stories) == 1
    assert sorted(tmp_path.iterdir()) == before
    evaluate_policy(tiny.config(**changes), None, output="own.json")
    assert json.loads((tmp_path / "own.json").read_text())["split"] == "test"
    with pytest.raises(UserError, match=r"'own\.json' is there already"):
        evaluate_policy(tiny.config(**changes), None, output="own.json")
    with pytest.raises(UserError, match="1 of 1 prompts are longer than"):
        evaluate_policy(tiny.config(**changes, **{"evaluate.split": "train"}), None)


def test_options_are_read_as_in_training(tmp_path):
    record = {"question": "w1 is", "options": [1.50, True, "w2"]}
    source = tmp_path / "questions.jsonl"
    source.write_text('{"question": "w1 is", "options": [1.50, true, "w2"]}\n{"prompt": "w1"}\n')
    sample_file(tiny.config(), None, str(source), str(tmp_path / "samples.jsonl"))
    assert read(tmp_path / "samples.jsonl")[0]["options"] == record["options"]
    lines = dict(enumerate(source.read_text().split("\n"), 1))
    assert sampling._options(str(source), {1: lines[1]}) == {1: ("1.50", "true", "w2")}
    for options, says in (("w1", "expected a list, found a text"), (["a", "a"], "given twice")):
        with pytest.raises(UserError, match=f"line 1: .*{says}"):
            sample(tmp_path, [{"question": "w1", "options": options}], name="other.jsonl")


def test_a_workdir_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected the workdir of a run, found no checkpoint"):
        evaluate_policy(tiny.config(), str(tmp_path))


def test_the_models_eos_counts_and_not_the_tokenizers(tmp_path):
    folder = shutil.copytree(tiny.folder(), tmp_path / "model")
    eos = tiny.VOCABULARY.index("not")
    (folder / "config.json").write_text(json.dumps(tiny.raw_config() | {"eos_token_id": eos}))
    config = tiny.config(**{"model.path": str(folder)})
    codec = models.load_model(config).codec
    (prompt,) = load_questions(config, codec).prompts.prompts([example()], Goal(True))
    assert (codec.eos_id, prompt.tokens[-1]) == (eos, eos)
    assert codec.decode((*codec.encode(["True"])[0], eos)) == "True"


def example():
    return data.load(tiny.config().data).train[0]


# read_jsonl ---------------------------------------------------------------------------------------


def test_all_faulty_lines_are_listed(tmp_path):
    file = tmp_path / "in.jsonl"
    lines = ['{"prompt": "a"}', "", "{", "[]", '{"prompt": 1}', '{"prompt": "a", "question": "b"}']
    lines += ['{"prompt": "a", "prompt": "b"}']
    file.write_text("\n".join([*lines, '{"prompt": "\\ud800"}']))
    with pytest.raises(UserError) as e:
        read_jsonl(str(file), one_of=("question", "prompt"))
    faults = str(e.value).splitlines()[1:]
    assert [fault.split(":")[0].strip() for fault in faults] == [
        f"line {n}" for n in (3, 4, 5, 6, 7, 8)
    ]
    assert "6 faults" in str(e.value)


def test_line_ends_inside_a_text_part_no_lines(tmp_path):
    file = tmp_path / "in.jsonl"
    record = {"prompt": "a\u2028b\x85c"}
    file.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_jsonl(str(file), one_of=("prompt",))[0] == [(1, record)]


def test_an_empty_input_is_refused(tmp_path):
    (tmp_path / "in.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="found an empty file"):
        read_jsonl(str(tmp_path / "in.jsonl"), all_of=("prompt",))
