"""--mode=check: looks a data set over before a run; docs/own_task.md."""

import collections
from collections.abc import Sequence
from typing import Any

import ml_collections

from hir_jax.commands.findings import Data, Finding, find, shown
from hir_jax.commands.lines import check_output, open_output, to_line
from hir_jax.data import sources
from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.run import judging, metrics, models, prompts, settings
from hir_jax.run.constant import best_constant
from hir_jax.run.prompts import PromptTable

_QUANTILES = (0.5, 0.95, 1.0)
_COMMONEST = 6  # answers on the page


def check(config: ml_collections.ConfigDict, output: str | None) -> str:
    """Looks over the data of a config; gives a page, and writes all of it as JSON to `output`.

    The model's tokenizer is read, its weights are not. What a run would refuse is told with
    everything else; only data that cannot be read is refused here.

    Raises:
        UserError: settings, data or tokenizer are at fault, or `output` is there already.
    """
    settings.check(config)
    if output:
        check_output(output)
    data = _read(config)
    if not data.all:
        raise UserError("--mode=check: expected questions, found none. Look at config.data.")
    found = find(data)
    about = _about(data)
    if output:
        record = about | {"findings": [finding.to_json() for finding in found]}
        with open_output(output) as out:
            out.write(to_line(record, indent=1))
    return _page(about, found)


def _read(config: ml_collections.ConfigDict) -> Data:
    codec = models.load_codec(config)
    verifier = judging.verifier_of(config)
    given = sources.read(config.data)
    asked = sources.shuffled(given, config.data)
    every = [example for side in asked for example in side]
    verify.check_suits(config.verifier, every)
    table = PromptTable(codec, every, prompts.instructions_of(config))
    return Data(config, given, asked, codec, table, verifier)


def _about(data: Data) -> dict[str, Any]:
    """What there is to say besides the findings."""
    sides = {**data.asked._asdict(), "all": data.all}
    about = {
        "task": data.config.data.task or data.config.data.path or data.config.data.test_path,
        "verifier": data.config.verifier,
        "splits": {name: _side(data, side) for name, side in sides.items() if side},
        "answers": _shares(data.all),
        "constant": _constant(data, data.all),
    }
    given = [example for side in data.given for example in side]
    if any(example.options for example in given):
        about["in_the_file"] = {
            "answers": _shares(given),
            "constant": _constant(data, given),
        }
    return about


def _side(data: Data, examples: Sequence[Example]) -> dict[str, Any]:
    written = data.codec.encode_outputs([example.targets[0] for example in examples])
    return {
        "questions": len(examples),
        "stories": len({example.premise for example in examples}),
        "prompt_tokens": _quantiles([data.table.length(example.id) for example in examples]),
        "answer_tokens": _quantiles([len(tokens) + 1 for tokens in written]),
    }


def _quantiles(values: Sequence[int]) -> list[int]:
    ordered = sorted(values)
    return [ordered[round(q * (len(ordered) - 1))] for q in _QUANTILES]


def _shares(examples: Sequence[Example]) -> dict[str, float]:
    """The share of questions that have each text for their first answer, the commonest first."""
    counts = collections.Counter(example.targets[0] for example in examples)
    return {text: count / len(examples) for text, count in counts.most_common()}


def _constant(data: Data, examples: Sequence[Example]) -> dict[str, Any]:
    best = best_constant(tuple(examples), data.verifier)
    return {"text": best.text, "accuracy": best.accuracy}


def _page(about: dict[str, Any], found: Sequence[Finding]) -> str:
    rows = [
        (
            name,
            side["questions"],
            side["stories"],
            *(" / ".join(map(str, side[what])) for what in ("prompt_tokens", "answer_tokens")),
        )
        for name, side in about["splits"].items()
    ]
    headers = ("split", "questions", "stories", "prompt tokens", "answer tokens")
    lines = [metrics.format_table(headers, rows), "tokens: median / 95% / most, EOS included", ""]
    lines += _answers("as they are asked", about)
    if "in_the_file" in about:
        lines += _answers("options in the order of the file", about["in_the_file"])
    for title, refused in (("A run refuses", True), ("Look at", False)):
        those = [finding.page() for finding in found if finding.refused == refused]
        lines += ["", f"{title}:", *those] if those else []
    return "\n".join([*lines, *([] if found else ["", "Nothing else was found."])])


def _answers(title: str, about: dict[str, Any]) -> list[str]:
    """Two lines: how often each answer is the right one, and the best constant one."""
    shares, constant = about["answers"], about["constant"]
    common = [f"{shown(text)} {share:.1%}" for text, share in list(shares.items())[:_COMMONEST]]
    more = len(shares) - len(common)
    return [
        f"answers, {title}: {', '.join(common)}" + (f" and {more:,} more" if more > 0 else ""),
        f"best constant answer: {shown(constant['text'])}, right for {constant['accuracy']:.1%}",
    ]
