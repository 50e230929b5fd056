"""Verifiers by name: how good an answer is an output to its example, and could it be read at all?

The kinds are in `hir_jax.hindsight.verifiers`. The rule for all: a verifier may say that it cannot
read an output; it never reads a part of an answer as the answer.
"""

import functools
import importlib
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight import limit, reward
from hir_jax.hindsight.verifiers import similarity, symbolic
from hir_jax.hindsight.verifiers.choice import choice
from hir_jax.hindsight.verifiers.final import final, judged_by
from hir_jax.hindsight.verifiers.number import number
from hir_jax.hindsight.verifiers.order import order
from hir_jax.hindsight.verifiers.texts import exact, ordered_list, reference
from hir_jax.hindsight.verifiers.verdict import UNREADABLE, Verdict, Verifier

__all__ = ["BUILT_IN", "UNREADABLE", "Verdict", "Verifier", "auto", "check_suits", "faults"]
__all__ += ["is_built_in", "module_of", "names", "of_function", "resolve"]


def auto(output: str, example: Example, seconds: float = 0.0) -> Verdict:
    """The source's own scorer, if it has one; else `choice` where there are options, or `exact`.

    Raises:
        UserError: its source scores answers by another measure, or the scorer is at fault or takes
            longer than so many seconds (0 is no limit).
    """
    if score := example.score:
        return _call_users("auto", lambda text, _: score(text), seconds, output, example)
    if example.metric:
        raise UserError(
            f"{example.task} is scored by {example.metric}, and verifier 'auto' would ask for the "
            "very words of an answer. Set config.verifier: exact if that is meant, chrf:0.6 or "
            "bleu:0.3 for likeness, number, or a function of your own."
        )
    return choice(output, example) if example.options else exact(output, example)


BUILT_IN: dict[str, Verifier] = {
    "auto": auto,
    "choice": choice,
    "exact": exact,
    "list": ordered_list,
    "number": number,
    "order": order,
    "reference": reference,
    "final": final,
}
_SPELLINGS = f"{', '.join(BUILT_IN)}, math, final:NAME, chrf:THRESHOLD, bleu:THRESHOLD"


def names(verifier: str) -> list[str]:
    """The names in `config.verifier`: one, or several with commas between."""
    return [name.strip() for name in verifier.split(",") if name.strip()] or [verifier]


def module_of(name: str) -> str:
    """The user's module that a verifier, by one name, comes from; '' for one of ours."""
    head, _, rest = name.partition(":")
    if head == "final":
        return module_of(rest) if rest else ""
    return "" if head in (*BUILT_IN, "math", *similarity.METRICS) else head


def is_built_in(verifier: Verifier) -> bool:
    """Whether all of it is ours, and so looks at an example's options, answers and score alone."""
    if isinstance(verifier, reward.Judge):
        return not any(map(module_of, verifier.verifiers))
    return verifier in BUILT_IN.values()


def check_suits(name: str, examples: Iterable[Example]) -> None:
    """Raises UserError if one of ours, by `config.verifier`, does not suit one of the examples.

    The user's own are not asked: they may be slow.
    """
    ours = [_named(one) for one in names(name) if not module_of(one)]
    for example in examples:
        for verifier in ours:
            verifier("", example)


