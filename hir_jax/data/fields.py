"""Which fields of `config.data` a source reads: one that was set and is not read is refused."""

from collections.abc import Collection
from pathlib import Path

import ml_collections

from hir_jax.errors import UserError

SOURCES = ("generated", "bigbench", "bbh", "jsonl", "reasoning_gym")

# What a field means stands in the config files.
READ_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("source", "task", "protocol", "seed", "shuffle_options"), SOURCES),
    **dict.fromkeys(("dev_fraction", "test_fraction"), SOURCES),  # where fixed, checked
    **dict.fromkeys(("max_train", "max_dev", "max_test"), SOURCES),
    **dict.fromkeys(("max_source_tokens", "too_long", "unwritable", "alike"), SOURCES),
    "path": ("bbh", "jsonl"),
    **dict.fromkeys(("dev_path", "test_path", "fields"), ("jsonl",)),
    **dict.fromkeys(("bigbench_dir", "tfds_dir"), ("bigbench",)),
    "size": ("generated", "reasoning_gym"),
    "difficulty": ("generated",),
    "level": ("reasoning_gym",),
}


def check_given(config: ml_collections.ConfigDict, given: Collection[str]) -> None:
    """Checks what the user has set besides the values, which `data.load` checks.

    Args:
        config: `config.data`.
        given: names of its fields that were set, to whatever value; "fields.id" and the like too.

    Raises:
        UserError: a field was set that the source, as it is configured, does not read.
    """
    faults = unread(config, given)
    if faults:
        raise UserError(
            "Fields of config.data that are set but not read. Leave them out:\n  "
            + "\n  ".join(faults)
        )


def unread(config: ml_collections.ConfigDict, given: Collection[str]) -> list[str]:
    """A sentence for each of the given fields that nothing will read."""
    source, reasons = config.source, {}
    if source in SOURCES:
        for field, sources in READ_BY.items():
            if source not in sources:
                reasons[field] = f"it is for source {' or '.join(sources)}, not {source!r}"
    if config.protocol == "paper":
        for field in ("dev_fraction", "test_fraction", "shuffle_options"):
            reasons[field] = "protocol 'paper' does as the reference code does"
    if source == "jsonl":
        for side in ("dev", "test"):
            if config[f"{side}_path"]:
                reasons[f"{side}_fraction"] = f"{side}_path gives that side"
            elif config.dev_path + config.test_path and not config.path:
                reasons[f"{side}_fraction"] = "there is no path whose questions it could split"
    file = Path(config.path).expanduser()
    if source == "bbh" and file.is_file() and config.task != file.stem:
        reasons["task"] = f"the file {file} is the task {file.stem!r}, not {config.task!r}"
    names = {name.partition(".")[0] for name in given}
    return [
        f"{field}: {reasons[field]}" for field in READ_BY if field in names and field in reasons
    ]
