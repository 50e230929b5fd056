"""Writes docs/configuration.md from the comments of the config files; a test holds it to them.

python scripts/configuration.py
"""

import ast
import importlib
import io
import itertools
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "docs" / "configuration.md"
HEAD = """# Configuration

<!-- Made by scripts/configuration.py from the comments in configs/: change those. -->

Every field, its default and what it means, as the config files say it. Each is a flag, such as
`--config.sample.samples=8`; lists are given with commas, `--config.evaluate.samples=4,16`. A config
is locked: a field that there is not is refused, with the nearest name, and so is one that the
chosen method or source does not read. `None` stands for what the method or another field gives.
"""
GRID = """
Fields of `--mode=experiment`, of the grids in `configs/paper.py` and `configs/study.py`. Those of
`configs/study.py` may also have `only` (by variant the tasks that it has, where not all) and
`pass_samples` (of the starting model, a question, by which questions are sorted; 0 = not at all).
"""
CHANGES = """
## What the other configs change

Of a config with an argument, some values of it; `configs/paper.py:table2` and the like, and
`configs/study.py`, hold grids besides. `configs/pretrain.py` has the `pretrain` sections above and
sets nothing else; `configs/workdir.py:RUN` is the whole config of a run, from its workdir.

| config | for | sets |
|---|---|---|
"""
OTHERS = (
    *("tiny", "facts", "flan_t5:base", "flan_t5:xl", "t5_family:google/mt5-small"),
    *("t5_family:google/mt5-xl", "t5_family:google/byt5-small"),
    *("t5_family:Salesforce/codet5p-220m", "jsonl", "paper", "study"),
)


class Field(NamedTuple):
    """A field; where the default is empty, a section that other fields are in."""

    name: str
    default: str
    comment: str


def fields(file: str, root: str = "config") -> Iterator[Field]:
    """What a config file sets on `root`, and on the names that it gives to sections of it."""
    source = (ROOT / "configs" / f"{file}.py").read_text(encoding="utf-8")
    comments, lines = _comments(source), source.splitlines()
    prefixes = {root: ""}
    for node in ast.walk(ast.parse(source)):  # statements of one block in their order
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
            continue
        target, *aliases = node.targets
        owner = ast.unparse(target.value)
        if owner not in prefixes:
            continue
        name = prefixes[owner] + target.attr
        prefixes |= {ast.unparse(alias): f"{name}." for alias in aliases}
        above = itertools.takewhile(
            lambda line: lines[line - 1].lstrip().startswith("#"), range(node.lineno - 1, 0, -1)
        )
        said = [*reversed([*above]), node.end_lineno]
        comment = " ".join(comments[line] for line in said if line in comments)
        yield Field(name, "" if aliases else _default(node.value), comment)


def _comments(source: str) -> dict[int, str]:
    """By line the text of its comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def _default(value: ast.expr) -> str:
    text = ast.unparse(value)
    empty = {"config_dict.placeholder": "None", "ml_collections.ConfigDict": "{}"}
    return empty.get(text.partition("(")[0], text)


def page() -> str:
    """The whole text of docs/configuration.md."""
    tables = _tables(fields("common"))
    grid = (f for f in fields("paper", root="made") if f.comment)
    parts = [HEAD, *tables, "\n## experiment\n", GRID, _table(grid, "experiment.")]
    made = [f for f in fields("pretrain") if f.name.startswith("pretrain")]
    return "".join([*parts, *_tables(made), CHANGES, *map(_changes, OTHERS)])


def _tables(found: Iterable[Field]) -> Iterator[str]:
    """A heading and a table for each section; fields of none come first."""
    by_section: dict[str, list[Field]] = {"": []}
    heads = {"": ""}
    for field in found:
        section = field.name.rpartition(".")[0]
        if field.default:
            by_section[section].append(field)
        else:
            by_section[field.name], heads[field.name] = [], field.comment
    for section, rows in by_section.items():
        if rows:
            heading = section or "The run"
            head = _text(heads[section])
            yield f"\n## {heading}\n" + (f"\n{head}\n" if head else "")
            yield _table(rows)


def _table(rows: Iterable[Field], prefix: str = "") -> str:
    lines = [f"| `{prefix}{f.name}` | `{_cell(f.default)}` | {_text(f.comment)} |" for f in rows]
    return "\n".join(["", "| field | default | meaning |", "|---|---|---|", *lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _text(comment: str) -> str:
    text = _cell(comment).replace("*", "\\*").replace("<", "&lt;")
    return re.sub(r"docs/(\w+\.md)", r"[\1](\1)", text)


def _changes(name: str) -> str:
    """A line of what a config sets that `configs/common.py` has otherwise."""
    from hir_jax.run.workdirs import flatten

    file, _, argument = name.partition(":")
    module = importlib.import_module(f"configs.{file}")
    made = (module.get_config(argument) if argument else module.get_config()).to_dict()
    common = flatten(importlib.import_module("configs.common").get_config().to_dict())
    title, _, _ = module.__doc__.partition("\n")
    sets = [
        f"`{field}={value!r}`" if isinstance(value, tuple) else f"`{field}={value}`"
        for field, value in flatten(made).items()
        if not field.startswith("experiment.") and common.get(field, ...) != value
    ]
    called = f"configs/{file}.py" + name.removeprefix(file)
    return f"| `{called}` | {_text(title)} | {', '.join(sets)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
