import os
import pty
import queue
import signal
import sys
import threading
import time

import pytest

from hir_jax.devices import interrupts, leaving, processes
from hir_jax.devices.interrupts import Interrupted, Interrupts

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.mark.parametrize(("number", "exit_code"), [*zip(NUMBERS, (143, 130, 129), strict=True)])
def test_a_signal_is_noted_and_obeyed_at_the_next_check(number, exit_code):
    with pytest.raises(Interrupted, match=f"stopped by {number.name}") as e, Interrupts() as stop:
        stop.check()
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        stop.check()
    assert e.value.exit_code == exit_code


@pytest.fixture(autouse=True)
def usual_handlers():
    """Python's own: a background process of a shell is started with SIGINT ignored."""
    usual = dict.fromkeys(NUMBERS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ended(monkeypatch):
    """What the process would end with at once."""
    said = queue.Queue()
    monkeypatch.setattr(leaving, "end", lambda *how: said.put(how))
    return said


@pytest.mark.parametrize("number", NUMBERS)
def test_a_second_signal_ends_the_process_at_once(ended, number):
    with Interrupts() as stop:
        signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(queue.Empty):
            ended.get(timeout=0.2)
        signal.raise_signal(signal.SIGTERM)
        said, code = ended.get(timeout=10)
    assert code == 128 + number
    assert said.startswith(f"stopped by {number.name} and a second signal, at the last checkpoint")


def test_what_is_ignored_stays_so_as_under_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.requested
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


DROPPED = """
import sys, time
from hir_jax.devices.interrupts import Interrupted, Interrupts
try:
    with Interrupts() as stop:
        print("begun", flush=True)
        while not stop.requested:
            time.sleep(0.01)
        print("said to no one", flush=True)
        stop.check()
except Interrupted as e:
    print(e, file=sys.stderr, flush=True)
    sys.exit(e.exit_code)
"""


def test_a_dropped_terminal_is_no_error():
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", DROPPED])
    said = b""
    while b"begun" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)  # whereupon the system sends SIGHUP
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129


@pytest.fixture
def of_many(ended, monkeypatch):
    """As among many processes, none of which comes; what the process would end with."""
    monkeypatch.setattr(processes, "many", lambda: True)
    return ended


def test_a_signal_ends_a_wait_for_others_that_never_come(of_many, monkeypatch):
    monkeypatch.setattr(interrupts, "STOP_SECONDS", 0.1)
    with Interrupts():
        signal.raise_signal(signal.SIGTERM)
        said, code = of_many.get(timeout=10)
    assert code == 143
    assert said.startswith("stopped by SIGTERM while waiting for other processes")


@pytest.mark.parametrize("stop", [False, True])
def test_where_it_is_obeyed_in_time_no_wait_is_ended(of_many, monkeypatch, stop):
    monkeypatch.setattr(interrupts, "STOP_SECONDS", 0.5)
    before = threading.active_count()
    with Interrupts():
        if stop:
            signal.raise_signal(signal.SIGTERM)
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert of_many.empty()


@pytest.mark.parametrize("stopped", [False, True])
def test_handlers_are_as_before_afterwards(stopped):
    before = [signal.getsignal(number) for number in NUMBERS]
    with Interrupts():
        assert not set(before) & {signal.getsignal(number) for number in NUMBERS}
        if stopped:
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in NUMBERS] == before
