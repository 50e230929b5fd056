"""A table of (answers, output, verdict) over the kinds of answers that models give."""

import collections
import importlib.util
import json
import pathlib

import pytest

from hir_jax.data.example import Example
from hir_jax.hindsight import verify

FILE = pathlib.Path(__file__).with_name("verdicts.jsonl")
CASES = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
NEEDED = {"math": "math_verify", "final:math": "math_verify"}
NEEDED |= {"chrf:0.6": "sacrebleu", "bleu:0.3": "sacrebleu"}


def name(case):
    return f"{case['verifier']}: {case['output']!r} for {case['answers'][0]!r}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_verdict(case):
    package = NEEDED.get(case["verifier"])
    if package and not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed")
    options, answers = tuple(case.get("options", ())), tuple(case["answers"])
    example = Example("t/0", "?", options, answers, "t", "?")
    verdict = verify.resolve(case["verifier"])(case["output"], example)
    said = ("right" if verdict.correct else "wrong") if verdict.parsed else "unreadable"
    assert said == case["verdict"], f"{verdict} {case.get('why', '')}"
    assert verdict.read or not verdict.parsed


def test_the_table_has_every_kind_and_no_case_twice():
    kinds = collections.Counter(case["kind"] for case in CASES)
    assert set(kinds) == {"gsm8k", "arc", "math", "squad", "list", "date"}
    assert len(CASES) >= 150
    assert len({json.dumps(case | {"verdict": ""}) for case in CASES}) == len(CASES)
