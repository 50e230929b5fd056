"""What a run reads, as digests: a run is what it reads, not where that lies.

They stand in the workdir's identity.json. A run that is resumed, or judged, must read the same; the
folders that it reads from may have moved.
"""

import dataclasses
import hashlib
import inspect
import json
import pathlib
import sys
from collections.abc import Iterable
from typing import Any

import ml_collections

from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.model.config import Params
from hir_jax.run import checksums, workdirs
from hir_jax.run.models import Model
from hir_jax.run.questions import Questions

FILE = "identity.json"

# What a digest is of, for the message.
MEANING = {
    "model": "the model's shape",
    "weights": "the model's weights",
    "tokenizer": "the tokenizer's pieces",
    "train": "the training questions, in their order",
    "dev": "the development questions, in their order",
    "test": "the test questions, in their order",
    "prompts": "the questions' tokens under the instructions",
    "method": "the source of the method",
    "allowed": "the outputs that sample.among and evaluate.among allow",
    "verifier": "the source of the verifier, or what of its reward is right",
}


def of_run(
    model: Model, params: Params | None, questions: Questions, config: ml_collections.ConfigDict
) -> dict[str, str]:
    """The digests of all that decides what a run computes, besides its config.

    Without `params`, the weights, they are left out: what goes on from a checkpoint, and is
    compared with nothing else, reads none.
    """
    weights = {} if params is None else of_weights(params)
    module, colon, _ = config.algorithm.partition(":")
    method = sys.modules.get(module) if colon else None  # one of the user's own
    shape = dataclasses.replace(model.config, remat="")  # which a run is free to change
    return (
        weights
        | {
            "model": _digest(shape),
            "method": _digest(inspect.getsource(method) if method else config.algorithm),
        }
        | _of_allowed(questions)
        | of_questions(questions, config)
    )


def _of_allowed(questions: Questions) -> dict[str, str]:
    """Nothing where any output is, so that runs of before there was this have the same."""
    digests = [allowed.digest for allowed in questions.allowed.values() if allowed]
    return {"allowed": _digest(sorted(digests))} if digests else {}


def of_weights(params: Params) -> dict[str, str]:
    """Of the model's weights."""
    return {"weights": _digest(checksums.of(checksums.flatten(params)))}


def of_questions(questions: Questions, config: ml_collections.ConfigDict) -> dict[str, str]:
    """Of what is asked, and how it is judged."""
    prompts = map(questions.prompts.under, questions.instructions.asked)
    return {
        "tokenizer": _digest(sorted(questions.prompts.codec.tokenizer.get_vocab().items())),
        **{side: _digest(examples) for side, examples in questions.splits._asdict().items()},
        "prompts": _digest([sorted(each.items()) for each in prompts]),
        "verifier": _digest(judging(config)),
    }


def judging(config: ml_collections.ConfigDict) -> Any:
    """All that decides a verdict."""
    names = verify.names(config.verifier)
    graded = config.data.source == "reasoning_gym"
    if len(names) == 1 and not verify.module_of(names[0]) and not graded:
        return names[0]  # says right or wrong, at any threshold
    sources = [(name, _source(name)) for name in names]
    return sources, config.reward.threshold, tuple(config.reward.weights)


def _source(verifier: str) -> str:
    """The user's module that a verifier is in, as text; of those built in, the name."""
    module = sys.modules.get(verify.module_of(verifier))
    return inspect.getsource(module) if module else verifier


def claim(workdir: str, ours: dict[str, str]) -> None:
    """Makes the workdir this identity's, or checks that it is.

    Raises:
        UserError: the run in it, or another process, has read something else; what differs is
            listed.
    """
    folder = pathlib.Path(workdir)
    processes.check_same({MEANING[name]: digest for name, digest in ours.items()})

    def write() -> None:
        if workdirs.is_begun(folder):
            _check(folder, ours, "Give it what it began with, or another --workdir to start anew.")
        else:
            workdirs.write_json(folder / FILE, ours)

    processes.on_first(write)


def read(workdir: pathlib.Path) -> dict[str, str]:
    """What `claim` wrote; empty where there is nothing. Raises UserError where it is damaged."""
    file = workdir / FILE
    return workdirs.read_json(file) if file.is_file() else {}


def judged_alike(verifiers: Iterable[str | None]) -> bool:
    """Whether these digests of verifiers, where they are known, are all the same."""
    return len({*filter(None, verifiers)}) < 2


def check(workdir: pathlib.Path, ours: dict[str, str], mend: str) -> None:
    """Raises UserError where a run has read something else than `ours`, as far as that goes."""
    processes.on_first(lambda: _check(workdir, ours, mend))


def _check(workdir: pathlib.Path, ours: dict[str, str], mend: str) -> None:
    file = workdir / FILE
    try:
        theirs = dict(json.loads(file.read_text(encoding="utf-8")))
        differing = [name for name in ours if theirs[name] != ours[name]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as e:
        raise UserError(
            f"{file}: expected the digests of what the run reads, found none ({e}). Put the file "
            "back, or give another --workdir."
        ) from e
    if differing:
        raise UserError(
            f"The run in {workdir} read something else than what is here now:\n  "
            + "\n  ".join(f"{name}: {MEANING[name]}" for name in differing)
            + f"\n{mend}"
        )


def _digest(content: Any) -> str:
    return hashlib.sha256(repr(content).encode("utf-8", "surrogatepass")).hexdigest()[:32]
