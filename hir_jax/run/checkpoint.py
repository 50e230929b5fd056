"""Checkpoints that are whole or not there: atomic, checksummed, restorable onto another mesh.

A checkpoint is one folder, numbered by the optimizer steps before it:

    <directory>/<step>/state/                   the arrays, by Orbax, under their flat names
                                                ("params/decoder/...")
    <directory>/<step>/leaves/leaves.json       shape, dtype and checksum of each array
    <directory>/<step>/progress/progress.json   where the run is, and which checkpoint holds the
                                                best parameters so far

Orbax writes all into a temporary folder and renames it, so a killed save leaves no checkpoint. It
does not notice a changed byte within an array; the checksums do. Where the run moves on and the
arrays do not, as in sampling, progress.json alone is replaced. The best parameters are no copy: a
checkpoint is kept as long as one of the newest speaks of it. Only the methods that save write
anything, so anyone may open a run's checkpoints to read.

Where many processes share a run, all call each method. Each writes and reads its shards, in a
folder that all see; what is small is read by process 0 for all, which so take the same checkpoint.
"""

import contextlib
import dataclasses
import gc
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.run import arrays, disk, noise, sealed

PyTree = Any
T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self, directory: str, keep: int = 2, allow: Callable[[], None] = lambda: None
    ) -> None:
        """Opens `directory`, which need not exist.

        The newest `keep` checkpoints are kept, and those of the best parameters that they speak of.
        `allow` is called before each save; what it raises is raised there.
        """
        self._directory = _absolute(directory)
        self._keep = keep
        self._allow = allow
        self._size = 0  # bytes of what was written last
        self._step: int | None = None  # of the checkpoint that was saved or restored last
        self._best: dict[int, int] = {}  # of each checkpoint, the one of the best parameters then
        self._damaged: set[int] = set()
        self._opened: ocp.CheckpointManager | None = None

    @property
    def directory(self) -> str:
        """Where they are."""
        return str(self._directory)

    def are_there(self) -> bool:
        """Whether there are any, be they whole or damaged."""
        return bool(_steps(self._directory))

    def save(
        self, step: int, state: PyTree, progress: Mapping[str, Any], best: int | None = None
    ) -> None:
        """Writes a checkpoint in the background, replacing a damaged one of the same step.

        Where the one of this step was saved or restored last, its arrays are taken to be the same
        still, and `progress` alone is written, at once.

        On return the arrays of `state` may be donated and `progress` changed. `state` may hold
        typed random keys; `progress` is JSON, from which tuples return as lists.

        Args:
            step: its number.
            state: its arrays.
            progress: where the run is.
            best: the checkpoint of the best parameters so far; None: this one.

        Raises:
            UserError: the disk has no room for it.
        """
        self.wait()
        self._allow()
        self._best[step] = step if best is None else best
        note = {"best": self._best[step], "progress": progress}
        if step == self._step:
            folder, self._size = self._directory / str(step), 0
            return self._told_if_full(lambda: sealed.replace(folder, "progress", note))
        self._size = _bytes(state)
        disk.check(self._directory, self._size, f"checkpoint {step}")
        manager = self._manager()
        for stale in (self._damaged | {step}).intersection(manager.all_steps()):
            manager.delete(stale)
        self._damaged.clear()
        self._told_if_full(lambda: arrays.write(manager, step, state, note))
        self._step = step

    def restore_latest(self, abstract_state: PyTree) -> tuple[int, PyTree, dict[str, Any]] | None:
        """Reads (step, state, progress) from the newest whole checkpoint; None where there is none.

        A damaged one that is passed over is logged as a warning.

        Args:
            abstract_state: jax.ShapeDtypeStruct leaves; their shardings, on any mesh, are those of
                the result. A leaf without one goes to the default device.

        Raises:
            UserError: the stored leaves differ in name, shape or dtype, or all is damaged.
        """
        steps = _steps(self._directory)
        if not steps:
            return None
        wanted = jax.tree.map(arrays.placed, abstract_state)

        def read(folder: epath.Path) -> tuple[dict[str, Any], PyTree]:
            return sealed.read(folder, "progress"), arrays.read(folder, wanted)

        self._step, (note, state) = _newest_whole(self._directory, steps, read)
        self._damaged = {step for step in steps if step > self._step}
        self._best[self._step] = note["best"]
        for older in steps[steps.index(self._step) + 1 :]:
            with contextlib.suppress(Exception):  # it is damaged, which no one has to know
                self._best[older] = sealed.read(self._directory / str(older), "progress")["best"]
        return self._step, state, note["progress"]

    def restore_best(self, abstract_params: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """Reads the best parameters and the progress that speaks of them; None where nothing is.

        It is that of the checkpoint saved or restored last, else of the newest whole one. Arguments
        and faults are as those of `restore_latest`.
        """
        wanted = {"params": jax.tree.map(arrays.placed, abstract_params)}

        def read(folder: epath.Path) -> tuple[PyTree, dict[str, Any]]:
            note = sealed.read(folder, "progress")
            state = arrays.read(self._directory / str(note["best"]), wanted, scope="params/")
            return state["params"], note["progress"]

        steps = _steps(self._directory) if self._step is None else [self._step]
        return _newest_whole(self._directory, steps, read)[1] if steps else None

    def wait(self) -> None:
        """Blocks until everything saved is whole on disk; raises what went wrong in writing it.

        Raises:
            UserError: the disk is full.
        """
        if self._opened is not None:
            self._told_if_full(self._opened.wait_until_finished)

    def close(self) -> None:
        """Waits as `wait` does, then frees the writing threads."""
        if self._opened is not None:
            self._told_if_full(self._opened.close)
        self._opened = None

    def check_room(self, state: PyTree) -> None:
        """Raises UserError where a run's checkpoints would not all fit: those kept, the next one,
        and the one of the best parameters."""
        count = self._keep + 2
        there = disk.used(self._directory)
        what = f"{count} checkpoints, beside the {there:,} that are there"
        disk.check(self._directory, count * _bytes(state) - there, what)

    def check_best(self) -> None:
        """Raises UserError where the best parameters are not there that the run speaks of."""
        best = self._best[self._step]
        if best not in _steps(self._directory):
            raise UserError(
                f"Expected the run's best parameters in {self._directory / str(best)}, found none, "
                "though its newest checkpoint speaks of them. Put the folder back, or give another "
                "--workdir."
            )

    def _told_if_full(self, work: Callable[[], None]) -> None:
        """A full disk in `work` is a UserError; what was written in part goes."""
        try:
            return work()
        except Exception as e:
            fault = disk.fault(e, self._directory, self._size)
            if fault is None:
                raise
        # Out of the handler, so that nothing holds the writes that Orbax gave up.
        if self._opened is not None and not processes.many():  # others may never close theirs
            with contextlib.suppress(Exception):
                self._opened.close()
        self._opened = None
        disk.remove(self._directory, "*.orbax-checkpoint-tmp")
        gc.collect()
        raise fault

    def _manager(self) -> ocp.CheckpointManager:
        """What writes them, made at the first save: it removes temporary folders."""
        if self._opened is None:
            self._opened = arrays.manager(self._directory, _Kept(self._keep, self._best))
        return self._opened


@dataclasses.dataclass(frozen=True)
class _Kept:
    """Orbax's policy of what is kept: the newest, and those of the best parameters beside them."""

    newest: int
    best: Mapping[int, int]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(sorted(steps)[-self.newest :])
        kept |= {self.best.get(step, step) for step in kept}
        return [step in kept for step in steps]


def newest_progress(directory: str) -> dict[str, Any] | None:
    """The progress of the newest checkpoint, without its arrays; None where there is none.

    Raises:
        UserError: all are damaged, or of another format.
    """
    root = _absolute(directory)
    steps = _steps(root)
    read = lambda folder: sealed.read(folder, "progress")["progress"]  # noqa: E731
    return _newest_whole(root, steps, read)[1] if steps else None


def _absolute(directory: str) -> epath.Path:
    """Orbax takes absolute paths only; a bucket's ("gs://...") is one already."""
    path = epath.Path(directory)
    return path if path.is_absolute() else path.resolve()


def _steps(directory: epath.Path) -> list[int]:
    """The steps of the finished checkpoints, newest first.

    Raises UserError where one is a link to nothing, which Orbax neither lists nor replaces, or the
    folder is: its run would be begun anew.
    """

    def look() -> list[int]:
        for path in (directory, *directory.glob("[0-9]*")):
            if os.path.islink(path) and not path.exists():
                raise UserError(
                    f"{path}: expected checkpoints, found a link to nothing. Mount what it leads "
                    "to, or remove the link."
                )
        return sorted(ocp.path.step.checkpoint_steps(directory), reverse=True)

    return processes.on_first(look)


def _newest_whole(
    directory: epath.Path, steps: Sequence[int], read: Callable[[epath.Path], T]
) -> tuple[int, T]:
    """The first of `steps` whose folder can be read, and what `read` gives of it."""
    faults = []
    for step in steps:
        folder = directory / str(step)
        try:
            return step, read(folder)
        except UserError:
            raise
        except Exception as error:  # Orbax raises many types, plain Exception among them.
            cause = error.__cause__ or error
            if isinstance(cause, MemoryError | jax.errors.JaxRuntimeError):
                raise  # The device's fault, not the checkpoint's.
            fault = str(cause).partition("\n")[0][:300]
            faults.append(f"{folder}: {type(cause).__name__}: {fault}")
            logging.warning("Damaged checkpoint passed over: %s", faults[-1])
    now = _steps(directory)
    if now and not set(now) & set(steps):  # a run at work has replaced them all meanwhile
        return _newest_whole(directory, now, read)
    raise UserError(
        f"Expected a whole checkpoint in {directory}, found only damaged ones:\n  "
        + "\n  ".join(faults)
        + "\nPut back a copy of one of these folders, or move the folder away to start anew."
    )


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


noise.hush()
