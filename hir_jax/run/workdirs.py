"""The files of a run: config.json, samples/, eval.json; each whole or not there."""

import json
import os
import pathlib
import secrets
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from absl import logging

from hir_jax.data.example import Example
from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.hindsight.relabel import Instructions, achieved
from hir_jax.hindsight.sample import Sample
from hir_jax.model.codec import Codec, Tokens
from hir_jax.training.batch import Batch

# These change nothing of what a run computes.
SILENT = (
    *("evaluate.split", "checkpoint.", "diagnose.", "report.", "train.log_every"),
    *("reward.seconds", "trackers"),
)
# A run may be resumed with these changed. They do not change what it computes up to there: where
# something lies is no matter, since `identity` holds what is read.
FREE = (
    *SILENT,
    "iterations",
    "model.path",
    "model.revision",
    "data.path",
    "data.dev_path",
    "data.test_path",
    "data.bigbench_dir",
    "data.tfds_dir",
    "mesh.",  # what it comes to is told as "machine.mesh"
)
# Nor do these, but sums are rounded otherwise.
ROUNDING = ("machine.", "sample.rows", "train.accumulation", "train.logits_mib", "train.remat")

NONFINITE = "nonfinite_batch.jsonl"  # see `write_batch`

Record = dict[str, Any]


def checkpoint_folder(workdir: str) -> str:
    """The folder of a workdir's checkpoints."""
    return str(pathlib.Path(workdir) / "checkpoints")


def check_local(paths: Mapping[str, str | None]) -> None:
    """Raises UserError where a path, by its flag's name, can be none of a file system here, or is
    a link to nothing."""
    for name, path in paths.items():
        if path and os.path.islink(path) and not os.path.exists(path):
            raise UserError(
                f"{name}: {path!r} is a link to {os.readlink(path)!r}, which is not there. Make it "
                "first, or give another path."
            )
        if path and ("\0" in path or (path[0] == "~" and os.path.expanduser(path) == path)):
            raise UserError(
                f"{name}: expected a path, found {path!r}. There is no such user's home."
            )
        if path and not _is_utf8(whole := os.path.abspath(path)):
            raise UserError(
                f"{name}: expected a path in UTF-8, which libraries take every path for; found "
                f"{whole!r}. Rename it, or set a locale of UTF-8 if it is in that (LC_ALL=C.UTF-8)."
            )
        if path and "://" in str(path):
            raise UserError(
                f"{name}: expected a path of a file system, found {path!r}. Buckets are not "
                "written or read: a run appends to its files and renames them, which buckets "
                "cannot. For data and models copy the bucket first (gcloud storage rsync, aws s3 "
                "sync); for a workdir give a disk that outlives the machine (a persistent disk, "
                "NFS, Filestore, EFS), or copy a local one to the bucket between runs."
            )


def _is_utf8(path: str) -> bool:
    try:
        return os.fsencode(path) == path.encode()
    except UnicodeEncodeError:  # bytes that are no text
        return False


def absolute(workdir: str | os.PathLike[str], name: str) -> str:
    """The whole path of a folder that runs are to live in: a verifier may go to another folder.

    Raises:
        UserError: it, by its flag's name, is empty, or can be none of a file system here.
    """
    if not os.fspath(workdir):
        raise UserError(f"{name}: expected the folder of a run, found ''. Give one, or its name.")
    workdir = os.path.expanduser(os.fspath(workdir))
    check_local({name: workdir})
    return os.path.abspath(workdir)


