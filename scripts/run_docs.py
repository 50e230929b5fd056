"""Runs what README.md and docs/ show, in a folder of its own, and compares shown output.

    python scripts/run_docs.py [--folder=FOLDER] [README.md docs/commands.md ...]

The folder (default: a temporary one) has links to the checkout, and the files that the pages show.
Pages run in their order; README.md makes the run that others look into. A comment on the line above
a block says what is otherwise:

    <!-- not run: WHY -->                      its flags and names are still looked up by the tests
    <!-- short: FLAGS -->                      given to every main.py of the block besides
    <!-- output of: COMMAND -->                shown output; "; but: REGEX" leaves a part of it out,
                                               what another machine times or rounds otherwise
    <!-- file: NAME -->                        lines that commands read
    <!-- made: NAME -->                        JSON lines that a command above has written

Python whose first line is a comment with its name is a module, and written there; the other Python
of a page is one session, run where its last block stands. What installs, and the tests, are
.ci/run's.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
KINDS = ("not run", "short", "output of", "file", "made")
_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
_OF_CI = re.compile(r"pip install|python -m pytest")


class Block(NamedTuple):
    """What stands between two fences; `kind` and `said` are its comment's."""

    where: str
    language: str
    kind: str
    said: str
    text: str

    @property
    def module(self) -> str:
        """The file that it is, by its first line."""
        found = re.match(r"# (\w+\.py)\n", self.text) if self.language == "python" else None
        return found[1] if found else ""

    @property
    def is_session(self) -> bool:
        """Whether it is Python that is run as it stands."""
        return self.language == "python" and not (self.module or self.kind == "not run")

    @property
    def commands(self) -> list[str]:
        """Its shell commands, one line each, without what .ci/run runs."""
        lines = [re.sub(r"(^|\s+)# .*", "", line) for line in self.text.splitlines()]
        joined = "\n".join(lines).replace("\\\n", " ").splitlines()
        parts = (part for line in joined if line.strip() for part in line.split(" && "))
        return [" ".join(part.split()) for part in parts if not _OF_CI.match(part)]


def blocks(page: pathlib.Path) -> Iterator[Block]:
    """The blocks of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        kind, _, said = (found["mark"] or "").partition(": ")
        where = f"{page.relative_to(ROOT)}:{line}"
        yield Block(where, found["language"], kind, said, found["text"])


def furnish(folder: pathlib.Path) -> None:
    """Puts into a folder what commands expect there."""
    for path in ROOT.iterdir():
        link = folder / path.name
        if path.name[0] != "." and path.name != "runs" and not link.exists():
            link.symlink_to(path)
    shutil.copy(ROOT / "examples" / "facts.jsonl", folder / "questions.jsonl")
    for block in (block for page in PAGES for block in blocks(page)):
        if name := block.said if block.kind == "file" else block.module:
            (folder / name).write_text(block.text, encoding="utf-8")


def shortened(block: Block, command: str) -> str:
    """The command as it is run."""
    return f"{command} {block.said}" if block.kind == "short" and "main.py" in command else command


def differences(shown: str, found: str, but: str = "") -> list[str]:
    """Lines that are shown, in that order, and not found."""
    if but:
        shown, found = (re.sub(but, "", text, flags=re.M | re.S) for text in (shown, found))
    left = iter(line.rstrip() for line in found.splitlines())
    return [line for line in shown.splitlines() if line.strip() and line.rstrip() not in left]


class Runner:
    """Runs blocks one after another, and keeps what commands printed."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.printed, self.faults = folder, {}, 0
        path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path}

    def run_page(self, page: pathlib.Path) -> None:
        """Runs the blocks of a page, its Python as one session."""
        found = [*blocks(page)]
        session = [block for block in found if block.is_session]
        for block in found:
            if block not in session:
                self.run(block)
            elif block is session[-1]:
                self.run(block._replace(text="\n".join(block.text for block in session)))

    def run(self, block: Block) -> None:
        """Runs one block, or says why not."""
        if block.kind == "not run":
            self.tell(block, "not run", block.said)
        elif block.kind == "output of":
            command, _, but = block.said.partition("; but: ")
            self.compare(block, differences(block.text, self.printed.get(command, ""), but))
        elif block.kind == "made":
            made = (self.folder / block.said).read_text(encoding="utf-8")
            self.compare(block, differences(block.text, made))
        elif block.language == "bash":
            for command in block.commands:
                self.call(block, command, ["bash", "-c", shortened(block, command)])
        elif block.is_session:
            self.call(block, block.text.partition("\n")[0], [sys.executable, "-c", block.text])

    def call(self, block: Block, command: str, argv: Sequence[str]) -> None:
        """Runs a command; its output is kept under its text."""
        started = time.monotonic()
        done = subprocess.run(
            argv, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        self.printed[command] = done.stdout
        seconds = f"{time.monotonic() - started:.1f} s"
        if done.returncode:
            self.faults += 1
            self.tell(block, f"FAILED ({done.returncode})", f"{command}\n{done.stderr[-2000:]}")
        else:
            self.tell(block, seconds, " ".join(argv[2].split()) if argv[0] == "bash" else command)

    def compare(self, block: Block, missing: Sequence[str]) -> None:
        """Says whether what is shown was found."""
        self.faults += bool(missing)
        self.tell(block, "DIFFERS" if missing else "as shown", "\n".join([block.said, *missing]))

    def tell(self, block: Block, outcome: str, what: str) -> None:
        """A line of what came of a block."""
        print(f"{block.where:<28} {outcome:>11}  {what}", flush=True)


def main() -> int:
    """Exit code 1 where a command failed or output differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", help="where to run; a temporary folder by default")
    parser.add_argument("pages", nargs="*", type=pathlib.Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(given.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        furnish(folder)
        runner = Runner(folder)
        for page in [page.resolve() for page in given.pages] or PAGES:
            runner.run_page(page)
    return min(runner.faults, 1)


if __name__ == "__main__":
    sys.exit(main())
