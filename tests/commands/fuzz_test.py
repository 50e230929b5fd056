"""Flags and results of grids with anything in them: taken, or a sentence."""

import json
import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from hir_jax import cli
from hir_jax.arguments import MODES
from hir_jax.commands import comparison, results
from hir_jax.commands.results import Cell, Result
from hir_jax.data import check_given, sources
from hir_jax.run import settings, workdirs
from tests import fuzz, tiny
from tests.commands.cli_test import ROOT, reset_flags
from tests.run.fuzz_test import OUTCOME

FIELDS = sorted(workdirs.flatten(tiny.get_config().to_dict()))
TOP = ["mode", "workdir", "input", "output", "processes", "process_id", "coordinator", "transfer"]
ODD = ["", "0", "1", "-1", "2.5", "nan", "inf", "-inf", "1e999", "None", "True", "[]", "()", "(1,"]
ODD += ["1,2", "('a',)", "../x", "a:b", "x.y:z", "\u2028", "9" * 30, "exact,number", "final:exact"]
ODD += ["~no-such-user/x", "a\0b", "gs://a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


FLAG = st.one_of(
    *(st.tuples(st.just(f"config.{field}"), st.sampled_from(ODD)) for field in FIELDS),
    st.tuples(
        st.sampled_from([f"config.{f}{x}" for f in FIELDS for x in (".x", "x")]), st.just("1")
    ),
    st.tuples(st.sampled_from(["config.", "config", "", "config.data"]), st.sampled_from(ODD)),
    st.tuples(st.sampled_from(TOP), st.sampled_from([*ODD, *MODES])),
    st.tuples(st.text(max_size=8), st.text(max_size=8)),
)


def parsed(arguments):
    """What the flags ask for, checked as before a run of any mode; gives an exit code."""
    try:
        cli.parse_flags(arguments)
        config = cli.CONFIG.value
        paths = {f"--config.data.{name}": config.data[name] for name in sources.PATHS}
        workdirs.check_local(paths | {"--config.model.path": config.model.path})
        cli.check_config(config)
        check_given(config.data, cli.given("config.data."))
        settings.check_given(config, cli.given("config."))
    except SystemExit as e:
        return e.code
    json.dumps(json.loads(config.to_json_best_effort()), allow_nan=False)
    return 0


@fuzz.cases(60)
@hypothesis.given(flags=st.lists(FLAG, min_size=1, max_size=4))
def test_flags(folder, flags):
    arguments = ["main.py", "--config=tests/tiny.py", *(f"--{k}={v}" for k, v in flags)]
    before = sorted(pathlib.Path(ROOT).iterdir())
    reset_flags()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("sys.argv", arguments)  # where ml_collections looks for fields
        monkeypatch.chdir(ROOT)
        try:
            assert fuzz.outcome(parsed, arguments) in (None, 0, 2)
        finally:
            reset_flags()
    assert sorted(pathlib.Path(ROOT).iterdir()) == before


GRID = {
    (Cell(name, "task", seed), "content"): Result(OUTCOME, ((8, 0.5, 0.1),), 3, 1.5, name)
    for name in ("hir", "sft")
    for seed in (0, 1)
}


@fuzz.cases(100)
@hypothesis.given(data=st.data())
def test_results_of_a_grid(folder, data):
    file = folder / "results.json"
    results.write_results(file, GRID)
    assert results.read_results(file) == GRID
    content = data.draw(fuzz.files(json.loads(file.read_text())))
    file.write_bytes(content)
    found = fuzz.outcome(results.read_results, file)
    assert file.read_bytes() == content
    if found:
        fuzz.outcome(comparison.tables, {cell: result for (cell, _), result in found.items()})
