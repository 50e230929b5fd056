"""README.md and docs/: what they show is real. `scripts/run_docs.py` runs all of it."""

import importlib
import json
import random
import re
import shlex
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from hir_jax import arguments, data
from hir_jax.commands.check import check
from hir_jax.commands.verify import verify_file
from hir_jax.data import jsonl
from hir_jax.hindsight import verify
from hir_jax.run import settings
from scripts import configuration, run_docs

ROOT = run_docs.ROOT
BLOCKS = [block for page in run_docs.PAGES for block in run_docs.blocks(page)]
BASH = [block for block in BLOCKS if block.language == "bash"]
PYTHON = [block for block in BLOCKS if block.language == "python"]
OURS = re.compile(r"(?:main\.py|slurm\.sh|tpu_pod\.sh|benchmarks\.chaos .*? --)(?: |$)")
PROGRAMS = re.compile(
    r"((JAX|HIR|PYTHON)\w+=\S+ |taskset -c 0 |scripts/cpu\.sh )*python (main\.py|-m \w)"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the pages' commands are given, with the files that they show."""
    run_docs.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for block in PYTHON:
        sys.modules.pop(block.module.removesuffix(".py"), None)


def config_of(given, monkeypatch):
    """The config that flags of main.py ask for; refused as `main.py` refuses it."""
    names = re.findall(r"--(\w+)", " ".join(word.partition("=")[0] for word in given))
    assert set(names) <= {*arguments.FLAGS}, given
    said = dict(word.lstrip("-").partition("=")[::2] for word in given)
    mode = said.get("mode", "train")
    assert mode in arguments.MODES, given
    assert {*arguments.NEEDED.get(mode, ())} <= {*said}, given
    of_config = [word for word in given if word.startswith("--config")]
    if "config" not in said:
        of_config.insert(0, f"--config={arguments.DEFAULT_CONFIG}")
    monkeypatch.setattr("sys.argv", ["main.py", *of_config])  # where overrides are looked for
    values = flags.FlagValues()
    loaded = config_flags.DEFINE_config_file("config", None, flag_values=values)
    values(["main.py", *of_config])
    fields = [name.removeprefix("config.") for name in said if name.startswith("config.")]
    if mode in ("train", "check", "diagnose", "eval"):
        of_data = [field[5:] for field in fields if field.startswith("data.")]
        data.check_given(loaded.value.data, of_data)
    if mode == "train":
        settings.check_given(loaded.value, fields)
    return loaded.value


def flags_of(block, command):
    """The flags of main.py in a command."""
    found = OURS.search(command)
    return shlex.split(run_docs.shortened(block, command)[found.end() :]) if found else []


def test_every_block_is_run_or_says_why_not():
    shown = {command for block in BASH if block.kind != "not run" for command in block.commands}
    for block in BLOCKS:
        assert block.kind in ("", *run_docs.KINDS), block
        assert not (block.kind and not block.said), block
        if block.kind == "output of":
            assert block.said.partition("; but: ")[0] in shown, block
        if block.kind == "" and block.language == "bash":
            assert all(PROGRAMS.match(command) for command in block.commands), block
    assert {block.language for block in BLOCKS} == {"", "bash", "python", "json"}


@pytest.mark.parametrize("block", BASH, ids=lambda block: block.where)
def test_no_flag_is_dead(block, folder, monkeypatch):
    for command in block.commands:
        config_of(flags_of(block, command), monkeypatch)
        if "benchmarks." in command:
            sources = [path.read_text() for path in (ROOT / "benchmarks").rglob("*.py")]
            known = re.findall(r'DEFINE_\w+\(\s*"(\w+)"', "\n".join(sources))
            assert {*re.findall(r" --(\w+)", command.partition(" -- ")[0])} <= {*known}, command


def test_every_field_that_is_named_exists():
    found = [field.name for file in ("common", "pretrain") for field in configuration.fields(file)]
    found += [f"experiment.{field.name}" for field in configuration.fields("paper", root="made")]
    sections = {name.partition(".")[0] for name in found if "." in name}
    open_ended = ("instruction.facts.", "experiment.models.")
    for page in run_docs.PAGES:
        text = page.read_text()
        named = re.findall(r"--config\.([a-z_][a-z_0-9.]*)", text)
        in_prose = re.findall(r"`(?:config\.)?([a-z_]+\.[a-z_.]+)(?:=[^`]*)?`", text)
        named += [name for name in in_prose if name.partition(".")[0] in sections]
        files = re.compile(r"\.(bin|html|jsonl?|md|model|py|safetensors)$")
        known = {*found, *sections, "experiment", "experiment.only", "experiment.pass_samples"}
        dead = {name for name in named if name.rstrip(".") not in known and not files.search(name)}
        assert {name for name in dead if not name.startswith(open_ended)} == set(), page


def test_the_page_of_settings_is_current():
    assert configuration.PAGE.read_text() == configuration.page(), "python scripts/configuration.py"


def test_the_page_of_settings_tells_of_every_config():
    files = {path.name for path in (ROOT / "configs").glob("*.py")} - {"common.py"}
    of_changes = configuration.page().partition(configuration.CHANGES[:20])[2]
    assert {*re.findall(r"`configs/(\w+\.py)", of_changes)} == files


def test_fields_are_told_with_their_comments(monkeypatch, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "some.py").write_text(
        "config.a = 1  # one\n# over\n# two lines\nconfig.b = b = Dict()\nb.c = placeholder()\n"
        "other.d = 4  # not ours\nb.e = (1, 2)\n"
    )
    monkeypatch.setattr(configuration, "ROOT", tmp_path)
    assert [tuple(field) for field in configuration.fields("some")] == [
        ("a", "1", "one"),
        ("b", "", "over two lines"),
        ("b.c", "placeholder()", ""),
        ("b.e", "(1, 2)", ""),
    ]


def test_python_of_the_pages(folder):
    for block in PYTHON:
        compile(block.text, block.where, "exec")
        if block.module:
            importlib.import_module(block.module.removesuffix(".py"))
    made = importlib.import_module("my_config").get_config()
    settings.check(made)
    assert made.instruction.facts.short == ("Answer in a word.", "Answer at length.")
    settings.check(importlib.import_module("my_words").get_config())
    (draft,) = importlib.import_module("my_family").draw(random.Random(0), 3)
    assert draft.answers[0].split()[::-1] == draft.premise.split()
    even = verify.resolve("my_checks:even,my_checks:short")
    assert [even(text, None).reward for text in ("42", "4444444", "7")] == [1.0, 0.75, 0.5]


def test_json_of_the_pages(folder, monkeypatch):
    lines = {block.where: block.text for block in BLOCKS if block.language == "json"}
    assert all(json.loads(line) for text in lines.values() for line in text.splitlines())
    questions = next(text for text in lines.values() if "capital of France" in text)
    (folder / "mine.jsonl").write_text(questions)
    answers = [example.targets for example in jsonl.read(folder / "mine.jsonl", "", "")]
    assert answers == [("Paris",), ("eight", "8"), ("(A)",)]


def test_verdicts_are_as_shown(folder, monkeypatch):
    compared = 0
    for block in (block for block in BASH if "=verify" in block.text):
        given = flags_of(block, next(c for c in block.commands if "=verify" in c))
        said = dict(word.lstrip("-").partition("=")[::2] for word in given)
        verify_file(config_of(given, monkeypatch), said["input"], said["output"])
        for shown in (b for b in BLOCKS if (b.kind, b.said) == ("made", said["output"])):
            assert run_docs.differences(shown.text, (folder / shown.said).read_text()) == []
            compared += 1
    assert compared


def test_the_checks_of_the_pages_have_nothing_against_their_files(folder, monkeypatch):
    for block in PYTHON:
        if block.is_session and "reversing" in block.text:
            exec(block.text, {})
    for block in (block for block in BASH if block.kind != "not run"):
        for command in block.commands:
            if "--mode=check" in command:
                page = check(config_of(flags_of(block, command), monkeypatch), None)
                assert page.startswith("split "), command


def test_shown_output_is_compared_line_by_line():
    found = "a  1\nb  2\nTime\n3.2 ms\nAdvice\nc\n"
    assert run_docs.differences("a  1\n\nc\n", found) == []
    assert run_docs.differences("a  1\nb  3\n", found) == ["b  3"]
    assert run_docs.differences("c\na  1\n", found) == ["a  1"]
    assert run_docs.differences("b  2\nTime\n9 ms\nAdvice\nc\n", found, "^Time$.*^Advice$") == []


def test_blocks_are_run_shortened_and_compared(monkeypatch, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- short: --few -->\n```bash\npip install x && echo main.py \\\n    one  # why\n```\n"
        "<!-- output of: echo main.py one -->\n```\nmain.py one --few\n```\n"
        "```python\none = 1\n```\n<!-- not run: far away -->\n```bash\nfalse\n```\n"
        "```python\nprint(one / 0)\n```\n"
        "<!-- output of: echo main.py one -->\n```\nmain.py two\n```\n"
    )
    monkeypatch.setattr(run_docs, "ROOT", tmp_path)
    runner = run_docs.Runner(tmp_path)
    runner.run_page(page)
    told = capsys.readouterr().out
    assert re.findall(r"^page.md:\d+ +(.*?)  ", told, re.M)[1:] == [
        "as shown", "not run", "FAILED (1)", "DIFFERS",
    ]  # fmt: skip
    assert "ZeroDivisionError" in told
    assert runner.faults == 2
