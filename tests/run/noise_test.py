"""What Orbax says beside what it raises is not shown; what others say is."""

import logging
import types

import pytest

from hir_jax.run import checkpoint, noise  # the first hushes


@pytest.mark.parametrize(("what", "shown"), [("orbax/checkpoint/_src/x.py", 0), ("own.py", 1)])
def test_tasks_that_orbax_gave_up_are_not_logged(caplog, what, shown):
    assert checkpoint.noise is noise
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: %s", what)
    assert len(caplog.records) == shown


def record(path, level, error=None):
    return logging.LogRecord("absl", level, path, 1, "said", (), error)


def test_of_orbax_warnings_are_logged_and_no_tracebacks():
    error = (ValueError, ValueError("full"), None)
    assert not noise._worth_logging(record("/orbax/checkpoint/x.py", logging.INFO))
    assert not noise._worth_logging(record("/orbax/checkpoint/x.py", logging.ERROR, error))
    assert noise._worth_logging(record("/orbax/checkpoint/x.py", logging.WARNING))
    assert noise._worth_logging(record("/hir_jax/x.py", logging.ERROR, error))


def coroutine(path):
    return types.SimpleNamespace(cr_code=types.SimpleNamespace(co_filename=path))


@pytest.mark.parametrize(
    ("thing", "error", "shown"),
    [
        (coroutine("/orbax/checkpoint/x.py"), ValueError("full"), 0),
        (None, RuntimeError("Event loop is closed"), 0),
        (coroutine("/hir_jax/x.py"), ValueError("full"), 1),
        (None, RuntimeError("other"), 1),
    ],
)
def test_what_has_no_one_to_raise_to_is_told_but_for_orbax(thing, error, shown):
    told = []
    noise._but_for_orbax(told.append)(types.SimpleNamespace(object=thing, exc_value=error))
    assert len(told) == shown
