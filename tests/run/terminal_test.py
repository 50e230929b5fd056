import io
import logging as std_logging
import sys
import time

import pytest
import rich.console
from absl import logging

from hir_jax.devices import compiling, leaving
from hir_jax.run import terminal, trackers
from hir_jax.run.view import View, sparkline


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Unread(io.StringIO):
    """A pipe whose reader has gone."""

    def flush(self):
        raise BrokenPipeError


@pytest.fixture
def tty(monkeypatch):
    """Makes stderr a terminal of 80 columns; in a test, since pytest sets it before each."""

    def make():
        stderr = Terminal()
        monkeypatch.setattr("sys.stderr", stderr)
        monkeypatch.setattr(terminal, "_broken", False)
        for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
            monkeypatch.setenv(name, value)
        return stderr

    return make


@pytest.fixture
def pipe(monkeypatch):
    """Makes stderr no terminal."""

    def make():
        stderr = io.StringIO()
        monkeypatch.setattr("sys.stderr", stderr)
        return stderr

    return make


def drawn(view, width=80):
    console = rich.console.Console(width=width, file=io.StringIO(), force_terminal=True)
    with console.capture() as capture:
        console.print(view.draw(time.monotonic()))
    return capture.get()


# Lines --------------------------------------------------------------------------------------------


def test_quick_work_is_one_line_where_there_is_no_terminal(pipe):
    stderr = pipe()
    with terminal.progress(100, "sampling", "sample") as bar:
        for _ in range(50):
            bar.update(2)
        assert stderr.getvalue() == ""
    assert stderr.getvalue().startswith("sampling: 100% 100/100, ")
    assert stderr.getvalue().endswith(" samples/s, in 0:00:00\n")
    assert stderr.getvalue().count("\n") == 1


def test_slow_work_writes_a_line_now_and_then(pipe, monkeypatch):
    stderr = pipe()
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0)
    with terminal.progress(3, "training", "step") as bar:
        bar.update(1)
        bar.update(1)
    shares = [line.split(",")[0] for line in stderr.getvalue().splitlines()]
    assert shares == ["training: 33% 1/3", "training: 67% 2/3", "training: 67% 2/3"]


