"""--mode=verify: verdicts on given outputs, to try a verifier before a run."""

import pathlib
from typing import Any

import ml_collections

from hir_jax.commands.lines import check_output, open_output, read_jsonl, to_line
from hir_jax.data import jsonl
from hir_jax.data.example import Example
from hir_jax.data.files import raise_faults
from hir_jax.data.records import Names
from hir_jax.errors import UserError
from hir_jax.hindsight.verify import Verdict
from hir_jax.run import judging, settings

_GIVEN_BACK = ("correct", "parsed", "read", "reward", "facts", "rewards")


def verify_file(config: ml_collections.ConfigDict, source: str, output: str) -> None:
    """Judges each line of `source` by `config.verifier`; one line each, in order, to `output`.

    A line has a question as in `data.jsonl`, with "answer" or "answers" and "options" if it has
    any, or what `config.data.fields` calls them; and an "output". It comes back with "correct",
    "parsed", "read" (what was taken for the answer) and "reward"; with "facts", where the verifier
    names some, and with "rewards", each one's own, where several judge. No model is loaded.
    """
    settings.check(config)
    verifier = judging.verifier_of(config)
    check_output(output)
    names = _names(config.data.fields)
    records, lines = read_jsonl(source, all_of=("output",))
    examples = _examples(source, lines, names)
    with open_output(output) as out:
        for (_, record), example in zip(records, examples, strict=True):
            given = {name: value for name, value in record.items() if name not in _GIVEN_BACK}
            result = given | _fields(verifier(record["output"], example))
            out.write(to_line(result))


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
