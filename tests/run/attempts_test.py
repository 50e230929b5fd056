"""Starts that come to nothing are counted, and the fourth is refused."""

import contextlib
import errno
import json

import pytest

from hir_jax.devices.interrupts import Interrupted
from hir_jax.errors import UserError
from hir_jax.run import attempts, checkpoint


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a run that has saved so often; it ends by an error, if one is given."""

    def start(saves, error=None):
        newest = {"saves": saves} if saves else None
        monkeypatch.setattr(checkpoint, "newest_progress", lambda folder: newest)
        with contextlib.suppress(*[type(error)] if error else []), attempts.counted(str(tmp_path)):
            began.append(saves)
            if error:
                raise error

    began = []
    start.began, start.file = began, tmp_path / attempts.FILE
    return start


@pytest.mark.parametrize("saves", [0, 7])
def test_after_three_failures_at_one_step_a_start_is_refused(start, saves):
    for _ in range(3):
        start(saves, ZeroDivisionError())
    assert json.loads(start.file.read_text()) == {"saves": saves, "failed": 3}
    with pytest.raises(UserError, match=rf"step has failed 3 times: .* remove {start.file} to try"):
        start(saves)
    assert start.began == [saves] * 3
    start.file.unlink()
    start(saves)
    assert start.began == [saves] * 4


def test_a_run_that_moves_on_is_not_refused(start):
    for saves in (0, 0, 1, 1, 1, 2, 2, 2, 3):
        start(saves, ZeroDivisionError())
    assert len(start.began) == 9


@pytest.mark.parametrize(
    "error", [None, UserError("told"), Interrupted(15), OSError(errno.ENOSPC, "full")]
)
def test_an_end_in_words_is_no_failure(start, error):
    for _ in range(2):
        start(5, ZeroDivisionError())
    start(5, error)
    assert not start.file.exists()
    for _ in range(3):
        start(5, ZeroDivisionError())


@pytest.mark.parametrize("content", ["{}", '{"saves": 5, "failed": "3"}'])
def test_a_count_that_no_run_wrote_is_none(start, content):
    start.file.write_text(content)
    start(5, ZeroDivisionError())
    assert json.loads(start.file.read_text()) == {"saves": 5, "failed": 1}


def test_a_run_is_counted_while_it_is_at_work(start):
    start(5)
    assert not start.file.exists()
    with attempts.counted(str(start.file.parent)) as saved:  # as where it is killed now
        assert saved == {"saves": 5}
        assert json.loads(start.file.read_text()) == {"saves": 5, "failed": 1}
