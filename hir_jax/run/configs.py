"""Configs without flags: a file's, as --config has it, with some of its fields changed."""

import difflib
import importlib.util
import operator
import os
from collections.abc import Collection, Mapping
from typing import Any

import ml_collections
import numpy as np
from ml_collections import config_dict

from hir_jax import shipped
from hir_jax.data import sources
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.run import workdirs

DEFAULTS = "configs/common.py"
_FACTS = "instruction.facts"  # the one field that is a mapping


def make(name: str, changes: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The config of a file, with changes; locked.

    Args:
        name: FILE or FILE:ARGUMENT, as behind --config.
        changes: values by names such as "data.size".

    Raises:
        UserError: there is no such file, it fails or refuses the argument, or changes are at fault.
    """
    file, colon, argument = name.partition(":")
    path = shipped.find(file)
    if not path.endswith(".py") or not os.path.isfile(path):
        found = sorted(f"configs/{each.name}" for each in (shipped.HOME / "configs").glob("*.py"))
        raise UserError(
            f"Expected a config file, a .py, found none at {file!r}. Those that come with hir_jax: "
            f"{', '.join(found)}."
        )
    shipped.let_configs_be_imported()
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ValueError("expected a file with a function get_config, found none in it.")
        config = module.get_config(*[argument] if colon else [])
    except ValueError as e:  # which is how config files refuse an argument
        raise UserError(f"{name}: {e}") from e
    except (Exception, SystemExit) as e:  # it is code, which may raise anything
        raise UserError(f"{name}: the file fails with {type(e).__name__}: {e}") from e
    check_fields(config, name)
    check_named(config, path, argument, changes, "{!r}: {!r}")
    config = changed(config.lock(), changes)
    paths = {"model.path": config.model.path} | {f"data.{k}": config.data[k] for k in sources.PATHS}
    workdirs.check_local(paths)
    return config


def check_fields(config: Any, name: str) -> None:
    """Raises UserError where a config, of the file of this name, lacks fields, or has others.

    It may have sections of its own, as `pretrain` and `experiment` are.
    """
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"{name}: expected get_config to return a ConfigDict, found {type(config).__name__}. "
            "Begin with the config of another file, as with configs.jsonl.get_config()."
        )
    default, ours = _defaults(), workdirs.flatten(config.to_dict())
    known = workdirs.flatten(default.to_dict())
    own = {each for each, value in config.items() if isinstance(value, ml_collections.ConfigDict)}
    own = (*(f"{each}." for each in own.difference(default)), f"{_FACTS}.")
    others = sorted(field for field in ours.keys() - known if not field.startswith(own))
    faults = [f"{field}: there is no such field; {_hint(field, known)}" for field in others]
    lacking = sorted(field for field in known if ours.get(field) is None is not known[field])
    faults += [f"{field}: expected a value, found none" for field in lacking[:10]]
    if faults:
        raise UserError(
            f"{name}: expected the fields of configs/common.py, found others:\n  "
            + "\n  ".join(faults)
        )


def changed(
    config: ml_collections.ConfigDict, changes: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """A copy of a config with other values for some fields, by names such as "data.size".

    Raises:
        UserError: there are no such fields, or they are of another type; all are listed.
    """
    config = config.copy_and_resolve_references()
    defaults = _defaults()
    default = workdirs.flatten(defaults.to_dict())
    known = {*workdirs.flatten(config.to_dict()), _FACTS}
    faults = []
    for name, value in changes.items():
        if name not in known:
            faults.append(f"{name}: there is no such field; {_hint(name, known)}")
            continue
        section, _, field = name.rpartition(".")
        of_section = operator.attrgetter(section) if section else lambda config: config
        fields = of_section(config)
        kind, value = fields.get_type(field), plain(value)
        try:
            if value is None and default.get(name, kind) is not None:
                raise TypeError
            if fields[field] is None and name in default:  # a copy has forgotten its type
                kind = of_section(defaults).get_type(field)
                value = config_dict.FieldReference(value, kind).get()
            fields[field] = value
        except (TypeError, ValueError):
            faults.append(f"{name}: expected {kind.__name__}; found {value!r}")
    if faults:
        raise UserError("Faulty changes of a config:\n  " + "\n  ".join(faults))
    return config


def plain(value: Any) -> Any:
    """A number of NumPy's or a path as Python's own; float32's 0.1 is 0.1, not 0.10000000149."""
    if isinstance(value, np.floating):
        return float(str(value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


def _defaults() -> ml_collections.ConfigDict:
    shipped.let_configs_be_imported()
    from configs import common

    return common.get_config()


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else "configs/common.py lists them all"


def check_named(
    config: ml_collections.ConfigDict,
    file: str,
    workdir: str,
    given: Collection[str],
    spelling: str,
) -> None:
    """Raises UserError where code would run that a workdir's config names and the user does not.

    Args:
        config: of a file.
        file: its path; any but that of a workdir is the user's own.
        workdir: the file's argument.
        given: fields that the user has set.
        spelling: of a field and its value, as the user may give them.
    """
    if not os.path.samefile(file, shipped.find(shipped.OF_A_WORKDIR)):
        return
    code = {
        "verifier": any(":" in n and verify.module_of(n) for n in verify.names(config.verifier)),
        "algorithm": ":" in config.algorithm,
    }
    unnamed = [name for name, own in code.items() if own and name not in given]
    if unnamed:
        raise UserError(
            f"{workdir}/config.json asks for code that is not hir_jax's. A workdir may come from "
            "anyone, so such code runs only where you name it too. If you trust it, add "
            f"{' '.join(spelling.format(name, config[name]) for name in unnamed)}"
        )
