"""From `config.data` to split examples, whatever the source."""

import itertools
import operator
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_collections
from absl import logging

from hir_jax.data import bbh, fields, generators, jsonl, reasoning_gym
from hir_jax.data.canonical import question_key
from hir_jax.data.example import Example
from hir_jax.data.options import movable, shuffle_options
from hir_jax.data.records import Names
from hir_jax.data.splits import Splits, seeded_order, split_as_paper, split_by_premise
from hir_jax.data.stories import unite
from hir_jax.errors import UserError

PROTOCOLS = ("premise", "paper")
PATHS = ("path", "dev_path", "test_path", "bigbench_dir", "tfds_dir")  # '' where not set

_PREMISE = operator.attrgetter("premise")
_OR_PREMISES = (
    ', or give the questions distinct "premise" fields if they are different all the same'
)


def load(config: ml_collections.ConfigDict) -> Splits:
    """The examples that `config.data` asks for, split, shuffled and cut to `max_*`.

    Each task is split on its own and cut to the first `max_train`, `max_dev`, `max_test` of its
    order (0 = all); then the tasks are joined. With protocol 'paper' (BIG-bench only) the options
    keep their order, `shuffle_options` notwithstanding, and dev is empty.

    Args:
        config: `config.data`, with the fields described in the config files.

    Returns:
        train, dev and test; dev and test are empty where their fraction is 0. With JSONL, train is
        empty too where `path` is and a `dev_path` or `test_path` is given: for scoring alone.

    Raises:
        UserError: a field is out of its range, the source's data is missing or faulty, or two sides
            have a premise or a question in common.
    """
    splits = read(config)
    _check_sides(splits, config.protocol)
    return shuffled(splits, config)


def read(config: ml_collections.ConfigDict) -> Splits:
    """As `load`, but with options in the order of the file, and whatever two sides share."""
    _check(config)
    parts = [
        Splits(
            train=_first(splits.train, config.max_train),
            dev=_first(splits.dev, config.max_dev),
            test=_first(splits.test, config.max_test),
        )
        for splits in _SOURCES[config.source](config)
    ]
    joined = Splits(*(tuple(itertools.chain(*side)) for side in zip(*parts, strict=True)))
    _check_ids(joined)
    return joined


def shuffled(splits: Splits, config: ml_collections.ConfigDict) -> Splits:
    """The splits with the options of each question in the order that they are asked in."""
    if config.shuffle_options and config.protocol != "paper":
        _tell_unmoved(splits)
        splits = Splits(*(tuple(shuffle_options(e, config.seed) for e in side) for side in splits))
    return splits


def _tell_unmoved(splits: Splits) -> None:
    """Logs how many questions have options that speak of others, and so keep their places."""
    asked = [e.options for e in itertools.chain(*splits) if e.options]
    unmoved = [options for options in asked if movable(options) < len(options)]
    if unmoved:
        logging.info(
            "%d of %d questions have options that speak of letters or places, such as %r: these "
            "keep their places",
            len(unmoved),
            len(asked),
            unmoved[0][-1],
        )


def _first(examples: tuple[Example, ...], maximum: int) -> tuple[Example, ...]:
    return examples[: maximum or None]


def _generated(config: ml_collections.ConfigDict) -> list[Splits]:
    _check_fractions(config)
    return [
        _fixed_sides(generators.generate(task, config.size, config.difficulty, config.seed), config)
        for task in _tasks(config)
    ]


def _reasoning_gym(config: ml_collections.ConfigDict) -> list[Splits]:
    _check_fractions(config)
    return [
        _fixed_sides(reasoning_gym.generate(task, config.size, config.level, config.seed), config)
        for task in _tasks(config)
    ]


def _fixed_sides(examples: Sequence[Example], config: ml_collections.ConfigDict) -> Splits:
    ordered = seeded_order(examples, config.seed)
    splits = Splits(
        *(tuple(e for e in ordered if generators.split_of(e) == side) for side in Splits._fields)
    )
    empty = [side for side in Splits._fields if not getattr(splits, side)]
    if empty:
        raise UserError(
            f"Generated task {examples[0].task}: data.size={config.size} leaves "
            f"{' and '.join(empty)} empty. Set a larger --config.data.size."
        )
    return splits


def _check_fractions(config: ml_collections.ConfigDict) -> None:
    fixed = {f"{side}_fraction": generators.SHARES[side] / 100 for side in ("dev", "test")}
    if any(abs(config[name] - share) > 1e-9 for name, share in fixed.items()):
        raise UserError(
            f"Expected {' and '.join(f'data.{name}={share}' for name, share in fixed.items())} for "
            f"generated questions, found {config.dev_fraction} and {config.test_fraction}. Their "
            "sides are fixed, so that no model is tested on what another was trained on. For fewer "
            "questions set --config.data.max_dev and --config.data.max_test."
        )


def _bigbench(config: ml_collections.ConfigDict) -> list[Splits]:
    # Here, not above: it imports TensorFlow Datasets, which the other sources can do without.
    from hir_jax.data.bigbench import reader

    tasks = [
        reader.read(task, config.protocol, config.bigbench_dir, config.tfds_dir)
        for task in _tasks(config)
    ]
    if config.protocol == "paper":
        return [split_as_paper(examples, config.seed) for examples in tasks]
    return [_split(examples, config) for examples in tasks]


