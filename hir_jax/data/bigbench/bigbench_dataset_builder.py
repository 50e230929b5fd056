"""The TensorFlow Datasets builder: a BIG-bench task.json -> array_record.

The records keep the raw fields, so that one prepared copy serves every protocol. Nothing here
needs TensorFlow: TFDS then asks that the builder lives in a package folder (it looks for metadata
files beside it, through `importlib_resources`) and that `_generate_examples` has that name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hir_jax.data.bigbench.tasks import RAW_FOLDER
from hir_jax.data.files import raise_faults, read_examples

_MOST = float(np.finfo(np.float32).max)  # of a score, as records keep it


class Builder(tfds.core.GeneratorBasedBuilder):
    """One config a task, one split "examples" in the order of the file.

    The raw files are read from TFDS's manual dir, laid out like BIG-bench's `benchmark_tasks/`.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 - TFDS reads a plain list
        tfds.core.BuilderConfig(name=task, description=f"BIG-bench {folder}")
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
                }
            ),
            homepage="https://github.com/google/BIG-bench",
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        folder = RAW_FOLDER[self.builder_config.name]
        records = read_raw(Path(dl_manager.manual_dir) / folder / "task.json")
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
        UserError: the file cannot be read, or examples lack their texts.
    """
    task = read_examples(path)
    prefixes = [task.get(name, "") for name in ("task_prefix", "example_input_prefix")]
    faults = [f"a prefix is no text, but {text!r}" for text in prefixes if type(text) is not str]
    faults += [
        f'example {i}: expected a text "input" and "target" (text or texts) or "target_scores" '
        "with an option scored 1"
        for i, example in enumerate(task["examples"])
        if not _is_whole(example)
    ]
    raise_faults(path, faults)
    return [_record(i, "".join(prefixes), example) for i, example in enumerate(task["examples"])]


def _is_whole(example: dict[str, Any]) -> bool:
    targets = _targets(example)
    if not isinstance(example.get("input"), str):
        return False
    if "target_scores" in example:
        scores = example["target_scores"]
        if not isinstance(scores, dict) or 1 not in scores.values():
            return False
        if not all(type(s) in (int, float) and abs(s) <= _MOST for s in scores.values()):
            return False
    elif not targets:
        return False
    return all(isinstance(target, str) for target in targets)


def _targets(example: dict[str, Any]) -> list[str]:
    target = example.get("target", [])
    return target if isinstance(target, list) else [target]


def _record(index: int, prefix: str, example: dict[str, Any]) -> dict[str, Any]:
    scores = example.get("target_scores", {})
    return {
        "index": index,
        "prefix": prefix,
        "input": example["input"],
        "options": list(scores),
        "scores": list(scores.values()),
        "targets": _targets(example),
    }
