"""What the library's functions are given: as they take it, or refused in a sentence."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections
import numpy as np

from hir_jax.errors import UserError
from hir_jax.run import configs


def path(given: Any, name: str) -> str:
    """A path as a text, with the user's home for its "~". Raises UserError where it is none."""
    if not isinstance(given, str | os.PathLike):
        raise UserError(f"{name}: expected a path, a text or pathlib.Path; found {given!r:.200}.")
    return os.path.expanduser(os.fspath(given))


def changes(given: Any) -> dict[str, Any]:
    """Values by names of fields; None is no change. Raises UserError where it is something else."""
    given = {} if given is None else given
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise UserError(
            "changes: expected a dict of values by the names of fields, such as "
            f'{{"data.size": 500}}; found {given!r:.200}.'
        )
    return dict(given)


def config(given: Any) -> ml_collections.ConfigDict:
    """A config. Raises UserError where it is another thing, such as the name of its file."""
    if not isinstance(given, ml_collections.ConfigDict):
        raise UserError(f"Expected a config, of `hir_jax.config`, found {given!r:.200}.")
    configs.check_fields(given, "config")
    return given


def function(given: Any, name: str) -> Callable[[int], object]:
    """What is told of progress. Raises UserError where it cannot be called."""
    if not callable(given):
        raise UserError(f"{name}: expected a function of a number, found {given!r:.200}.")
    return given


def as_json(value: Any) -> Any:
    """What NumPy has of numbers and lists as JSON has it, and a dict of another type as a dict.

    Raises TypeError for anything else, as `json.dumps` wants of its `default`.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return configs.plain(value)
    raise TypeError(f"found {value!r:.100} of type {type(value).__name__}")


def listed(given: Any) -> Any:
    """A list of what can be gone through, if but once, as with zip; anything else as it is.

    Texts, bytes and dicts can be, but no one means their letters and keys.
    """
    whole = isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable)
    return given if whole else list(given)
