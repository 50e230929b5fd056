"""The TensorFlow Datasets builder: a BIG-bench task.json -> array_record.

The records keep the raw fields, so that one prepared copy serves every protocol. Nothing here
needs TensorFlow: TFDS then asks that the builder lives in a package folder (it looks for metadata
files beside it, through `importlib_resources`) and that `_generate_examples` has that name.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hir_jax.data.bigbench.tasks import RAW_FOLDER
from hir_jax.data.files import raise_faults, read_examples
from hir_jax.errors import UserError

_MOST = float(np.finfo(np.float32).max)  # of a score, as records keep it


@dataclasses.dataclass(eq=False, kw_only=True)
class Task(tfds.core.BuilderConfig):
    """What a builder is made for: a task.

    Attributes:
        folder: of its file, in BIG-bench's `benchmark_tasks/`.
    """

    folder: str = ""


class Builder(tfds.core.GeneratorBasedBuilder):
    """One config a task, one split "examples" in the order of the file.

    The tasks of the paper have configs by name; for another give a `Task`.
    The raw files are read from TFDS's manual dir, laid out like BIG-bench's `benchmark_tasks/`.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.1.0": "What the task is scored by."}  # noqa: RUF012 - as below
    BUILDER_CONFIGS = [  # noqa: RUF012 - TFDS reads a plain list
        Task(name=task, folder=folder, description=f"BIG-bench {folder}")
        for task, folder in RAW_FOLDER.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put bigbench/benchmark_tasks/ of https://github.com/google/BIG-bench there."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "index": np.int64,
                    "prefix": text(),
                    "input": text(),
                    "options": tfds.features.Sequence(text()),
                    "scores": tfds.features.Sequence(np.float32),
                    "targets": tfds.features.Sequence(text()),
                    "metric": text(),
                }
            ),
            homepage="https://github.com/google/BIG-bench",
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        folder = Path(dl_manager.manual_dir, self.builder_config.folder)
        records = read_raw(folder / "task.json")
        return {"examples": self._generate_examples(records)}

    def _generate_examples(
        self, records: list[dict[str, Any]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for record in records:
            yield record["index"], record


def read_raw(path: Path) -> list[dict[str, Any]]:
    """The records of a task.json.

    A file may have both "target" and "target_scores": it is multiple choice, and "targets" (used
    for free-form questions only) is still kept.

    Raises:
        UserError: the file cannot be read, has subtasks alone, or examples lack their texts.
    """
    if subtasks := sorted(file.parent.name for file in path.parent.glob("*/task.json")):
        name = path.parent.name
        raise UserError(
            f"{path} has no questions of its own. Expected data.task to name subtasks of {name}: "
            f"{', '.join(f'{name}/{subtask}' for subtask in subtasks)}."
        )
    task = read_examples(path)
    names = ("task_prefix", "example_input_prefix", "preferred_score")
    texts = [task.get(name, "") for name in names]
    faults = [
        f'"{n}" is no text, but {t!r}'
        for n, t in zip(names, texts, strict=True)
        if type(t) is not str
    ]
    faults += [
        f'example {i}: expected a text "input" and "target" (text or texts) or "target_scores" '
        "with an option scored above 0"
        for i, example in enumerate(task["examples"])
        if not _is_whole(example)
    ]
    raise_faults(path, faults)
    prefix, metric = "".join(texts[:2]), texts[2]
    return [_record(i, prefix, metric, example) for i, example in enumerate(task["examples"])]


def _is_whole(example: dict[str, Any]) -> bool:
    targets = _targets(example)
    if not isinstance(example.get("input"), str):
        return False
    if "target_scores" in example:
        scores = example["target_scores"]
        if not (isinstance(scores, dict) and scores):
            return False
        if not all(type(s) in (int, float) and abs(s) <= _MOST for s in scores.values()):
            return False
        if not np.float32(max(scores.values())) > 0:
            return False
    elif not targets:
        return False
    return all(isinstance(target, str) for target in targets)


def _targets(example: dict[str, Any]) -> list[str]:
    target = example.get("target", [])
    return target if isinstance(target, list) else [target]


def _record(index: int, prefix: str, metric: str, example: dict[str, Any]) -> dict[str, Any]:
    scores = example.get("target_scores", {})
    return {
        "index": index,
        "prefix": prefix,
        "input": example["input"],
        "options": list(scores),
        "scores": list(scores.values()),
        "targets": _targets(example),
        "metric": metric,
    }
