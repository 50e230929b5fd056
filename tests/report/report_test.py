"""--mode=report, and the report that a run keeps of itself."""

import threading
import warnings

import pytest

from hir_jax.errors import UserError
from hir_jax.report import page, plots, report
from tests.report import made

PICTURES = ["report_accuracy.png", "report_samples.png", "report_training.png"]
OUTPUTS = [[("1 + 1?", "2", True), ("1 + 1?", "3", False)]]


def test_a_page_with_its_pictures_in_the_workdir(tmp_path):
    folder = made.run(tmp_path / "run", OUTPUTS)
    said = report.run(made.config(), str(folder), None)
    assert said.startswith(f"{folder / 'report.html'} (0.")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text.startswith(f"<!doctype html>\n{page.MARK}")
    assert sorted(file.name for file in folder.glob("*.png")) == PICTURES
    assert not list(folder.glob("*.part"))


def test_a_name_that_is_there_is_no_pattern_and_no_list(tmp_path):
    for name in ("a, b", "c[1]", "d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    a, c, d = (f"{tmp_path}/{name}" for name in ("a, b", "c[1]", "d"))
    assert report.found(a) == [a]
    assert report.found(f"{c},{tmp_path}/[d-z]") == [c, d]
    with pytest.raises(UserError, match=r"expected runs, found none that '.*q' stands for"):
        report.found(f"{tmp_path}/*q")


@pytest.mark.parametrize("name", [r"$\bad$", "_hidden", "n" * 200])
def test_pictures_of_runs_with_odd_names(tmp_path, monkeypatch, name):
    monkeypatch.setattr(plots, "PLOTS", {"training": plots.PLOTS["training"][:1]})
    folder = made.run(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of a legend without names, or without room
        report.run(made.config(), str(folder), None)
    assert (folder / "report_training.png").exists()


@pytest.fixture
def no_pictures(monkeypatch):
    """Tells of the runs and the page that pictures were asked for; they take seconds."""
    asked = []
    monkeypatch.setattr(plots, "write", lambda runs, file: asked.append((len(runs), file.name)))
    return asked


def test_a_report_is_written_over_an_older_one(tmp_path, no_pictures):
    folder = made.run(tmp_path / "run")
    report.run(made.config(), str(folder), None)
    before = (folder / "report.html").read_text(encoding="utf-8")
    (folder / "eval.json").unlink()
    report.run(made.config(), str(folder), None)
    assert (folder / "report.html").read_text(encoding="utf-8") != before


def test_several_runs_go_where_they_lie(tmp_path, no_pictures):
    for name in ("a", "b"):
        made.run(tmp_path / name, OUTPUTS)
    (tmp_path / "no_run").mkdir()
    report.run(made.config(), f"{tmp_path}/a, {tmp_path}/b", None)
    assert "<title>hir_jax: a, b</title>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    report.run(made.config(), f"{tmp_path}/*", str(tmp_path / "all.html"))
    assert "<title>hir_jax: a, b</title>" in (tmp_path / "all.html").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="expected runs, found none"):
        report.run(made.config(), f"{tmp_path}/z*", None)


def test_what_is_no_report_is_not_overwritten(tmp_path, no_pictures):
    folder = made.run(tmp_path / "run")
    with pytest.raises(UserError, match="is there already, and no report"):
        report.run(made.config(), str(folder), str(folder / "config.json"))
    with pytest.raises(UserError, match="cannot write"):
        report.run(made.config(), str(folder), str(folder / "absent" / "page.html"))


def test_ten_thousand_samples_are_a_page_of_less_than_3_mb(tmp_path, no_pictures):
    outputs = [
        [
            (f"What is {i} + {i}?", f"{i * j} is {hash((i, j))}", j == 2)
            for i in range(500)
            for j in range(4)
        ]
        for _ in range(5)
    ]
    folder = made.run(tmp_path / "run", outputs)
    report.run(made.config(), str(folder), None)
    assert (folder / "report.html").stat().st_size < 3e6


def test_a_run_keeps_its_report_every_so_many_iterations(tmp_path, no_pictures):
    folder = made.run(tmp_path / "run", OUTPUTS)
    file = folder / "report.html"

    def written(every, iteration, **end):
        report.keep(made.config(**{"report.every": every}), str(folder), iteration, **end)
        there = file.exists()
        file.unlink(missing_ok=True)
        return there

    assert [written(2, i) for i in (1, 2)] == [False, True]
    assert no_pictures == []  # which take longer
    assert written(2, 3, ended=True)
    assert no_pictures == [(1, "report.html")]
    assert not written(0, 3, ended=True)


def test_a_run_does_not_wait_for_its_report(monkeypatch):
    begun, may_end, written = threading.Event(), threading.Event(), []

    def keep(config, workdir, iteration):
        begun.set()
        assert may_end.wait(timeout=30)
        written.append((config, workdir, iteration))

    monkeypatch.setattr(report, "keep", keep)
    with report.beside("config", "runs/mine") as after:
        after(1)
        assert begun.wait(timeout=30)
        after(2)  # while that of the first is being written
        assert written == []
        may_end.set()
    assert written == [("config", "runs/mine", 1)]


def test_a_fault_in_the_report_does_not_stop_the_run(tmp_path, caplog):
    report.keep(made.config(), str(tmp_path / "absent"), 1)
    assert "no report: UserError: --workdir: expected a run's folder" in caplog.text
