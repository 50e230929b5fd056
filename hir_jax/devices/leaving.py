"""How a process ends: at once where it is alone, and without leaving others waiting where not.

Among many processes, one that ends early says so under a key of the coordination service, for
which a thread of every process waits; so those that are in a collective, waiting for it, end too.
One that was killed says nothing: collectives may fail then, or its heartbeat is missed, whereupon
JAX's coordination client aborts the process; its last words are said here. Any other abort is a
crash of this process, and ends it as a crash does.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import NoReturn

import jax

from hir_jax.devices import processes

# What shells call EX_TEMPFAIL: the same command, given again, is likely to work.
LOST = 75
# Seconds. Processes that fail alike do so within this; one that did not is ended after it.
GRACE = 5
# For all to have said that they end. One that was killed never does.
FAREWELL = 15

# For the coordination service to answer.
ANSWER = 10

LOST_SENTENCE = (
    "error: another process of this run has ended, or its machine cannot be reached any more; so "
    "this one has ended too. Give the same command to every process to go on."
)
CRASHED = "it crashed (SIGABRT); see what it said last"
# What JAX's runtime says of faults that are this process's own.
_OWN = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")

_ALARM, _LEFT, _LEAVING = "hir_jax/alarm", "hir_jax/left", "hir_jax/leaving"

# Taken by the first thread that ends this process, and never given back.
_ending = threading.Lock()
_listener: threading.Thread | None = None
_last_words = (LOST_SENTENCE, LOST)  # and the exit code, should the coordination client abort


def explain_abort(message: str, code: int) -> None:
    """Should JAX abort the process from now on: its last words, until `watch` has others."""
    global _last_words
    _last_words = message, code
    ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)


def watch() -> None:
    """Ends this process where another has ended; to be called once all have joined."""
    global _listener
    explain_abort(LOST_SENTENCE, LOST)
    _listener = threading.Thread(target=_listen, daemon=True)
    _listener.start()


def finish() -> None:
    """The end of a run that went well: leaves together with the others."""
    if not processes.many():
        return
    processes.gather(None)
    if processes.is_first():
        processes.client().key_value_set(_ALARM, "null")
    if _listener is not None:
        _listener.join()
    jax.distributed.shutdown()


def leave(message: str, code: int) -> NoReturn:
    """Ends this process: `message` on stderr, exit code `code`.

    Among many, all end with it. What all of them say is said by process 0 alone.
    """
    if processes.many():
        _ending.acquire()
        _leave(message, code)
    _say(message)
    sys.exit(code)


def end(message: str, code: int) -> NoReturn:
    """As `leave`, but from any thread and at once, whatever this process waits for."""
    _ending.acquire()
    if processes.many():
        _leave(message, code)
    _say(message)
    os._exit(code)


def fail(error: Exception) -> NoReturn:
    """Ends this process and the others for an exception that no one expected.

    One of JAX's runtime most often means that another process is lost, and is told in a sentence;
    any other is a fault of the program, and is told by its traceback.
    """
    _ending.acquire()
    own = any(status in str(error) for status in _OWN)
    if own or not isinstance(error, jax.errors.JaxRuntimeError):
        _leave("".join(traceback.format_exception(error)).rstrip(), 1)
    try:
        alarm = json.loads(processes.client().key_value_try_get(_ALARM))
    except jax.errors.JaxRuntimeError:  # no one has said that it ends
        what = str(error).partition("\n")[0][:300]
        _leave(f"{LOST_SENTENCE}\nWhat was seen here: {what}", LOST)
    _leave(_retold(alarm), alarm["code"])


def _listen() -> None:
    """Waits for the first process that ends early; gives this one the time to fail alike."""
    global _last_words
    try:
        text = processes.client().blocking_key_value_get(_ALARM, 1000 * processes.PATIENCE_SECONDS)
    except jax.errors.JaxRuntimeError:
        return  # the service is gone, and the client will abort this process
    alarm = json.loads(text)
    if alarm is not None:
        _last_words = _retold(alarm), alarm["code"]
        time.sleep(GRACE)
        _ending.acquire()
        _leave(*_last_words)


def _retold(alarm: dict) -> str:
    return f"error: process {alarm['process']} has stopped, and so has this one: {alarm['message']}"


def _leave(message: str, code: int) -> NoReturn:
    global _last_words
    _last_words = message, code
    service, together, told = processes.client(), False, False
    try:
        service.key_value_set(f"{_LEFT}/{processes.index()}", message)
        _raise_alarm(message, code)
        service.wait_at_barrier(_LEAVING, 1000 * FAREWELL)
        together = True
        told = not processes.is_first() and service.key_value_try_get(f"{_LEFT}/0") == message
    except jax.errors.JaxRuntimeError:
        pass  # some are lost, so each speaks for itself
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    _say("" if told else message)
    if together:
        jax.distributed.shutdown()  # else process 0 would take the service from under the others
    # Not sys.exit: it would wait for the threads of collectives that never end.
    os._exit(code)


def _say(message: str) -> None:
    """On stderr, which may be a pipe to a `tee` that went before this process."""
    if message:
        with contextlib.suppress(OSError):
            print(message, file=sys.stderr, flush=True)


def _raise_alarm(message: str, code: int) -> None:
    alarm = {"process": processes.index(), "message": message, "code": code}
    try:
        processes.client().key_value_set(_ALARM, json.dumps(alarm))
    except jax.errors.JaxRuntimeError as e:
        if "ALREADY_EXISTS" not in str(e):
            raise


def _is_connected() -> bool:
    """Whether this process is one of the run's for the coordination service, which answers.

    Asked on another thread, since the client's own, which the answer comes by, may be the one that
    asks. That the service has an error for this client it knows without an answer.
    """
    alone = (f"hir_jax/connected/{processes.index()}", 1000 * ANSWER, [processes.index()])
    try:
        processes.apart(processes.client().wait_at_barrier, *alone).result(ANSWER)
    except (jax.errors.JaxRuntimeError, TimeoutError):
        return False
    return True


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
    """Runs within abort(), on the thread that called it.

    Python's own handlers would not do: they run on the main thread, later, and there is no later.
    """
    if _last_words[1] == LOST and _is_connected():
        _raise_alarm(CRASHED, 128 + number)
        return  # to abort(), which ends the process as if there were no handler
    message, code = _last_words
    os.write(2, f"{message}\n".encode())
    os._exit(code)