def claim(
    workdir: str,
    config: ml_collections.ConfigDict,
    machine: Mapping[str, Any] | None = None,
    saved_on: Mapping[str, Any] | None = None,
) -> None:
    """Makes the workdir this config's, or checks that it is; see `record`.

    Sums are rounded by `machine` too: what the run is on, as `saved_on` is what its checkpoint is
    of, if that is known. Where they are rounded otherwise from here on, that is logged.

    Raises:
        UserError: it holds a run of another config; the fields that differ are listed. Or other
            processes have another config.
    """
    folder = pathlib.Path(workdir)
    ours = json.loads(config.to_json_best_effort())
    processes.check_same({"config": zlib.crc32(json.dumps(ours).encode())})

    def write() -> None:
        try:
            _check_same(folder, ours | {"machine": machine}, {"machine": saved_on or machine})
            folder.mkdir(parents=True, exist_ok=True)
            if not is_begun(folder):
                write_json(folder / "config.json", ours)
        except OSError as e:
            raise UserError(
                f"--workdir: cannot write to {e.filename or folder}: {e.strerror}."
            ) from e

    processes.on_first(write)


def record(workdir: str, config: ml_collections.ConfigDict) -> None:
    """Writes the config of a run that goes on, with what it is free to change."""
    ours = json.loads(config.to_json_best_effort())
    processes.on_first(lambda: write_json(pathlib.Path(workdir) / "config.json", ours))


def is_begun(workdir: pathlib.Path) -> bool:
    """Whether a run has saved anything there."""
    return (workdir / "checkpoints").exists()


def section_of(folder: pathlib.Path, name: str) -> dict[str, Any]:
    """A section of the config of a run that has begun; nothing where there is none.

    Raises:
        UserError: it is no config.
    """
    if not is_begun(folder) or not (folder / "config.json").exists():
        return {}
    section = read_json(folder / "config.json").get(name)
    return section if isinstance(section, dict) else {}


