"""Where else a run's figures are shown: TensorBoard, Weights & Biases, trackio.

Nothing leaves the machine unless `config.trackers` names what sends it.
"""

import importlib
import pathlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import logging

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample
from hir_jax.run import workdirs

PROJECT = "hir_jax"
FILE = "trackers.json"  # of a workdir: what Weights & Biases and trackio were told
FEW = 8  # samples of an iteration that are told
COLUMNS = ("verdict", "question", "output")

Values = Mapping[str, float | int | str]


class Told(NamedTuple):
    """A sample, as it is told: `verdict` is "right", "wrong" or "unreadable"."""

    verdict: str
    question: str
    output: str


class Tracker:
    """Is told of a run's figures and samples as they come.

    `place` is the length of metrics.jsonl in bytes, with the figures' own line where they have one:
    a resumed run comes by the same places again.
    """

    def scalars(self, place: int, step: int, values: Values) -> None:
        """A line of metrics.jsonl."""

    def timing(self, place: int, step: int, values: Values) -> None:
        """A line of timings.jsonl."""

    def samples(self, place: int, step: int, told: Sequence[Told]) -> None:
        """A few samples of an iteration."""

    def close(self) -> None:
        """The run ends."""


class Module(Tracker):
    """Tells a module with the interface of Weights & Biases, and nothing twice.

    What was told stands in the workdir: the place in metrics.jsonl, and the names of what has no
    line there.
    """

    def __init__(self, name: str, workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
        """Begins a run there, or goes on with it.

        Raises:
            UserError: the module is not installed, or does not begin.
        """
        self.name, self._module = name, _imported(name)
        self._file = workdir / FILE
        fresh = {"id": uuid.uuid4().hex[:12], "place": 0, "names": []}
        self._known: dict[str, Any] = fresh | self._told().get(name, {})
        self._failed = False
        self._save()  # before it begins: a run that is killed meanwhile goes on under the same id
        try:
            self._begin(workdir, config)
        except Exception as e:
            raise UserError(
                f"config.trackers: {name} does not begin: {e}. Mend that, or leave it out; the run "
                "is the same without it."
            ) from e

    def scalars(self, place: int, step: int, values: Values) -> None:
        """Figures, unless they have been told."""
        if place > self._known["place"]:
            self._known["place"] = place
            self._tell(figures(values), step)

    def timing(self, place: int, step: int, values: Values) -> None:
        """Figures, unless those of this phase and iteration have been told."""
        self._once(f"{values.get('phase')} {values.get('iteration')}", figures(values), step)

    def samples(self, place: int, step: int, told: Sequence[Told]) -> None:
        """A table, unless there has been one of this step."""
        rows = [list(map(plain, each)) for each in told]
        table = self._safely(self._module.Table, columns=list(COLUMNS), data=rows)
        if table is not None:
            self._once(f"samples {step}", {"samples": table}, step)

    def close(self) -> None:
        """Ends the run there."""
        self._safely(self._module.finish)

    def _begin(self, workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
        raise NotImplementedError

    def _log(self, values: dict[str, Any], step: int) -> None:
        raise NotImplementedError

    def _once(self, name: str, values: dict[str, Any], step: int) -> None:
        if name not in self._known["names"]:
            self._known["names"].append(name)
            self._tell(values, step)

    def _tell(self, values: dict[str, Any], step: int) -> None:
        if values:
            self._safely(self._log, values, step)
        self._save()

    def _safely(self, call: Any, *args: Any, **named: Any) -> Any:
        """What a call gives; None where it fails, since a service must not end a run."""
        if self._failed:
            return None
        try:
            return call(*args, **named)
        except Exception:
            self._failed = True
            logging.exception("%s has failed and is told nothing more; the run goes on", self.name)

    def _told(self) -> dict[str, Any]:
        return workdirs.read_json(self._file) if self._file.exists() else {}

    def _save(self) -> None:
        workdirs.write_json(self._file, self._told() | {self.name: self._known})


class WeightsAndBiases(Module):
    """Its own steps only grow, and alarms come before the figures of earlier steps: a column."""

    def _begin(self, workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
        self._module.init(
            project=PROJECT,
            name=workdir.resolve().name,
            id=self._known["id"],
            resume="allow",
            config=config.to_dict(),
            dir=str(workdir),  # not the folder that the run was started in
            settings={"console": "off"},  # else it takes the terminal over
        )
        self._module.define_metric("*", step_metric="step")

    def _log(self, values: dict[str, Any], step: int) -> None:
        self._module.log(values | {"step": step})


class Trackio(Module):
    """Knows runs by their names."""

    def _begin(self, workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
        name = f"{workdir.resolve().name}-{self._known['id']}"
        self._module.init(
            project=PROJECT, name=name, resume="allow", config=flat(config), embed=False
        )

    def _log(self, values: dict[str, Any], step: int) -> None:
        self._module.log(values, step=step)


MODULES = {"wandb": WeightsAndBiases, "trackio": Trackio}


def names(config: ml_collections.ConfigDict) -> list[str]:
    """Those that a config asks for."""
    return [name.strip() for name in config.trackers.split(",") if name.strip()]


def faults(config: ml_collections.ConfigDict) -> list[str]:
    """What is wrong with `config.trackers`; empty where nothing is."""
    found = []
    for name in names(config):
        if name not in ("tensorboard", *MODULES):
            known = ", ".join(("tensorboard", *MODULES))
            found.append(f"config.trackers: expected some of {known}; found {name!r}")
        elif name in MODULES:
            try:
                _imported(name)
            except UserError as e:
                found.append(str(e).removesuffix("."))
    return found


def make(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    first_step: int | None,
    position: int | None,
) -> list[Tracker]:
    """Those that `config.trackers` names, for a run that goes on from `position`, if it does.

    Raises:
        UserError: one of them does not begin.
    """
    made: list[Tracker] = []
    for name in names(config):
        if name == "tensorboard":
            from hir_jax.run.tensorboard import TensorBoard  # it loads torch where that is

            made.append(TensorBoard(workdir / name, config, first_step, position))
        else:
            made.append(MODULES[name](name, workdir, config))
    return made


def few(samples: Sequence[Sample], examples: Mapping[str, Example]) -> list[Told]:
    """The first of each question, right ones and others by turns as long as there are both."""
    first = {sample.example_id: sample for sample in reversed(samples)}
    ones = list(reversed(first.values()))
    right = [sample for sample in ones if sample.correct][:FEW]
    others = [sample for sample in ones if not sample.correct][:FEW]
    ordered = [s for pair in zip(right, others, strict=False) for s in pair]
    ordered += max(right, others, key=len)[min(len(right), len(others)) :]
    return [
        Told(
            "right" if s.correct else "wrong" if s.parsed else "unreadable",
            examples[s.example_id].question,
            s.text,
        )
        for s in ordered[:FEW]
    ]


def figures(values: Values) -> dict[str, float | int]:
    """The numbers among them, as "<phase>/<name>" where there is a "phase"."""
    group = f"{values['phase']}/" if "phase" in values else ""
    return {f"{group}{k}": v for k, v in values.items() if not isinstance(v, str)}


def flat(config: ml_collections.ConfigDict) -> dict[str, str | bool | float | int]:
    """A config by "loss.smoothing" and the like; what is no number or text is written as text."""
    fields = workdirs.flatten(config.to_dict())
    return {k: v if isinstance(v, str | bool | int | float) else str(v) for k, v in fields.items()}


def plain(text: str) -> str:
    """Text on one line, with an escape for each character that is not seen, such as "\\x1b"."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise UserError(
            f"config.trackers: {name} is asked for and not installed ({e}). Install it (pip "
            f"install {name}) or leave it out."
        ) from e
    except Exception as e:  # of a package beside it that does not suit it
        raise UserError(
            f"config.trackers: {name} is installed and cannot be imported: {e!r}. Mend that, or "
            "leave it out."
        ) from e
