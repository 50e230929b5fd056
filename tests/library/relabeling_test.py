import dataclasses
import json
import types

import numpy as np
import pytest

import hir_jax
from hir_jax.commands.verify import verify_file
from hir_jax.decoding import prompt
from hir_jax.methods.hir import Hir
from hir_jax.methods.method import View
from hir_jax.model.codec import Codec
from hir_jax.run import judging
from tests import tiny

CODEC = Codec(tiny.tokenizer(), 1)
EXAMPLES = hir_jax.examples(
    [
        {"question": "w1 and w2 is", "answer": "True"},
        {"question": "w3 or w4 is", "options": ["w5", "w6"], "answer": "w6"},
    ]
)
TEXTS = [["True", "False", "true"], ["A", "( B )", "w5"]]


def policy(**changes):
    return hir_jax.Policy("none", types.SimpleNamespace(codec=CODEC), tiny.config(**changes))


def output(text):
    return hir_jax.Output(text, (*CODEC.encode([text])[0], CODEC.eos_id), -1.0)


OUTPUTS = [[output(text) for text in own] for own in TEXTS]


def refused(says, function, *args, **kwargs):
    with pytest.raises(hir_jax.UserError) as found:
        function(*args, **kwargs)
    assert says in str(found.value)


# verify -------------------------------------------------------------------------------------------


