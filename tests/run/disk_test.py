"""A disk that is full, or would be: one sentence, and what was saved before is whole."""

import errno
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.errors import UserError
from hir_jax.run import disk
from hir_jax.run.checkpoint import Checkpoints


@pytest.fixture
def small(tmp_path):
    """A disk of five MB, where this process may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a disk of five MB")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def state_of(number):
    """Two MB that cannot be compressed, in many arrays, of which Orbax gives up most."""
    arrays = jax.random.normal(jax.random.key(number), (25, 20_000))
    return {str(i): array for i, array in enumerate(arrays)}


WANTED = {str(i): jax.ShapeDtypeStruct((20_000,), jnp.float32) for i in range(25)}


@pytest.mark.parametrize("asked", [True, False])
def test_a_full_disk_keeps_what_was_saved_last(small, monkeypatch, caplog, capfd, asked):
    if not asked:  # as where a quota is found by writing alone
        monkeypatch.setattr(disk, "check", lambda *_: None)
    checkpoints = Checkpoints(str(small / "checkpoints"))
    for number in (1, 2):
        checkpoints.save(number, state_of(number), {})
    with pytest.raises(UserError) as e:
        checkpoints.save(3, state_of(3), {})
        checkpoints.wait()
    assert f"{small}/checkpoints: expected 2,000,000 bytes free" in str(e.value)
    assert ("No space left on device" in str(e.value)) == (not asked)
    assert not [record for record in caplog.records if record.exc_info]
    assert "Traceback" not in caplog.text
    assert capfd.readouterr() == ("", "")
    assert {file.name for file in (small / "checkpoints").iterdir()} == {"1", "2"}
    step, state, _ = checkpoints.restore_latest(WANTED)
    assert step == 2
    assert all(np.array_equal(array, state_of(2)[name]) for name, array in state.items())
    shutil.rmtree(small / "checkpoints" / "1")  # room is made
    again = Checkpoints(str(small / "checkpoints"), keep=1)
    again.save(3, state_of(3), {})
    again.close()
    checkpoints.close()
    assert again.restore_latest(WANTED)[0] == 3


def test_room_for_all_checkpoints_is_counted_with_those_there(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(disk, "check", lambda folder, needed, what: asked.append(needed))
    checkpoints = Checkpoints(str(tmp_path), keep=3)
    checkpoints.check_room(WANTED)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "file").write_bytes(bytes(70))
    checkpoints.check_room(WANTED)
    assert asked == [10_000_000, 10_000_000 - 70]


def test_a_folder_that_is_not_there_yet_is_on_the_disk_of_the_next_that_is(tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path).free
    folder = tmp_path / "a" / "b"
    disk.check(folder, free // 2, "a test")
    with pytest.raises(UserError, match=r"/a/b: expected .* bytes free for a test, found [\d,]+\."):
        disk.check(folder, 2 * free, "a test")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_known_by_number_text_or_cause(tmp_path, number):
    error = OSError(number, "any text")
    deep = RuntimeError("a save failed")
    deep.__cause__ = ValueError("within it")
    deep.__cause__.__context__ = error
    text = ValueError('Failed writing: "d/03": Disk quota exceeded [os_error_code=122]')
    for each in (error, deep, text):
        assert "expected 1,000 bytes free, found the" in str(disk.fault(each, tmp_path, 1000))
    for closed in (errno.EFBIG, errno.EROFS):
        found = disk.fault(OSError(closed, os.strerror(closed)), tmp_path, 1000)
        assert f"{tmp_path}: nothing more can be written there: {os.strerror(closed)}" in str(found)
    denied = OSError(errno.EACCES, "denied", str(tmp_path / "metrics.jsonl"))
    said = f"{tmp_path}/metrics.jsonl: cannot be opened or made: denied. Mend its owner"
    assert str(disk.fault(denied, tmp_path)).startswith(said)
    assert disk.fault(denied, tmp_path / "elsewhere") is None
    (tmp_path / "timings.jsonl").symlink_to("nowhere/x")
    with pytest.raises(FileNotFoundError) as e:
        (tmp_path / "timings.jsonl").open("ab")
    assert f"{tmp_path}/timings.jsonl: cannot be" in str(disk.fault(e.value, tmp_path))
    assert disk.fault(OSError(errno.EACCES, "denied"), tmp_path) is None
    assert disk.fault(ValueError("no space in the sentence"), tmp_path) is None