def _bbh(config: ml_collections.ConfigDict) -> list[Splits]:
    path = _path(config)
    files = bbh.files(path, _tasks(config)) if path.is_dir() else [path]
    return [_split(bbh.read(file), config) for file in files]


def _jsonl(config: ml_collections.ConfigDict) -> list[Splits]:
    paths = {"train": config.path, "dev": config.dev_path, "test": config.test_path}
    if not (config.dev_path or config.test_path):
        paths["train"] = _path(config)
    names = Names(**config.fields.to_dict())
    parts = {
        side: jsonl.read(
            Path(path).expanduser(), config.task, "" if side == "train" else side, names
        )
        for side, path in paths.items()
        if path
    }
    # All at once, so that what is in two files has one premise, and is seen below.
    united = iter(unite([example for part in parts.values() for example in part]))
    parts = {side: list(itertools.islice(united, len(part))) for side, part in parts.items()}
    splits = Splits((), (), ())
    if "train" in parts:
        splits = split_by_premise(
            parts.pop("train"),
            dev_fraction=0.0 if config.dev_path else config.dev_fraction,
            test_fraction=0.0 if config.test_path else config.test_fraction,
            seed=config.seed,
        )
    ordered = {side: seeded_order(examples, config.seed) for side, examples in parts.items()}
    return [splits._replace(**ordered)]


_SOURCES: dict[str, Callable[[ml_collections.ConfigDict], list[Splits]]] = {
    "generated": _generated,
    "bigbench": _bigbench,
    "bbh": _bbh,
    "jsonl": _jsonl,
    "reasoning_gym": _reasoning_gym,
}


def _split(examples: Sequence[Example], config: ml_collections.ConfigDict) -> Splits:
    return split_by_premise(examples, config.dev_fraction, config.test_fraction, config.seed)


def _tasks(config: ml_collections.ConfigDict) -> list[str]:
    """The names in `config.task`, at least one, each once."""
    tasks = [task.strip() for task in config.task.split(",") if task.strip()]
    repeated = sorted({task for task in tasks if tasks.count(task) > 1})
    if not tasks or repeated:
        raise UserError(
            "Expected data.task to name one task, or several separated by commas, each once; found "
            f"{config.task!r}."
        )
    return tasks


def _path(config: ml_collections.ConfigDict) -> Path:
    if not config.path:
        raise UserError(f"data.source={config.source!r} needs --config.data.path; it is empty.")
    return Path(config.path).expanduser()


def _check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError listing every field that is out of its range."""
    faults = []
    if config.source not in _SOURCES:
        faults.append(f"source: expected one of {', '.join(_SOURCES)}; found {config.source!r}")
    if config.protocol not in PROTOCOLS:
        faults.append(
            f"protocol: expected one of {', '.join(PROTOCOLS)}; found {config.protocol!r}"
        )
    if config.protocol == "paper" and config.source != "bigbench":
        faults.append(
            "protocol: 'paper' is the reference code's way with BIG-bench files; use 'premise' "
            f"with source {config.source!r}"
        )
    if not (
        config.dev_fraction >= 0
        and config.test_fraction >= 0
        and config.dev_fraction + config.test_fraction < 1
    ):
        faults.append(
            "dev_fraction, test_fraction: expected at least 0 each and less than 1 together; found "
            f"{config.dev_fraction} and {config.test_fraction}"
        )
    for field in ("max_train", "max_dev", "max_test"):
        if config[field] < 0:
            faults.append(f"{field}: expected 0 (all) or more; found {config[field]}")
    if not 0 <= config.seed < 2**32:
        faults.append(f"seed: expected 0 to 2**32 - 1; found {config.seed}")
    if config.fields.index and (
        config.fields.answer or config.fields.labels or config.fields.after
    ):
        faults.append("fields.index: stands in place of fields.answer, labels and after; give one")
    # Of the other fields only whoever reads the flags knows whether they were set.
    faults += fields.unread(config, [name for name in PATHS if config[name]])
    if faults:
        raise UserError("Faulty config.data:\n  " + "\n  ".join(faults))


def _check_ids(splits: Splits) -> None:
    ids = [example.id for side in splits for example in side]
    if len(set(ids)) < len(ids):
        repeated = next(i for i in ids if ids.count(i) > 1)
        raise UserError(
            f"Expected questions with ids of their own, found {repeated!r} twice. Give one of them "
            'another "id", or leave the ids out.'
        )


def _check_sides(splits: Splits, protocol: str) -> None:
    """Raises UserError if, but in the paper's protocol, two sides share a premise or question."""
    if protocol == "paper":
        return
    for one, other in itertools.combinations(Splits._fields, 2):
        for what, key_of in (("premises", _PREMISE), ("questions", question_key)):
            shared = {*map(key_of, getattr(splits, one))} & {*map(key_of, getattr(splits, other))}
            if shared:
                raise UserError(
                    f"{len(shared)} {what} are in both {one} and {other}, so the score would not "
                    f"be of unseen questions; one is {min(shared)!r} (case, white space and outer "
                    "punctuation aside). Remove them from one side"
                    + _OR_PREMISES * (what == "premises")
                    + "."
                )