def test_verdicts_are_those_of_the_command(tmp_path):
    records = [
        {"question": e.question, "answers": e.answers, "options": e.options or None, "output": text}
        for e, own in zip(EXAMPLES, TEXTS, strict=True)
        for text in own
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    verify_file(tiny.config(), str(source), str(out))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    for outputs in (TEXTS, OUTPUTS):
        verdicts = [v for own in hir_jax.verify("auto", EXAMPLES, outputs) for v in own]
        for name in ("correct", "parsed", "read", "reward"):
            assert [getattr(v, name) for v in verdicts] == [line[name] for line in lines]
        assert [v.correct for v in verdicts] == [True, False, True, False, True, False]


def test_a_function_judges_by_the_threshold():
    def graded(output, example):
        return len(output) / 10

    def rewards(threshold):
        return [v.correct for v in hir_jax.verify(graded, EXAMPLES, TEXTS, threshold=threshold)[0]]

    assert rewards(0.4) == [True, True, True]
    assert rewards(0.5) == [False, True, False]
    named = hir_jax.verify(
        lambda output, example: hir_jax.Verdict(True, facts={"short": True}), EXAMPLES, TEXTS
    )
    assert named[1][2].facts == {"short": True}


def test_several_judge_together():
    found = hir_jax.verify("exact,reference", EXAMPLES, TEXTS, weights=(3, 1))
    weights = np.array((3, 1), np.float32)
    assert found == hir_jax.verify("exact,reference", iter(EXAMPLES), iter(TEXTS), weights=weights)
    assert found[0][1].parts == {"exact": 0.0, "reference": 0.0}


def test_an_output_without_a_text_is_unreadable():
    hidden = dataclasses.replace(OUTPUTS[0][0], readable=False)
    verdicts = hir_jax.verify("exact", EXAMPLES[:1], [[hidden, OUTPUTS[0][0]]])[0]
    assert [(v.correct, v.parsed) for v in verdicts] == [(False, False), (True, True)]


def test_what_cannot_be_judged():
    refused("Unknown verifier 'none'", hir_jax.verify, "none", EXAMPLES, TEXTS)
    refused("list of outputs for each of 2", hir_jax.verify, "exact", EXAMPLES, TEXTS[:1])
    refused("found 2 of str", hir_jax.verify, "exact", EXAMPLES, ["True", "False"])
    refused("of type Output or str, found None", hir_jax.verify, "exact", EXAMPLES, [["a"], [None]])
    for threshold in (2, "x"):
        refused("reward.threshold", hir_jax.verify, len, EXAMPLES, TEXTS, threshold=threshold)
    refused("name of a verifier, or a function, found None", hir_jax.verify, None, EXAMPLES, TEXTS)
    refused("outputs for each question, found None", hir_jax.verify, "exact", EXAMPLES, None)
    refused("list of questions, of `hir_jax.examples`", hir_jax.verify, "exact", ["a"], [["b"]])
    refused("must return a bool", hir_jax.verify, lambda o, e: "yes", EXAMPLES, TEXTS)
    refused("raised ZeroDivisionError", hir_jax.verify, lambda o, e: 1 / 0, EXAMPLES, TEXTS)


# relabel ------------------------------------------------------------------------------------------


def test_whole_outputs_stand_under_what_they_achieved():
    verdicts = hir_jax.verify("auto", EXAMPLES, OUTPUTS)
    pairs = hir_jax.relabel(policy(**{"sub_output.mode": "full"}), EXAMPLES, OUTPUTS, verdicts)
    assert [pair.correct for pair in pairs] == [True, False, True, False, True, False]
    right, wrong = pairs[:2]
    assert (right.instruction, right.opposite) == ("correct answer", "wrong answer")
    assert (wrong.instruction, wrong.opposite) == ("wrong answer", "correct answer")
    assert (wrong.prefix, wrong.target, wrong.example) == ("", "False", EXAMPLES[0])
    assert wrong.target_tokens == OUTPUTS[0][1].tokens
    text = "wrong answer\n\nQ: w1 and w2 is\nA:"
    assert wrong.source_tokens == (*CODEC.encode([text])[0], CODEC.eos_id)
    assert wrong.opposite_tokens == right.source_tokens


def test_parts_are_those_of_a_run():
    outputs = [[output("w1 w2 w3 w4 w5 w6")] * 4 for _ in EXAMPLES]
    verdicts = hir_jax.verify("auto", EXAMPLES, outputs)
    asked = policy(**{"sub_output.prob": 1.0})
    method = Hir.make(asked.config)
    drawn = [[prompt.Output(o.tokens, o.logprob) for o in own] for own in outputs]
    judged = judging.judged(lambda *_: verdicts[0][0], EXAMPLES, drawn, CODEC)
    samples = judging.as_samples(EXAMPLES, judged, iteration=1)
    given = (CODEC.encode, CODEC.decode, CODEC.eos_id)
    wanted = method.pairs(View(samples, EXAMPLES, 1, 0, asked.config.seed, *given))
    pairs = hir_jax.relabel(asked, EXAMPLES, outputs, verdicts)
    assert [pair.target_tokens for pair in pairs] == [pair.target for pair in wanted]
    assert [pair.prefix for pair in pairs] == [CODEC.decode(pair.prefix) for pair in wanted]
    assert len({pair.prefix for pair in pairs}) > 3
    for pair in pairs:
        whole = CODEC.encode([f"{pair.prefix} {pair.target}"])[0]
        assert whole == outputs[0][0].tokens[:-1]
        behind = len(pair.source_tokens) - 1 - len(CODEC.encode([pair.prefix])[0])
        assert CODEC.decode(pair.source_tokens[behind:]) == pair.prefix
    other = hir_jax.relabel(asked, EXAMPLES, outputs, verdicts, seed=99)
    assert [pair.prefix for pair in other] != [pair.prefix for pair in pairs]


def test_facts_are_in_the_instructions():
    facts = {"short": ("Be short.", "Be long.")}
    verdicts = hir_jax.verify(
        lambda text, _: hir_jax.Verdict(True, facts={"short": text == "True"}), EXAMPLES, OUTPUTS
    )
    asked = policy()
    config = hir_jax.config("configs/common.py", {"instruction.facts": facts, "hir.flip": "all"})
    asked = dataclasses.replace(asked, config=config)
    short, long, *_ = hir_jax.relabel(asked, EXAMPLES, OUTPUTS, verdicts)
    assert short.instruction.endswith("with correct answer. Be short.")
    assert short.opposite.endswith("with wrong answer. Be long.")
    assert long.instruction.endswith("with correct answer. Be long.")


def test_what_cannot_be_relabeled():
    verdicts = hir_jax.verify("auto", EXAMPLES, OUTPUTS)
    refused("list of verdicts", hir_jax.relabel, policy(), EXAMPLES, OUTPUTS, verdicts[:1])
    fewer = [verdicts[0][:2], verdicts[1]]
    refused("a verdict on each output", hir_jax.relabel, policy(), EXAMPLES, OUTPUTS, fewer)
    twice = [EXAMPLES[0]] * 2
    refused("of type Output, found 'True'", hir_jax.relabel, policy(), EXAMPLES, TEXTS, verdicts)
    for seed, says in ((-1, "config.seed: expected 0 or more"), (0.5, "seed: expected int")):
        refused(says, hir_jax.relabel, policy(), EXAMPLES, OUTPUTS, verdicts, seed=seed)
    refused("Expected a policy, of", hir_jax.relabel, "a/b", EXAMPLES, OUTPUTS, verdicts)
    refused("found 1 ids of 2", hir_jax.relabel, policy(), twice, OUTPUTS, verdicts)
