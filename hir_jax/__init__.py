"""Hindsight Instruction Relabeling for T5-family models, in JAX.

What is listed in `__all__` is for use from Python, and described in docs/library.md. It is imported
as it is asked for: `import hir_jax` alone loads nothing, so that JAX can still be configured.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hir_jax.library import (
        Example,
        Outcome,
        Output,
        Pair,
        Policy,
        UserError,
        Verdict,
        config,
        examples,
        load,
        questions,
        relabel,
        sample,
        score,
        train,
        verify,
        write_report,
    )

__version__ = "0.2.0"
__all__ = [
    "Example",
    "Outcome",
    "Output",
    "Pair",
    "Policy",
    "UserError",
    "Verdict",
    "config",
    "examples",
    "load",
    "questions",
    "relabel",
    "sample",
    "score",
    "train",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hir_jax import library

    return getattr(library, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
