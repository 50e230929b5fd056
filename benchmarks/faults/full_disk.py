"""A disk of its own, in memory, that is made full and then large again."""

import contextlib
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

LARGE = 1 << 30


@contextlib.contextmanager
def mounted(folder: pathlib.Path) -> Iterator[bool]:
    """Within it `folder` is such a disk; gives False where this process may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "none", str(folder)]
    done = sys.platform == "linux" and not subprocess.run(mount, capture_output=True).returncode
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: pathlib.Path) -> None:
    """Makes it as small as what is on it."""
    used = shutil.disk_usage(folder).used
    _resize(folder, max(used, 4096))  # 0 would be without end


def enlarge(folder: pathlib.Path) -> None:
    """Makes room again."""
    _resize(folder, LARGE)


def _resize(folder: pathlib.Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