def test_a_rate_leaves_out_what_came_before_the_first_update(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    bar = terminal.progress(1000, "training", "step")
    now[0] = 100.0  # it compiled
    bar.update(500)  # of a run that was resumed
    for _ in range(10):
        now[0] += 2
        bar.update(4)
    assert bar.rate(now[0]) == 2.0
    assert bar.pace(now[0]) == "540/1000, 2 steps/s, 0:03:50 left"


def test_a_reader_that_has_gone_does_not_end_the_work(monkeypatch):
    monkeypatch.setattr("sys.stderr", Unread())
    with pytest.raises(SystemExit) as e:
        with terminal.progress(1, "training", "step") as bar:
            bar.update(1)
        leaving.leave("stopped by SIGHUP", 129)
    assert e.value.code == 129


def test_nothing_to_do_is_no_line(pipe):
    stderr = pipe()
    with terminal.progress(0, "sampling", "sample"):
        pass
    assert stderr.getvalue() == ""


def test_quiet_leaves_errors_and_alarms(pipe, monkeypatch):
    stderr = pipe()
    monkeypatch.setattr(terminal, "_quiet", False)
    handler = logging.get_absl_handler()
    monkeypatch.setattr(handler.python_handler, "stream", stderr)
    terminal.hush()
    try:
        with terminal.progress(1, "sampling", "sample") as bar:
            bar.update(1)
        for level, text in ((30, "ALARM: %s"), (30, "a warning"), (40, "an error"), (20, "said")):
            args = ("of a kind",) if "%" in text else ()
            handler.handle(std_logging.LogRecord("absl", level, "f.py", 1, text, args, None))
    finally:
        handler.python_handler.removeFilter(terminal._matters)
    # Before flags are parsed absl writes a line of its own, without a "]".
    said = [line.split("] ")[1] for line in stderr.getvalue().splitlines() if "] " in line]
    assert said == ["ALARM: of a kind", "an error"]


# The live view ------------------------------------------------------------------------------------


def test_a_terminal_has_the_bar_and_then_its_line(tty):
    stderr = tty()
    with terminal.progress(2, "reading", "file") as bar:
        bar.update(1)
        bar._own.draw()
        bar.update(1)
    assert "1/2, " in stderr.getvalue()
    assert stderr.getvalue().endswith(" files/s, in 0:00:00\n")
    assert sys.stderr is stderr


@pytest.mark.parametrize("term", ["", "dumb"])
def test_a_terminal_that_cannot_move_its_cursor_has_lines(tty, monkeypatch, term):
    stderr = tty()
    monkeypatch.setenv("TERM", term)
    with terminal.progress(1, "reading", "file") as bar:
        bar.update(1)
    assert "\x1b" not in stderr.getvalue()


def test_logs_stand_above_the_view(tty, monkeypatch):
    stderr = tty()
    handler = logging.get_absl_handler().python_handler
    monkeypatch.setattr(handler, "stream", stderr)
    with terminal.progress(2, "reading", "file") as bar:
        bar._own.draw()
        handler.stream.write("a line of the log\n")
        assert handler.stream is not stderr
        bar.update(2)
    assert handler.stream is stderr
    before, after = stderr.getvalue().split("a line of the log")
    assert before.endswith("\x1b[2K")  # the view's line was taken away first
    assert "reading" in after


@pytest.mark.parametrize("method", ["draw", "scalars"])
def test_a_fault_of_the_view_is_logged_and_lines_go_on(tty, monkeypatch, caplog, method):
    stderr = tty()

    def fault(*unused):
        raise ZeroDivisionError("in the view")

    monkeypatch.setattr(View, method, fault)
    watched = terminal.Watched(View("run"))
    if method == "draw":
        watched._screen._draw()  # which ends by the fault
    watched.scalars(0, 0, {"phase": "evaluate", "accuracy": 0.5})
    watched.close()
    (record,) = [r for r in caplog.records if r.exc_info]
    assert "the live view has failed" in record.getMessage()
    assert "in the view" in str(record.exc_info[1])
    assert not terminal.lively()
    with terminal.progress(1, "training", "step") as bar:
        bar.update(1)
    assert "training: 100% 1/1" in stderr.getvalue()


def test_an_error_of_the_run_passes_through_the_view(tty):
    stderr = tty()
    with pytest.raises(KeyError), terminal.progress(2, "reading", "file"):
        raise KeyError
    assert terminal._screen is None
    assert sys.stderr is stderr


def test_the_view_shows_progress_accuracies_and_samples():
    view = View("runs/x: hir", [{"phase": "evaluate", "accuracy": 0.25, "split": "dev"}])
    view.scalars(0, 1, {"phase": "evaluate", "accuracy": 0.75, "split": "dev"})
    view.scalars(0, 1, {"phase": "train", "accuracy": 0.99})
    view.samples(0, 1, [trackers.Told("wrong", "what?", "that")])
    text = drawn(view)
    assert "runs/x: hir" in text
    assert "dev, asked correct" in text
    assert "75.0%" in text
    assert "▁█" in text
    assert "99" not in text
    assert "✗" in text
    assert "that" in text


@pytest.mark.parametrize("width", [20, 80, 200])
def test_outputs_are_shown_as_they_are_on_one_line_each(width):
    view = View()
    output = "[bold]\x1b[2J\r\n\x07" + 300 * "猫"
    view.samples(0, 1, [trackers.Told("right", "[red]q[/red]", output)])
    text = drawn(view, width)
    assert text.count("\n") == 1
    for control in "\x07\r":
        assert control not in text
    assert "\x1b[2J" not in text
    if width == 200:
        assert "[red]q[/red]" in text
        assert "[bold]\\x1b[2J\\r\\n\\x07" in text


def test_a_sparkline_goes_from_the_least_to_the_greatest():
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.3, 0.3]) == "▁▁"


def test_a_compilation_is_shown_with_its_forecast(monkeypatch):
    at = compiling.Compilation("training", "step", "k", time.monotonic() - 7, 58.2)
    monkeypatch.setattr(compiling, "at_work", lambda: at)
    assert "compiling for 7 s (58.2 s last time): training" in drawn(View())
