import queue
import signal
import threading
import time

import pytest

from hir_jax.devices import interrupts, leaving, processes
from hir_jax.devices.interrupts import Interrupted, Interrupts


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_noted_and_obeyed_at_the_next_check(number, exit_code):
    with pytest.raises(Interrupted, match=f"stopped by {number.name}") as e, Interrupts() as stop:
        stop.check()
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        stop.check("an argument, as a progress callback has")
    assert e.value.exit_code == exit_code


@pytest.fixture(autouse=True)
def usual_handlers():
    """Python's own: a background process of a shell is started with SIGINT ignored."""
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_second_signal_acts_as_it_always_does():
    with Interrupts() as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def of_many(monkeypatch):
    """As among many processes, none of which comes; what the process would end with."""
    monkeypatch.setattr(processes, "many", lambda: True)
    ended = queue.Queue()
    monkeypatch.setattr(leaving, "end", lambda *said: ended.put(said))
    return ended


def test_a_signal_ends_a_wait_for_others_that_never_come(of_many, monkeypatch):
    monkeypatch.setattr(interrupts, "STOP_SECONDS", 0.1)
    with Interrupts():
        signal.raise_signal(signal.SIGTERM)
        said, code = of_many.get(timeout=10)
    assert code == 143
    assert said.startswith("stopped by SIGTERM while waiting for other processes")


def test_a_second_signal_ends_a_wait_at_once_though_the_main_thread_is_in_c(of_many):
    # So Python's handlers have not run between them, as in a collective.
    with Interrupts() as stop:
        stop._restore = lambda: None
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        assert of_many.get(timeout=10)[1] == 130
        del stop._restore


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
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Interrupts():
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] != before
        if stopped:
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
