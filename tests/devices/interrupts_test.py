import signal

import pytest

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


@pytest.mark.parametrize("stopped", [False, True])
def test_handlers_are_as_before_afterwards(stopped):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Interrupts():
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] != before
        if stopped:
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
