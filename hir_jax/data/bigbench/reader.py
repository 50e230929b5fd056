"""BIG-bench tasks as examples: finds the raw file, prepares it once, reads the records."""

import difflib
import hashlib
import http
import http.client
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from hir_jax.data.bigbench.bigbench_dataset_builder import Builder, Task
from hir_jax.data.bigbench.tasks import RAW_FOLDER, folder_of
from hir_jax.data.canonical import with_ids
from hir_jax.data.example import Example
from hir_jax.data.stories import with_premises
from hir_jax.errors import UserError

_URL = "https://raw.githubusercontent.com/google/BIG-bench/main/bigbench/benchmark_tasks"
_TIMEOUT_S = 30
_EXACT = ("", "exact_str_match")  # what free-form answers are scored by, where they must be equal

# TFDS warns of each task that `Builder` does not list, though it is no less asked for.
logging.get_absl_logger().addFilter(
    lambda record: not record.getMessage().startswith("Using custom data configuration")
)


def read(task: str, protocol: str, bigbench_dir: str = "", tfds_dir: str = "") -> list[Example]:
    """The examples of a task, in the order of its file, options not shuffled.

    Args:
        task: a folder of BIG-bench's `benchmark_tasks/`, or a name in `RAW_FOLDER`.
        protocol: 'paper' for the texts and answers of the reference code, else 'premise'.
        bigbench_dir: a folder laid out like BIG-bench's `benchmark_tasks/`; '' = TFDS's manual dir
            and, where that lacks the task, download.
        tfds_dir: where prepared data is kept; '' = TFDS's default.

    Raises:
        UserError: no such task; a faulty raw file; damaged prepared data; `tfds_dir` cannot be
            written.
    """
    make_example = _as_paper if protocol == "paper" else _as_published
    records = _records(
        task, bigbench_dir, Path(tfds_dir or tfds.core.constants.DATA_DIR).expanduser()
    )
    return with_premises(with_ids(make_example(task, record) for record in records))


def _records(task: str, bigbench_dir: str, data_dir: Path) -> list[dict[str, Any]]:
    """The task's records in the order of the file, prepared first if they are not yet."""
    try:
        raw_dir = _raw_dir(task, bigbench_dir, data_dir)
        builder = _prepared(task, raw_dir, data_dir)
    except OSError as error:
        raise UserError(
            f"Cannot prepare the BIG-bench task {task} under {data_dir}: {error}. Set "
            "--config.data.tfds_dir to a folder that can be written."
        ) from error
    try:
        records = [_decoded(record) for record in builder.as_data_source("examples")]
    except Exception as error:  # array_record's own checksums, and more that TFDS raises
        raise _damaged(builder.data_path, error) from error
    return sorted(records, key=lambda record: record["index"])


def _raw_dir(task: str, bigbench_dir: str, data_dir: Path) -> Path:
    """The folder that holds the task's raw file; downloads the file if there is none."""
    file = Path(folder_of(task), "task.json")
    if bigbench_dir:
        given_dir = Path(bigbench_dir).expanduser()
        if not (given_dir / file).is_file():
            raise _missing(task, given_dir, file)
        return given_dir
    manual_dir = data_dir / "downloads" / "manual"
    downloaded_dir = data_dir / "downloads" / "bigbench"
    for folder in (manual_dir, downloaded_dir):
        if (folder / file).is_file():
            return folder
    _download(f"{_URL}/{file.as_posix()}", downloaded_dir / file, manual_dir)
    return downloaded_dir


def _missing(task: str, given_dir: Path, file: Path) -> UserError:
    if (given_dir / file).with_name("task.py").is_file():
        return UserError(
            f"The BIG-bench task {task} is a program (task.py), which asks and scores the model "
            "itself. Expected one with questions in a task.json."
        )
    folders = [each.parent for each in given_dir.glob("**/task.json")]
    names = [*RAW_FOLDER, *(folder.relative_to(given_dir).as_posix() for folder in folders)]
    if not folders:
        hint = (
            "Set --config.data.bigbench_dir to a folder laid out like BIG-bench's "
            "bigbench/benchmark_tasks/."
        )
    else:
        close = difflib.get_close_matches(task, names, n=5) or sorted(set(names))[:5]
        hint = f"There are {len(folders):,} others, such as {', '.join(close)}."
    return UserError(f"No BIG-bench task file {given_dir / file}. {hint}")


