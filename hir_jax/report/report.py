"""--mode=report, and the report that a run keeps of itself."""

import concurrent.futures
import contextlib
import glob
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import ml_collections
from absl import logging

from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.report import gather, page, plots
from hir_jax.report.runs import Run, read_runs
from hir_jax.run import workdirs

NAME = "report.html"


def run(config: ml_collections.ConfigDict, workdirs: str, output: str | None) -> str:
    """`make` of workdirs with commas between, where * stands for anything, as in a shell; says
    where the page is. Of the config `config.report` is read."""
    file = make(found(workdirs), output, config.report.samples)
    return f"{file} ({file.stat().st_size / 1e6:.1f} MB; open it with a browser)"


def make(folders: Sequence[str], output: str | None, most_samples: int) -> pathlib.Path:
    """Writes the page of one or several runs, and its pictures; gives its file.

    Args:
        folders: the workdirs.
        output: the page; by default report.html in the workdir, of several runs in the folder that
            they have in common.
        most_samples: of each run, see `config.report.samples`.

    Raises:
        UserError: a folder is no run's, a file in it is at fault, or the page cannot be written.
    """
    if not folders:
        raise UserError("--workdir: expected runs, found none.")
    runs = read_runs(folders)
    file = pathlib.Path(output).expanduser() if output else _default(runs)
    write(runs, file, most_samples)
    plots.write(runs, file)
    return file


def found(workdirs: str) -> list[str]:
    """The folders of a flag: names with commas between, each maybe with * and the like in it.

    What is a folder's own name stands for it, whatever is in it.
    """
    parts = [workdirs] if os.path.isdir(os.path.expanduser(workdirs)) else workdirs.split(",")
    folders: list[str] = []
    for text in filter(None, map(str.strip, parts)):
        pattern = os.path.expanduser(text)
        if not glob.has_magic(pattern) or os.path.isdir(pattern):
            folders.append(pattern)
            continue
        # Of what a pattern finds, the runs; what is given by name must be one.
        matches = [f for f in sorted(glob.glob(pattern)) if os.path.exists(f"{f}/config.json")]
        if not matches:
            raise UserError(f"--workdir: expected runs, found none that {text!r} stands for.")
        folders += matches
    return folders


def _default(runs: Sequence[Run]) -> pathlib.Path:
    if len(runs) == 1:
        return runs[0].folder / NAME
    return pathlib.Path(os.path.commonpath([run.folder.absolute() for run in runs]), NAME)


def write(runs: Sequence[Run], file: pathlib.Path, most_samples: int) -> None:
    """Writes the page, whole or not at all."""
    title = f"hir_jax: {', '.join(run.name for run in runs)}"
    content = page.render(gather.gather(runs, most_samples), title)
    try:
        if file.exists() and page.MARK.encode() not in file.read_bytes()[:200]:
            raise UserError(
                f"--output: {str(file)!r} is there already, and no report; give another name."
            )
        workdirs.write_text(file, content, shared=True)  # a run at work may write it, too
    except OSError as e:
        raise UserError(f"--output: cannot write {str(file)!r}: {e.strerror}.") from e


@contextlib.contextmanager
def beside(config: ml_collections.ConfigDict, workdir: str) -> Iterator[Callable[[int], None]]:
    """What a run calls after each iteration: has `keep` write the page while the run goes on.

    Where the last page is still being written, the iteration goes without one.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        last = pool.submit(lambda: None)

        def after(iteration: int) -> None:
            nonlocal last
            if last.done():
                last = pool.submit(keep, config, workdir, iteration)

        yield after


def keep(
    config: ml_collections.ConfigDict, workdir: str, iteration: int, ended: bool = False
) -> None:
    """Writes the page of a run that goes on, every `config.report.every` iterations; at its end,
    `ended`, with its pictures. A fault in it is told and does not stop the run."""
    every = config.report.every
    if not every or not processes.is_first() or not (ended or iteration % every == 0):
        return
    started, file = time.monotonic(), pathlib.Path(workdir) / NAME
    try:
        runs = read_runs([workdir])
        write(runs, file, config.report.samples)
        if ended:
            plots.write(runs, file)
    except Exception as e:  # whatever it is, the run matters more
        logging.warning("no report: %s: %s", type(e).__name__, e)
    else:
        logging.info("report: %s (%.1f s)", file, time.monotonic() - started)
