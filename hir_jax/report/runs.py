"""What a run has left in its workdir so far, finished or not."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from hir_jax.errors import UserError
from hir_jax.run import identity
from hir_jax.run.outcome import Outcome
from hir_jax.run.workdirs import Record, flatten, read_json, read_lines


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as its files tell of it.

    Attributes:
        name: what tells it from the others of a page.
        folder: its workdir.
        config: its fields, by "data.seed" and the like.
        identity: digests of what it reads; empty where there are none.
        metrics: the lines of metrics.jsonl.
        timings: the lines of timings.jsonl.
        outcome: of eval.json, once the run has ended.
    """

    name: str
    folder: pathlib.Path
    config: Record
    identity: dict[str, str]
    metrics: list[Record]
    timings: list[Record]
    outcome: Outcome | None

    def lines(self, phase: str) -> list[Record]:
        """The lines of metrics.jsonl of a phase."""
        return [line for line in self.metrics if line.get("phase") == phase]

    @property
    def iteration(self) -> int:
        """The last that anything is known of."""
        return max((line.get("iteration", 0) for line in self.metrics), default=0)

    @property
    def iterations(self) -> int:
        """How many it is to have."""
        return self.config.get("iterations", self.iteration)

    @property
    def finished(self) -> bool:
        """It has ended, and was not asked for more iterations since."""
        return self.outcome is not None and self.outcome.iterations >= self.iterations

    def sample_files(self) -> list[pathlib.Path]:
        """samples/iter_NNNN.jsonl, in the order of iterations."""
        found = (self.folder / "samples").glob("iter_*.jsonl")
        return sorted(found, key=lambda file: (len(file.name), file.name))


def read_runs(workdirs: Sequence[str]) -> list[Run]:
    """The runs of these folders, named by what their paths do not have in common.

    Raises:
        UserError: a folder is no run's, is given twice, or has a file that cannot be read.
    """
    folders = [pathlib.Path(workdir).expanduser() for workdir in workdirs]
    whole = [folder.resolve() for folder in folders]
    if twice := {str(folder) for folder in whole if whole.count(folder) > 1}:
        raise UserError(
            f"--workdir: expected each run once, found {', '.join(sorted(twice))} again."
        )
    return [_read(*each) for each in zip(names_of(whole), folders, strict=True)]


def names_of(folders: Sequence[pathlib.Path]) -> list[str]:
    """Of each folder its last part, or its path below what all have in common."""
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder, common) for folder in folders]


def _read(name: str, folder: pathlib.Path) -> Run:
    if not (folder / "config.json").is_file():
        raise UserError(
            f"--workdir: expected a run's folder, with its config.json, found none in {folder}. "
            "Give the --workdir of a run that has begun, or several with commas between."
        )
    config = flatten(read_json(folder / "config.json"))
    if "algorithm" not in config:
        raise UserError(
            f"--workdir: expected the config of a run in {folder / 'config.json'}, found something "
            "else, as in a model's folder. Give the --workdir of a run."
        )
    ended = (folder / "eval.json").is_file()
    return Run(
        name=name,
        folder=folder,
        config=config,
        identity=identity.read(folder),
        metrics=read_lines(folder / "metrics.jsonl"),
        timings=read_lines(folder / "timings.jsonl"),
        outcome=Outcome.from_json(read_json(folder / "eval.json")) if ended else None,
    )