def _download(url: str, target: Path, manual_dir: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "code", None) == http.HTTPStatus.NOT_FOUND:
            raise UserError(
                f"There is no {url}. Expected data.task to name a folder of BIG-bench's "
                "benchmark_tasks that has a task.json."
            ) from error
        raise UserError(
            f"Cannot download {url}: {error}. Set --config.data.bigbench_dir to a folder laid out "
            "like BIG-bench's bigbench/benchmark_tasks/ (the PyPI package `bigbench` has the same "
            f"files), or put that folder's content into {manual_dir}."
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when whole: a killed download must not be taken for the file.
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(target)


def _prepared(task: str, raw_dir: Path, data_dir: Path) -> Builder:
    """The builder of the task with its data on disk.

    The raw file's digest is part of the path, so another raw file never meets old data. TFDS
    writes into a temporary folder and renames it when whole, so a killed run leaves nothing that
    looks prepared.
    """
    raw_file = raw_dir / folder_of(task) / "task.json"
    digest = hashlib.sha256(raw_file.read_bytes()).hexdigest()[:16]
    builder = _builder(task, data_dir / "hir_jax" / digest)
    try:
        builder.download_and_prepare(
            download_dir=data_dir / "downloads",
            download_config=tfds.download.DownloadConfig(manual_dir=raw_dir),
        )
    except OSError:
        # Another process may have renamed its copy to this path first; it serves as well.
        if not builder.data_path.exists():
            raise
        builder = _builder(task, Path(builder.data_dir_root))
    return builder


def _builder(task: str, folder: Path) -> Builder:
    """The builder, which reads what data that is there says of itself."""
    try:
        return Builder(config=_config(task), data_dir=folder, file_format="array_record")
    except OSError:
        raise
    except Exception as error:  # of many types: TFDS asserts, and protobuf parses
        raise _damaged(folder, error) from error


def _config(task: str) -> str | Task:
    """What TFDS calls a task: those of the paper by name, no folder with a slash."""
    if task in RAW_FOLDER:
        return task
    return Task(name=task.replace("/", "."), folder=task, description=f"BIG-bench {task}")


def _damaged(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"The prepared data in {folder} is damaged: {error}. Delete that folder; it is made again "
        "from the raw file."
    )


def _decoded(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with texts for bytes."""
    return {
        "index": int(record["index"]),
        "prefix": record["prefix"].decode(),
        "input": record["input"].decode(),
        "options": [option.decode() for option in record["options"]],
        "scores": record["scores"],
        "targets": [target.decode() for target in record["targets"]],
        "metric": record["metric"].decode(),
    }


def _as_published(task: str, record: Mapping[str, Any]) -> Example:
    """Prefix and input as they are; the options scored highest, and every target, are right."""
    options, scores = tuple(record["options"]), list(record["scores"])
    right = [o for o, score in zip(options, scores, strict=True) if score == max(scores)]
    question = record["prefix"] + record["input"]
    return _example(task, record, question, options, tuple(right or record["targets"]))


def _as_paper(task: str, record: Mapping[str, Any]) -> Example:
    """The reference code's texts and its one right answer."""
    prefix, options = record["prefix"].replace("\n\n", "\n"), tuple(record["options"])
    if options:
        question = prefix + record["input"].replace("\n\n", "")
        answer = options[list(record["scores"]).index(max(record["scores"]))]
    else:
        question = prefix + record["input"].replace("\n\n", "\n")
        # Where several spellings are accepted, the reference code takes the second.
        answer = record["targets"][min(1, len(record["targets"]) - 1)]
    return _example(task, record, question, options, (answer,))


def _example(
    task: str,
    record: Mapping[str, Any],
    question: str,
    options: tuple[str, ...],
    answers: tuple[str, ...],
) -> Example:
    where, metric = f"{task}[{record['index']}]", record["metric"]
    graded = "" if options or metric in _EXACT else metric
    return Example("", question, options, answers, task, premise="", where=where, metric=graded)
