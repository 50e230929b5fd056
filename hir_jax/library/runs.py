"""Configs, questions, runs and their report."""

import json
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from hir_jax import data
from hir_jax.data import rows
from hir_jax.data.canonical import canonical, with_ids
from hir_jax.data.example import Example
from hir_jax.data.files import raise_faults
from hir_jax.data.records import Fields, Reader
from hir_jax.errors import UserError
from hir_jax.library import inputs
from hir_jax.report import report
from hir_jax.run import configs, loop, settings, workdirs
from hir_jax.run.outcome import Outcome

TASK = "questions"  # that `examples` are of


def config(
    name: str | os.PathLike[str], changes: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
    """The config of a file with some of its fields changed, for `train` and `questions`.

    `config("configs/tiny.py", {"data.size": 500})` is what `--config=configs/tiny.py
    --config.data.size=500` gives a run.

    Args:
        name: a file, or file:argument. One that is not there is looked for among those that come
            with hir_jax; "configs/workdir.py:FOLDER" is the config of a run.
        changes: values by the names of fields; configs/common.py describes them all.

    Returns:
        The config, locked: it takes no new fields.

    Raises:
        UserError: there is no such file or field, or a value is at fault or would not be read.
    """
    changes = inputs.changes(changes)
    made = configs.make(inputs.path(name, "name"), changes)
    of_data = [field.removeprefix("data.") for field in changes if field.startswith("data.")]
    data.check_given(made.data, of_data)
    settings.check_given(made, changes)
    return made


def questions(config: ml_collections.ConfigDict) -> data.Splits:
    """The questions of `config.data`: `train`, `dev` and `test`.

    Raises:
        UserError: the data is missing or at fault.
    """
    return data.load(inputs.config(config).data)


def examples(records: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Questions of your own, each a dict as the lines of a data file are (docs/own_task.md).

    `examples([{"question": "What is 1 + 2?", "answers": ["3", "three"]}])`; "options" make it a
    multiple choice.

    Raises:
        UserError: records are at fault; the first ten are listed.
    """
    records = inputs.listed(records)
    if not isinstance(records, list):
        raise UserError(f"Expected a list of questions, a dict each, found {records!r:.200}.")
    read, faults, taken = [], [], set()
    for i, record in enumerate(records):
        reader = Reader()
        try:
            content, fault = rows.parse(json.dumps(record, default=inputs.as_json))
        except (TypeError, ValueError) as e:
            content, fault = {}, f"expected what JSON can hold: {e}"
        fields = Fields() if fault else reader.read(content)
        found = [fault] if fault else reader.faults
        if fields.id and fields.id in taken:
            found.append(f'the "id" {fields.id!r} is taken')
        taken.add(fields.id)
        faults += [f"record {i}: {fault}" for fault in found]
        premise = canonical(fields.premise or fields.question)
        read.append(
            Example(fields.id, fields.question, fields.options, fields.answers, TASK, premise)
        )
    raise_faults("Questions", faults, "Mend them")
    return with_ids(read)


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> Outcome:
    """Runs the method of a config, or resumes it where it was stopped; `--mode=train`.

    Args:
        config: of `config`.
        workdir: where the run lives; one folder, one run.

    Returns:
        The evaluations before and after; `print(outcome.table())` shows them. `load(workdir)` is
        the best policy.

    Raises:
        UserError: the config, the data or the workdir is at fault, or a loss is not finite.
        hir_jax.devices.interrupts.Interrupted: a signal (Ctrl-C) asked to stop; the same call goes
            on.
    """
    config = inputs.config(config)
    workdir = workdirs.absolute(inputs.path(workdir, "workdir"), "workdir")
    if threading.current_thread() is not threading.main_thread():
        raise UserError(
            "Expected `train` in the main thread, which alone gets signals, found another. Call it "
            "there, or in a process of its own."
        )
    with report.beside(config, workdir) as after:
        outcome = loop.run(config, workdir, after)
    report.keep(config, workdir, config.iterations, ended=True)
    return outcome


def write_report(
    runs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """One HTML page of one or several runs, with curves, comparison and samples; `--mode=report`.

    Args:
        runs: their workdirs.
        output: the page; by default report.html in the workdir, of several runs in the folder that
            they have in common.

    Returns:
        Where it is.

    Raises:
        UserError: a folder is no run's, or the page cannot be written.
    """
    runs = inputs.listed(runs)
    if not isinstance(runs, list):
        raise UserError(f"runs: expected a list, such as [workdir]; found {runs!r:.200}.")
    folders = [inputs.path(run, "runs") for run in runs]
    output = None if output is None else inputs.path(output, "output")
    most = configs.make(configs.DEFAULTS, {}).report.samples
    return report.make(folders, output, most)