def _check_same(folder: pathlib.Path, ours: dict[str, Any], saved: dict[str, Any]) -> None:
    """Raises UserError where the folder is another run's; `saved` is beside its config."""
    file = folder / "config.json"
    if not file.exists():
        if is_begun(folder):
            raise UserError(f"{folder} has checkpoints but no config.json; give another --workdir.")
        return
    theirs = read_json(file)
    if not ours.keys() & theirs.keys():
        raise UserError(
            f"{file}: expected the config of a run, found something else; give another --workdir."
        )
    # A run that failed before its first checkpoint, by a wrong path for example, is begun anew.
    if not is_begun(folder):
        return
    kept = pathlib.Path(checkpoint_folder(str(folder)))
    if any(folder.glob("samples/*")) and not any(kept.iterdir()):
        raise UserError(
            f"{kept}: expected the checkpoints of the run whose samples are there, found an empty "
            "folder. Mount the disk that they are on, or remove the folder to start anew."
        )
    changed = {
        name: f"{name}: {old!r} in the workdir, {new!r} now"
        for name, (old, new) in differences(theirs | saved, ours).items()
    }
    differing = [text for name, text in changed.items() if not name.startswith(FREE + ROUNDING)]
    if differing:
        raise UserError(
            f"The workdir {folder} belongs to a run with another config:\n  "
            + "\n  ".join(differing)
            + "\nGive the same flags to resume it, or another --workdir to start anew."
        )
    rounding = [text for name, text in changed.items() if name.startswith(ROUNDING)]
    if rounding:
        logging.warning("from here on sums are rounded otherwise: %s", "; ".join(rounding))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields, "data.seed" and the like, in which two configs differ, with both values."""
    old, new = flatten(old), flatten(new)
    return {
        name: (old.get(name, "absent"), new.get(name, "absent"))
        for name in sorted(old | new)
        if old.get(name, "absent") != new.get(name, "absent")
    }


def write_json(file: pathlib.Path, content: Any, shared: bool = False) -> None:
    """Writes JSON as `write_bytes` does.

    Raises:
        UserError: a number in it is not finite, for which JSON has no words.
    """
    write_text(file, _json(content, str(file), indent=2) + "\n", shared)


def _json(content: Any, where: str, **how: Any) -> str:
    try:
        return json.dumps(content, allow_nan=False, **how)
    except ValueError as e:
        raise UserError(
            f"{where}: expected finite numbers to write, found others ({e}). Where they are log-"
            "probabilities, the model overflows: give --config.model.dtype=float32."
        ) from e


def write_samples(
    workdir: pathlib.Path,
    iteration: int,
    samples: Iterable[Sample],
    examples: Mapping[str, Example],
    instructions: Instructions,
    advantages: Mapping[tuple[str, Tokens], float],
) -> None:
    """samples/iter_NNNN.jsonl: each output with its question, verdict and new instruction.

    `advantages` has those of outputs by question and tokens, where the method knows any.
    """
    lines = []
    for sample in samples:
        example = examples[sample.example_id]
        relabeled = instructions.text(achieved(sample, instructions.facts))
        record = sample.to_json() | {
            "question": example.question,
            "options": example.options,
            "targets": example.targets,
            "relabeled_instruction": relabeled,
        }
        advantage = advantages.get((sample.example_id, sample.tokens))
        if advantage is not None:
            record["advantage"] = advantage
        lines.append(_json(record, f"a sample of iteration {iteration}", ensure_ascii=False) + "\n")
    folder = workdir / "samples"
    folder.mkdir(exist_ok=True)
    write_text(folder / f"iter_{iteration:04}.jsonl", "".join(lines))


def write_batch(workdir: pathlib.Path, batch: Batch, codec: Codec) -> None:
    """nonfinite_batch.jsonl: the examples of the batch that stopped a run, as text and tokens."""
    lines = []
    for i, mask in enumerate(batch.target_mask_BxT):
        if not mask.any():
            continue  # padding
        names = ("source", "opposite_source")[: batch.sources_BxPxS.shape[1]]
        sources = zip(batch.sources_BxPxS[i], batch.source_masks_BxPxS[i], strict=True)
        parts = dict(zip(names, (tokens[real] for tokens, real in sources), strict=True))
        parts["target"] = batch.targets_BxT[i, mask]
        record = {name: codec.decode(tokens.tolist()) for name, tokens in parts.items()}
        record |= {"correct": bool(batch.correct_B[i]), "weight": float(batch.weight_B[i])}
        record |= {name: values[i].tolist() for name, values in batch.scalars.items()}
        record |= {f"{name}_tokens": tokens.tolist() for name, tokens in parts.items()}
        # What is not finite stands as a text; JSON has no words for it.
        record = json.loads(json.dumps(record), parse_constant=str)
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text(workdir / NONFINITE, "".join(lines))


def write_text(file: pathlib.Path, text: str, shared: bool = False) -> None:
    """Writes text, in UTF-8, as `write_bytes` does."""
    write_bytes(file, text.encode(), shared)


def write_bytes(file: pathlib.Path, content: bytes, shared: bool = False) -> None:
    """Writes a file so that a reader finds the old content or the new, never a part.

    Where it is `shared`, others may write it at the same moment; the last of them has written it.
    """
    own = f".{secrets.token_hex(4)}" if shared else ""
    part = file.with_name(f"{file.name}{own}.part")
    try:
        with part.open("wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        part.replace(file)
    except OSError:  # a full disk, for one, which it would keep full
        part.unlink(missing_ok=True)
        raise


def read_lines(file: pathlib.Path) -> list[Record]:
    """The objects of a file of JSON lines; none where there is no file.

    A last line without an end is being written, and is left out.

    Raises:
        UserError: a line is no JSON object.
    """
    if not file.is_file():
        return []
    records = []
    # Not splitlines: a JSON text may hold other ends of line, such as U+2028, as they are.
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], 1):
        if line:
            records.append(_object(line, f"{file}, line {number}"))
    return records


def read_json(file: pathlib.Path) -> Record:
    """The object of a file of JSON. Raises UserError where there is another thing in it."""
    return _object(file.read_bytes(), str(file))


def _object(text: bytes, where: str) -> Record:
    try:
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError(f"it is a {type(record).__name__}, no object")
        return record
    except (ValueError, RecursionError) as e:
        raise UserError(
            f"{where}: expected a JSON object as a run writes it, found a fault: {e}. Put the file "
            "back as it was, or take it out of the workdir."
        ) from e


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a config by "data.seed" and the like."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
