"""Verifiers on the real task files: the gold is right; no other gold or option of the task is."""

import re

import pytest

from hir_jax.data import bbh
from hir_jax.data.bigbench import reader
from hir_jax.data.bigbench.tasks import RAW_FOLDER
from hir_jax.data.example import letter
from hir_jax.hindsight import verify
from tests.data.config import SHARED_DATA, needs_shared_data

BBH = sorted(path.stem for path in (SHARED_DATA / "bbh").glob("*.json"))
# Sorted golds that stand so near in a task are compared.
NEAR = 4

pytestmark = needs_shared_data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


def of_options(example, is_final):
    """(output, whether it is right): each option by letter, text and both, bare and in a phrase."""
    for i, option in enumerate(example.options):
        name = letter(i)
        bare = name[1:-1]
        outputs = [option, f"The answer is {name}."]
        if not is_final:
            outputs += [name, f"{name} {option}", f"{bare}) {option}", f"{option} {name}"]
            outputs += [f"Option {bare}", f"answer: {bare}", f"**{name}**"]
        yield from ((output, option in example.answers) for output in outputs)


def neighbours(examples):
    """For each gold of free-form questions the others that a careless reader might take for it."""
    golds = sorted({answer for example in examples for answer in example.answers})
    alike = {}
    for gold in golds:
        alike.setdefault(re.sub(r"[\W_]", "", gold), []).append(gold)
    near = {gold: golds[max(i - NEAR, 0) : i + NEAR] for i, gold in enumerate(golds)}
    return {gold: {*near[gold], *alike[re.sub(r"[\W_]", "", gold)]} for gold in golds}


def wrongly_judged(examples, names):
    found = []
    others = neighbours([example for example in examples if not example.options])
    for example in {(e.options, e.answers): e for e in examples}.values():
        for name in names:
            judged, outputs = verify.resolve(name), list(of_options(example, name == "final"))
            if not example.options:
                golds = {other for answer in example.answers for other in others[answer]}
                outputs = [(gold, gold in example.answers) for gold in golds]
            found += [(name, o, example) for o, r in outputs if judged(o, example).correct != r]
    return found


@pytest.mark.parametrize("task", BBH)
def test_bbh(task):
    names = {
        "word_sorting": ["auto", "final", "list"],
        "dyck_languages": ["auto", "final", "list"],
        "object_counting": ["auto", "final", "number"],
        "multistep_arithmetic_two": ["auto", "final", "number"],
    }.get(task, ["auto", "final"])
    assert wrongly_judged(bbh.read(SHARED_DATA / "bbh" / f"{task}.json"), names) == []


def test_all_bbh_files_are_there():
    assert len(BBH) == 27


@pytest.mark.parametrize("task", RAW_FOLDER)
def test_bigbench(task, prepared):
    names = {
        "word_sorting": ["auto", "final", "list"],
        "object_counting": ["auto", "final", "number"],
    }.get(task, ["auto", "final"])
    examples = reader.read(task, "premise", str(SHARED_DATA / "bigbench"), prepared)
    assert wrongly_judged(examples, names) == []


def test_dyck_languages_accepts_no_other_gold_at_all():
    examples = bbh.read(SHARED_DATA / "bbh" / "dyck_languages.json")
    golds = {answer for example in examples for answer in example.answers}
    accepted = [
        (gold, example.answers)
        for example in {e.answers: e for e in examples}.values()
        for gold in golds
        if gold not in example.answers and verify.auto(gold, example).correct
    ]
    assert accepted == []


def test_the_two_right_options_of_snarks_are_identical():
    # The one question of all files where an option has the very text of another.
    example = bbh.read(SHARED_DATA / "bbh" / "snarks.json")[86]
    assert len(set(example.options)) == 1
    assert verify.auto("(A)", example).correct and verify.auto("(B)", example).correct
