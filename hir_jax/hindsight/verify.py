"""Verifiers by name: is an output a right answer to its example, and could it be read at all?

The kinds are in `hir_jax.hindsight.verifiers`. The rule for all: a verifier may say that it cannot
read an output; it never reads a part of an answer as the answer.
"""

import functools
import importlib
from collections.abc import Callable

import numpy as np

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.verifiers import similarity, symbolic
from hir_jax.hindsight.verifiers.choice import choice
from hir_jax.hindsight.verifiers.final import final, judged_by
from hir_jax.hindsight.verifiers.number import number
from hir_jax.hindsight.verifiers.texts import exact, ordered_list, reference
from hir_jax.hindsight.verifiers.verdict import UNREADABLE, Verdict, Verifier

__all__ = ["BUILT_IN", "UNREADABLE", "Verdict", "Verifier", "auto", "module_of", "resolve"]


def auto(output: str, example: Example) -> Verdict:
    """`choice` where the example has options, else `exact`."""
    return choice(output, example) if example.options else exact(output, example)


BUILT_IN: dict[str, Verifier] = {
    "auto": auto,
    "choice": choice,
    "exact": exact,
    "list": ordered_list,
    "number": number,
    "reference": reference,
    "final": final,
}
_SPELLINGS = f"{', '.join(BUILT_IN)}, math, final:NAME, chrf:THRESHOLD, bleu:THRESHOLD"


def module_of(name: str) -> str:
    """The user's module that a verifier comes from; '' for one of ours."""
    name = name.removeprefix("final:")
    head = name.partition(":")[0]
    return "" if head in (*BUILT_IN, "math", *similarity.METRICS) else head


def resolve(name: str) -> Verifier:
    """The verifier of a name.

    - one of `BUILT_IN`;
    - "math": `symbolic.math`; "chrf:0.6" or "bleu:0.3": `similarity.like` with that threshold;
    - "final:NAME": the verifier NAME on the answer taken out of a longer text, `final.take`;
    - "package.module:function": the user's own. It takes (output, example) and returns a bool,
      which counts as parsed, or a `Verdict`. The verifier returned here raises UserError where it
      gives anything else or fails.

    Raises:
        UserError: no such built-in, module, function or package; a faulty threshold.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    head, colon, rest = name.partition(":")
    if head == "math" and not colon:
        return symbolic.math()
    if head in similarity.METRICS:
        return similarity.like(head, _threshold(name, rest))
    if head == "final":
        return judged_by(resolve(rest))
    return _users(name)


def _threshold(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value <= 1:
        raise UserError(
            f"Verifier {name!r}: expected a threshold above 0 and at most 1, as in "
            f"{name.partition(':')[0]}:0.6; found {text!r}."
        )
    return value


def _users(name: str) -> Verifier:
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute) or module_name.startswith("."):
        raise UserError(
            f"Unknown verifier {name!r}. Expected one of {_SPELLINGS}, or the import path "
            "of a function of your own: 'package.module:function'."
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an import runs the user's code, which may raise anything
        raise UserError(
            f"Verifier {name!r}: importing the module {module_name!r} failed with "
            f"{type(error).__name__}: {error}. It must be importable from where you start the "
            "program: install it, or put its folder on PYTHONPATH."
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        public = sorted(k for k, v in vars(module).items() if callable(v) and k[0] != "_")
        raise UserError(
            f"Verifier {name!r}: the module {module_name!r} has no function {attribute!r}. "
            f"Its functions: {', '.join(public) or 'none'}."
        )
    return functools.partial(_call_users, name, function)


def _call_users(name: str, function: Callable, output: str, example: Example) -> Verdict:
    try:
        result = function(output, example)
    except Exception as error:
        raise UserError(
            f"Verifier {name!r} raised {type(error).__name__}: {error}, for example "
            f"{example.id!r} and the output {output!r}. It must return a verdict for any text."
        ) from error
    if isinstance(result, Verdict):
        return result
    if isinstance(result, bool | np.bool_):
        return Verdict(bool(result), parsed=True)
    raise UserError(
        f"Verifier {name!r} must return a bool or a hir_jax.hindsight.verify.Verdict; it returned "
        f"{result!r} of type {type(result).__name__}, for example {example.id!r}."
    )
