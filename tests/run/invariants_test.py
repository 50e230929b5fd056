"""What must hold of every batch, whatever was sampled: its instructions are true of its outputs,
and nothing of the development and test questions is in it."""

import dataclasses
import functools

import hypothesis
import pytest
from hypothesis import strategies as st

from hir_jax.decoding.prompt import Output
from hir_jax.hindsight import replay
from hir_jax.hindsight.verify import Verdict, resolve
from hir_jax.methods.method import OPPOSITE, VALUES
from hir_jax.methods.table import METHODS
from hir_jax.model.codec import Codec
from hir_jax.run import judging, pairs, settings
from hir_jax.run.questions import load_questions
from hir_jax.training.batch import Layout
from tests import fuzz, tiny

EOS = 1
PHRASES = {"short": ("w20 w21", "w22"), "odd": ("w23", "w24 w25")}


def judge(output, example):
    """Right or wrong as ever, and two facts."""
    correct = resolve("exact")(output, example).correct
    words = output.split()
    return Verdict(correct, facts={"short": len(words) < 3, "odd": len(words) % 2 == 1})


def config(**changes):
    made = tiny.config(verifier=f"{__name__}:judge", **changes)
    if made.algorithm == "hir":
        with made.unlocked():
            made.instruction.facts = {name: list(both) for name, both in PHRASES.items()}
    return made


CODEC = Codec(tiny.tokenizer(), EOS)


@functools.cache
def questions(algorithm):
    return load_questions(config(algorithm=algorithm), CODEC)


@functools.cache
def prompts(algorithm):
    """The tokens of every prompt of every side -> its side, question and goal."""
    found, asked = {}, questions(algorithm)
    instructions = asked.instructions
    goals = [instructions.wanted, *instructions.asked]
    goals += [goal.against(i) for goal in goals for i in range(1 + len(instructions.facts))]
    shown = {
        dataclasses.replace(g, facts=facts)
        for g in goals
        for facts in ((), g.facts[:1], g.facts[1:], g.facts)
    }
    shown |= {goal.against(i) for goal in shown for i in range(1 + len(goal.facts))}
    for side, examples in asked.splits._asdict().items():
        for example in examples:
            for goal in shown:
                tokens = asked.prompts.under(goal)[example.id]
                assert found.setdefault(tokens, (side, example, goal)) == (side, example, goal)
    return found


def read(algorithm, tokens):
    """The (side, question, goal) of a source, and the part of the output behind its prompt."""
    assert tokens[-1] == EOS
    for end in range(len(tokens), 0, -1):
        if tokens[:end] in prompts(algorithm):
            return *prompts(algorithm)[tokens[:end]], tokens[end:-1]
    raise AssertionError(f"no question's prompt: {CODEC.decode(tokens)}")


ANSWERS = st.sampled_from(
    [tuple(CODEC.encode([text])[0]) for text in ("True", "False", "not True")]
)
TOKENS = st.one_of(ANSWERS, st.lists(st.integers(3, 30), max_size=4).map(tuple)).flatmap(
    lambda own: st.sampled_from([(*own, EOS), own or (EOS,)])
)


@pytest.mark.parametrize(
    "algorithm", sorted({kind: name for name, kind in METHODS.items()}.values())
)
@fuzz.cases(20)
@hypothesis.given(data=st.data())
def test_no_row_contradicts_its_verdict_and_none_is_of_dev_or_test(algorithm, data):
    changes = {"sub_output.mode": data.draw(st.sampled_from(["full", "suffix"]))}
    changes["replay.dedup"] = data.draw(st.sampled_from(replay.DEDUP_MODES))
    if algorithm == "hir":
        changes["hir.flip"] = data.draw(st.sampled_from(["one", "all"]))
        changes["hir.shown"] = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    made, asked = config(algorithm=algorithm, **changes), questions(algorithm)
    method = settings.method_of(made)
    train = asked.splits.train[: data.draw(st.integers(1, 4))]
    buffer, state = (), {}
    for iteration in (1, 2):
        drawn = [[data.draw(TOKENS) for _ in range(3)] for _ in train]
        outputs = [[Output(t, -1.0, (-0.5,) * len(t)) for t in own] for own in drawn]
        judged = judging.judged(asked.verifier, train, outputs, CODEC)
        samples = judging.as_samples(train, judged, iteration)
        if VALUES in method.needs:
            each = [(0.5,) * len(sample.tokens) for sample in samples]
            samples = [
                dataclasses.replace(s, values=v, reference=v)
                for s, v in zip(samples, each, strict=True)
            ]
        state = method.after_sampling(samples, state)
        buffer = replay.add(buffer, samples, **method.replay)
    seed = data.draw(st.integers(0, 9))
    made.seed = seed
    rows = method.pairs(pairs.view(made, asked, buffer, 2, 0, state))
    layout = Layout(OPPOSITE in method.needs, method.of_rows, method.of_tokens)
    count = 0
    for batch in pairs.batches(made, asked, [rows], layout, (seed, 2, 2)):
        for i, mask in enumerate(batch.target_mask_BxT):
            if mask.any():
                count += 1
                check_row(algorithm, batch, i, method)
    assert count == len(rows)


def check_row(algorithm, batch, i, method):
    target = tuple(batch.targets_BxT[i, batch.target_mask_BxT[i]].tolist())
    sources = [
        read(algorithm, tuple(tokens[mask].tolist()))
        for tokens, mask in zip(batch.sources_BxPxS[i], batch.source_masks_BxPxS[i], strict=True)
    ]
    side, example, goal, prefix = sources[0]
    assert side == "train"
    verdict = judge(CODEC.read((*prefix, *target)) or "", example)
    assert goal.correct == bool(batch.correct_B[i])
    if method.relabels or algorithm in ("farl", "raft", "sft"):
        assert goal.correct == verdict.correct
    for name, holds in goal.facts:
        assert verdict.facts[name] == holds
    if len(sources) == 2:
        _, other, opposite, rest = sources[1]
        assert (other, rest) == (example, prefix) and opposite != goal
        names = [name for name, _ in goal.facts]
        assert [name for name, _ in opposite.facts] == names
