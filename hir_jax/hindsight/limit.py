"""A time limit on calls of code that is not ours."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_AGAIN = 1.0  # seconds until it is raised again, where the code has caught it


class TooLong(BaseException):
    """The time is over. No Exception, so that code which catches all of these does not catch it."""


def call(seconds: float, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, ended after so many seconds; 0 is no limit.

    The limit holds on the main thread, where all of hir_jax calls verifiers: Python raises what a
    signal's handler raises there, also out of a sleep or a system call. A limit of the function's
    own by SIGALRM takes the place of this one.

    Raises:
        TooLong: the time is over.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        return function(*args)
    before = signal.signal(signal.SIGALRM, _raise)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
        return function(*args)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise(unused_signal: int, unused_frame: FrameType | None) -> None:
    raise TooLong
