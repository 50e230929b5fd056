"""--mode=verify: verdicts on given outputs, to try a verifier before a run."""

import pathlib
from typing import Any

import ml_collections

from hir_jax.commands import continued
from hir_jax.commands.lines import read_jsonl
from hir_jax.data import jsonl
from hir_jax.data.example import Example
from hir_jax.data.files import raise_faults
from hir_jax.data.records import Names
from hir_jax.errors import UserError
from hir_jax.hindsight.verify import Verdict
from hir_jax.run import identity, judging, settings, terminal

_GIVEN_BACK = ("correct", "parsed", "read", "reward", "facts", "rewards")


def verify_file(config: ml_collections.ConfigDict, source: str, output: str) -> None:
    """Judges each line of `source` by `config.verifier`; one line each, in order, to `output`.

    A line has a question as in `data.jsonl`, with "answer" or "answers" and "options" if it has
    any, or what `config.data.fields` calls them; and an "output". It comes back with "correct",
    "parsed", "read" (what was taken for the answer) and "reward"; with "facts", where the verifier
    names some, and with "rewards", each one's own, where several judge. No model is loaded. Cut
    short, the same call goes on with the lines that are missing.
    """
    settings.check(config)
    verifier = judging.verifier_of(config)
    continued.check_continued(output)
    names = _names(config.data.fields)
    records, texts = read_jsonl(source, all_of=("output",))
    examples, given = _examples(source, texts, names), [record for _, record in records]
    digested = [("input", records), ("verifier", identity.judging(config))]
    made_of = continued.made_of("verify", config, None, *digested)
    with (
        continued.lines(output, made_of, given, _GIVEN_BACK) as lines,
        terminal.progress(len(given), "judging", "output") as bar,
    ):
        for piece in lines.pieces(1):
            (i,) = piece
            kept = {name: value for name, value in given[i].items() if name not in _GIVEN_BACK}
            lines.write(piece, [kept | _fields(verifier(given[i]["output"], examples[i]))])
            bar.update(piece.stop - bar.done)


def _fields(verdict: Verdict) -> dict[str, Any]:
    """A verdict, under the names that a run's samples have."""
    decided = {name: getattr(verdict, name) for name in ("correct", "parsed", "read", "reward")}
    named = {"facts": verdict.facts, "rewards": verdict.parts}
    return decided | {name: dict(values) for name, values in named.items() if values}


def _names(fields: ml_collections.ConfigDict) -> Names:
    """What the fields of a question are called: none as what is judged, or comes of it."""
    ours = ("output", *_GIVEN_BACK)
    taken = [
        f"{name}={path}"
        for name, path in fields.items()
        if name != "after" and {part.strip().split(".")[0] for part in path.split(",")} & {*ours}
    ]
    if taken:
        raise UserError(
            f"--mode=verify: expected config.data.fields that name none of {', '.join(ours)}, for "
            "the output that is judged and its verdict; found "
            f"{', '.join(taken)}. Give that field of the file another name."
        )
    return Names(**fields.to_dict())


def _examples(source: str, lines: dict[int, str], names: Names) -> list[Example]:
    """The questions on these lines of a file, as `data.source=jsonl` reads them."""
    path, known = pathlib.Path(source), ("output", *_GIVEN_BACK)
    read = [
        jsonl.read_question(line, f"{path.stem}/{n}", known, names) for n, line in lines.items()
    ]
    faults = [
        f"line {n}: {'; '.join(found)}" for n, (_, found) in zip(lines, read, strict=True) if found
    ]
    raise_faults(path, faults)
    return [example for example, _ in read]
