"""The worked examples of docs/own_task.md: their commands, files and verifiers."""

import pathlib
import re
import shlex

import pytest
from absl import flags
from ml_collections import config_flags

from hir_jax import data
from hir_jax.commands.check import check
from hir_jax.hindsight import verify
from hir_jax.run import models, settings
from hir_jax.run.questions import load_questions

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own_task.md").read_text().replace("\\\n", " ")
COMMANDS = [shlex.split(line) for line in re.findall(r"^python main\.py.*", PAGE, re.MULTILINE)]
RUNS = {
    flag.removeprefix("--workdir=runs/"): command
    for command in COMMANDS
    for flag in command
    if flag.startswith("--workdir=")
}


def config_of(command, monkeypatch):
    """The config that a command asks for, checked as `main.py` checks it."""
    monkeypatch.chdir(ROOT)
    given = [flag for flag in command[2:] if flag.startswith("--config")]
    monkeypatch.setattr("sys.argv", ["main.py", *given])  # where overrides are looked for
    values = flags.FlagValues()
    loaded = config_flags.DEFINE_config_file("config", None, flag_values=values)
    values(["main.py", *given])
    names = [flag.partition("=")[0].removeprefix("--config.") for flag in given]
    data.check_given(loaded.value.data, [n[5:] for n in names if n.startswith("data.")])
    settings.check_given(loaded.value, names)
    return loaded.value


@pytest.mark.parametrize(
    ("name", "sizes", "answers"),
    [
        ("choice", (84, 12, 24), {"(A)", "(B)", "(C)", "(D)"}),
        ("number", (84, 12, 24), {"2", "3", "4", "5", "6", "7"}),
        ("likeness", (84, 12, 24), {"farm pea plum river song"}),
        ("facts", (84, 12, 24), {"bean old order play"}),
        ("translation", (112, 16, 32), {"fuenf weisse Tassen"}),
    ],
)
def test_a_run_can_begin_and_check_has_nothing_against_it(monkeypatch, name, sizes, answers):
    config = config_of(RUNS[name], monkeypatch)
    questions = load_questions(config, models.load_codec(config))
    assert tuple(map(len, questions.splits)) == sizes
    assert answers <= {example.targets[0] for side in questions.splits for example in side}
    page = check(config, None)
    assert "A run refuses" not in page
    assert "does not take for right" not in page


def test_check_of_the_page(monkeypatch):
    (command,) = [command for command in COMMANDS if "--mode=check" in command]
    assert check(config_of(command, monkeypatch), None).startswith("split ")


def judged(name, monkeypatch, *outputs):
    config = config_of(RUNS[name], monkeypatch)
    judge = verify.resolve(config.verifier, config.reward.threshold, config.reward.weights)
    example = min(data.load(config.data).train, key=lambda e: e.where)
    answer = example.answers[0]
    return [judge(output.format(answer), example) for output in ("{}", *outputs)]


def test_verdicts_on_numbers_and_likeness(monkeypatch):
    assert [v.correct for v in judged("number", monkeypatch, "{}.0", "9")] == [True, True, False]
    assert [v.correct for v in judged("likeness", monkeypatch, "{}s", "no")] == [True, True, False]


def test_facts_of_ones_own(monkeypatch):
    whole, more, none, back = judged("facts", monkeypatch, "{} zebra", "", "zebra yam")
    assert (whole.correct, whole.facts) == (True, {"complete": True, "only": True})
    assert (more.correct, more.facts) == (True, {"complete": True, "only": False})
    assert (none.correct, none.parsed) == (False, False)
    assert (back.correct, back.facts) == (False, {"complete": False, "only": False})


def test_a_translation_is_graded(monkeypatch):
    whole, part, other = judged("translation", monkeypatch, "{}.", "five cups")
    assert (whole.reward, whole.correct) == (1.0, True)
    assert 0.5 < part.reward < 1.0
    assert 0.0 < other.reward < 0.5
    assert not other.correct
