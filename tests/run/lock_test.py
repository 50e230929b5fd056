"""One run a workdir: who holds it is told; a killed run leaves it free."""

import json
import os
import signal
import subprocess
import threading
import time

import pytest

from hir_jax.devices import leaving
from hir_jax.errors import UserError
from hir_jax.run import lock


@pytest.fixture
def soon(monkeypatch):
    """A lease of a fifth of a second."""
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.2)


@pytest.fixture
def left(tmp_path):
    """Writes the lock of a run, of this process but for the changes."""

    def write(**changes):
        file = tmp_path / "lock-3.json"
        file.write_text(json.dumps(lock._myself() | {"token": "theirs"} | changes))
        return file

    return write


def taken(folder):
    """The files of locks in a folder while it is held."""
    with lock.held(str(folder)) as check:
        check()
        return [file.name for file in folder.glob("lock-*")]


def touching(file, until):
    while not until.wait(0.02):
        os.utime(file)


def test_it_says_who_holds_the_folder_and_goes_with_the_run(tmp_path):
    folder = tmp_path / "runs" / "a"
    with lock.held(str(folder)):
        (file,) = folder.iterdir()
        held = json.loads(file.read_text())
        assert (held["pid"], held["started"]) == (os.getpid(), lock._start_of(os.getpid()))
        with pytest.raises(UserError) as e, lock.held(str(folder)):
            pass
        for part in (str(folder), f"process {os.getpid()} of", held["host"], f"remove {file}"):
            assert part in str(e.value)
        assert list(folder.iterdir()) == [file]
    assert list(folder.iterdir()) == []


def test_of_many_that_begin_at_once_one_is_let_in(tmp_path):
    begin, end, outcomes = threading.Barrier(16), threading.Event(), []

    def run():
        begin.wait()
        try:
            with lock.held(str(tmp_path)):
                outcomes.append("in")
                end.wait(30)
        except UserError:
            outcomes.append("out")

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    while len(outcomes) < 16:
        time.sleep(0.01)
    end.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["in"] + ["out"] * 15


@pytest.mark.parametrize("name", ["lock-1.json", "lock-9.json"])
def test_one_that_begins_between_a_look_and_the_making_is_seen(tmp_path, monkeypatch, name):
    look, other = lock._files, tmp_path / name

    def first_look(folder):
        monkeypatch.setattr(lock, "_files", look)
        found = look(folder)
        other.write_text(json.dumps(lock._myself() | {"token": "theirs"}))
        return found

    monkeypatch.setattr(lock, "_files", first_look)
    with pytest.raises(UserError, match="is held by"):
        taken(tmp_path)
    assert list(tmp_path.iterdir()) == [other]
    assert json.loads(other.read_text())["token"] == "theirs"


def test_one_killed_on_this_machine_is_followed_at_once(tmp_path, left):
    with subprocess.Popen(["sleep", "100"]) as process:
        left(pid=process.pid, started=lock._start_of(process.pid))
        with pytest.raises(UserError, match=f"held by process {process.pid} of"):
            taken(tmp_path)
        process.send_signal(signal.SIGKILL)
        until = time.monotonic() + 10
        while lock._start_of(process.pid) and time.monotonic() < until:
            time.sleep(0.01)
        assert taken(tmp_path) == ["lock-4.json"]  # though its parent has not heard of it yet


def test_another_program_with_its_pid_is_not_the_holder(tmp_path, left):
    left(started="1")
    assert taken(tmp_path) == ["lock-4.json"]


def test_one_elsewhere_that_lives_is_told_as_soon_as_it_is_seen(tmp_path, left, soon, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 60)
    file, end = left(pids_of="another boot", host="elsewhere", pid=7), threading.Event()
    alive = threading.Thread(target=touching, args=(file, end))
    alive.start()
    with pytest.raises(UserError, match=r"held by process 7 of \w+ on elsewhere"):
        taken(tmp_path)
    end.set()
    alive.join()
    assert json.loads(file.read_text())["token"] == "theirs"


def test_one_elsewhere_that_died_is_followed_after_the_lease(tmp_path, left, soon, caplog):
    # Though a process of this machine has its pid and start time.
    left(pids_of="another boot", host="elsewhere")
    started = time.monotonic()
    assert taken(tmp_path) == ["lock-4.json"]
    assert time.monotonic() - started >= lock.LEASE_SECONDS
    assert "on elsewhere, where it cannot be seen from here" in caplog.text


def test_one_elsewhere_that_ends_while_it_is_watched_is_followed(tmp_path, left, soon, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 60)
    file = left(pids_of="another boot")
    threading.Timer(0.1, file.unlink).start()
    assert taken(tmp_path) == ["lock-4.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x", "pids_of": 3}'])
def test_a_file_that_says_nothing_is_waited_for_and_passed_over(tmp_path, soon, text):
    (tmp_path / "lock-1.json").write_text(text)
    assert taken(tmp_path) == ["lock-2.json"]


def test_it_is_touched_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    with lock.held(str(tmp_path)):
        (file,) = tmp_path.iterdir()
        first, until = lock._touched(file), time.monotonic() + 10
        while lock._touched(file) == first:
            assert time.monotonic() < until


@pytest.mark.parametrize("how", ["removed", "taken"])
def test_one_that_has_lost_it_saves_nothing_and_ends(tmp_path, monkeypatch, how):
    ended = []
    monkeypatch.setattr(leaving, "end", lambda *said: ended.append(said) or os._exit)
    with lock.held(str(tmp_path)) as check:
        (file,) = tmp_path.iterdir()
        file.write_text('{"token": "theirs"}') if how == "taken" else file.unlink()
        with pytest.raises(UserError, match="no longer this process's"):
            check()
    assert file.exists() == (how == "taken")  # it is not ours to remove
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    with lock.held(str(tmp_path / "b")):
        (file,) = (tmp_path / "b").iterdir()
        file.unlink()
        until = time.monotonic() + 10
        while not ended and time.monotonic() < until:
            time.sleep(0.01)
    assert ended[0][1] == 2
    assert "no longer this process's" in ended[0][0]


def test_a_folder_that_was_moved_is_told_whatever_failed_of_it(tmp_path):
    for moved, error, says in (
        (True, UserError, "it, or its folder, was removed or moved"),
        (False, FileNotFoundError, "gone"),
    ):
        with pytest.raises(error, match=says), lock.held(str(tmp_path / "run")):
            if moved:
                (tmp_path / "run").rename(tmp_path / "elsewhere")
            raise FileNotFoundError("gone")
