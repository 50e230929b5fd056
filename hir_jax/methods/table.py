"""All methods by name."""

import importlib

from hir_jax.errors import UserError
from hir_jax.methods.farl import Farl
from hir_jax.methods.grpo import Grpo
from hir_jax.methods.hir import Hir
from hir_jax.methods.maxrl import MaxRl
from hir_jax.methods.method import Method
from hir_jax.methods.nft import Nft
from hir_jax.methods.ppo import Ppo
from hir_jax.methods.reinforce import Reinforce
from hir_jax.methods.rloo import Rloo
from hir_jax.methods.sft import Sft
from hir_jax.methods.topr import Topr
from hir_jax.methods.w_reinforce import WReinforce

METHODS: dict[str, type[Method]] = {
    "hir": Hir,
    "sft": Sft,
    "farl": Farl,
    "raft": Farl,
    "reinforce": Reinforce,
    "rloo": Rloo,
    "grpo": Grpo,
    "ppo": Ppo,
    "nft": Nft,
    "topr": Topr,
    "w_reinforce": WReinforce,
    "maxrl": MaxRl,
}

# Fields, or beginnings of their names, that not all methods read.
OPTIONAL = tuple({name for method in METHODS.values() for name in method.reads})


def resolve(name: str) -> type[Method]:
    """The method of a name: one of `METHODS`, or "package.module:Class", a `Method` of the user's.

    Raises:
        UserError: no such method, module or class.
    """
    if name in METHODS:
        return METHODS[name]
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise UserError(
            f"config.algorithm: expected one of {', '.join(METHODS)}, or the import path of a "
            f"method of your own, 'package.module:Class'; found {name!r}."
        )
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except (Exception, SystemExit) as e:  # the user's code runs, and may end in any way
        raise UserError(
            f"config.algorithm: importing {module_name!r} failed with {type(e).__name__}: {e}. It "
            "must be importable from where you start the program: put its folder on PYTHONPATH."
        ) from e
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise UserError(
            f"config.algorithm: expected {name!r} to be a class made from "
            f"hir_jax.methods.method.Method; found {found!r}."
        )
    return found