def resolve(
    name: str, threshold: float = 0.5, weights: Sequence[float] = (), seconds: float = 0.0
) -> Verifier:
    """The verifier of a name, or of several with commas between, as in "exact,my_checks:short".

    - one of `BUILT_IN`;
    - "math": `symbolic.math`; "chrf:0.6" or "bleu:0.3": `similarity.like` with that threshold;
    - "final:NAME": the verifier NAME on the answer taken out of a longer text, `final.take`;
    - "package.module:function": the user's own. It takes (output, example) and returns a bool, a
      reward from 0 to 1, either of which counts as parsed, or a `Verdict`. The verifier returned
      here raises UserError where it gives anything else, fails, or takes too long.

    Several judge together: the reward is the weighted mean of theirs, exactly 1.0 where all give
    1.0, `parsed` and `read` are the first one's, facts come from all, and `Verdict.parts` has each
    one's reward. Every verdict's `correct` is decided here: the reward is at least the threshold.

    Args:
        name: `config.verifier`.
        threshold: `config.reward.threshold`, above 0 and at most 1.
        weights: `config.reward.weights`, one for each name; () weighs all the same.
        seconds: `config.reward.seconds`, that a function of the user's may take; 0 is no limit.

    Raises:
        UserError: no such built-in, module, function or package; a name given twice; a faulty
            threshold or faulty weights.
    """
    found = faults(name, threshold, weights)
    if found:
        raise UserError(f"Faulty reward: {'; '.join(found)}.")
    verifiers = {one: _named(one, seconds) for one in names(name)}
    first, *others = verifiers
    if first in BUILT_IN and first != "auto" and not others:
        return BUILT_IN[first]  # says right or wrong, at any threshold
    return reward.Judge(verifiers, tuple(weights) or (1,) * len(verifiers), threshold)


def of_function(
    function: Callable[[str, Example], Any], threshold: float = 0.5, weights: Sequence[float] = ()
) -> Verifier:
    """The verifier that a function of the user's is, as `resolve` makes one of its import path.

    Raises:
        UserError: a faulty threshold or faulty weights.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    if found := faults(name, threshold, weights):
        raise UserError(f"Faulty reward: {'; '.join(found)}.")
    called = functools.partial(_call_users, name, function, 0.0)
    return reward.Judge({name: called}, (1,), threshold)


def faults(name: str, threshold: float, weights: Sequence[float]) -> list[str]:
    """What is wrong with the names and values that `resolve` takes, by the fields of the config."""
    given, found = names(name), []
    if len(set(given)) < len(given):
        found.append(f"verifier: expected each name once; found {name!r}")
    if not (isinstance(threshold, numbers.Real) and 0 < threshold <= 1):
        found.append(f"reward.threshold: expected above 0 and at most 1; found {threshold!r}")
    positive = all(type(w) in (int, float) and 0 < w < math.inf for w in weights)
    if weights and not (positive and len(weights) == len(given)):
        found.append(
            f"reward.weights: expected (), or for each of {', '.join(given)} a number above 0; "
            f"found {tuple(weights)!r}"
        )
    return found


def _named(name: str, seconds: float = 0.0) -> Verifier:
    if name == "auto":
        return functools.partial(auto, seconds=seconds)
    if name in BUILT_IN:
        return BUILT_IN[name]
    head, colon, rest = name.partition(":")
    if head == "math" and not colon:
        return symbolic.math()
    if head in similarity.METRICS:
        return similarity.like(head, _threshold(name, rest))
    if head == "final":
        return judged_by(_named(rest, seconds))
    return _users(name, seconds)


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


def _users(name: str, seconds: float) -> Verifier:
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute) or module_name.startswith("."):
        raise UserError(
            f"Unknown verifier {name!r}. Expected one of {_SPELLINGS}, or the import path "
            "of a function of your own: 'package.module:function'."
        )
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's code runs, and may end in any way
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
    return functools.partial(_call_users, name, function, seconds)


def _call_users(
    name: str, function: Callable, seconds: float, output: str, example: Example
) -> Verdict:
    try:
        result = limit.call(seconds, function, output, example)
    except limit.TooLong:
        raise UserError(
            f"Verifier {name!r} has given no verdict within config.reward.seconds={seconds:g}, for "
            f"example {example.id!r} and the output {output!r}. Mend it, or give it more time."
        ) from None
    except (Exception, SystemExit) as error:  # sys.exit() would end the run without a word
        raise UserError(
            f"Verifier {name!r} raised {type(error).__name__}: {error}, for example "
            f"{example.id!r} and the output {output!r}. It must return a verdict for any text."
        ) from error
    try:
        return reward.checked(result)
    except ValueError as error:
        raise UserError(
            f"Verifier {name!r} must return {error}, for example {example.id!r} and the output "
            f"{output!r}."
        ) from None
