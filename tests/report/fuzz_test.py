"""Workdirs with anything in their files: a page, or a sentence."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from hir_jax.report import gather, page, runs
from tests import fuzz
from tests.report import made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.run(
        tmp_path_factory.mktemp("fuzz") / "run", [[("1 + 1?", "2", True)]] * 2, alarm="a"
    )


@fuzz.cases(100)
@hypothesis.given(data=st.data())
def test_a_page_of_a_run(folder, data):
    names = ["config.json", "eval.json", "identity.json", "metrics.jsonl", "timings.jsonl"]
    names += [str(file.relative_to(folder)) for file in (folder / "samples").iterdir()]
    name = data.draw(st.sampled_from(sorted(names)))
    file = folder / name
    before = file.read_bytes() if file.exists() else None
    if name.endswith(".json"):
        content = data.draw(fuzz.files(json.loads(before or b"{}")))
    else:
        content = data.draw(fuzz.line_files([json.loads(x) for x in (before or b"").splitlines()]))
    file.write_bytes(content)
    try:
        whole = fuzz.contents(folder)
        fuzz.outcome(lambda: page.compress(gather.gather(runs.read_runs([str(folder)]), 0)))
        assert fuzz.contents(folder) == whole
    finally:
        file.unlink() if before is None else file.write_bytes(before)
