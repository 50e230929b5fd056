"""Rewards, from 0 to 1: what a verifier may give, the mean of several, and which are right."""

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.verifiers.verdict import Verdict, Verifier

_EXPECTED = "a bool, a float from 0 to 1 or a hir_jax.hindsight.verify.Verdict"


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """The verifier that is several, or one that grades; it alone says what is right.

    `parsed`, `read` and `canonical` are the first one's, facts are those of all.

    Attributes:
        verifiers: by name.
        weights: of their rewards, above 0; their sum does not matter.
        threshold: right is a reward of at least this.
    """

    verifiers: Mapping[str, Verifier]
    weights: Sequence[float]
    threshold: float

    def __call__(self, output: str, example: Example) -> Verdict:
        """The verdict on an output.

        Raises:
            UserError: two verifiers name the same fact.
        """
        verdicts = {name: verify(output, example) for name, verify in self.verifiers.items()}
        parts = {name: verdict.reward for name, verdict in verdicts.items()}
        reward = mean(list(parts.values()), self.weights)
        return dataclasses.replace(
            next(iter(verdicts.values())),
            correct=reward >= self.threshold,
            reward=reward,
            facts=_all_facts(verdicts, example),
            parts=parts if len(parts) > 1 else {},
        )


def mean(rewards: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted mean, of decimal fractions as they are written: 0.6 of 1 and 0.3 of 1 are 0.9.

    In binary they are less, and would miss a threshold of 0.9.
    """
    if len(rewards) == 1:
        return rewards[0]
    exact = [Decimal(str(weight)) for weight in weights]
    weighted = (w * Decimal(str(r)) for w, r in zip(exact, rewards, strict=True))
    return float(sum(weighted) / sum(exact))


def _all_facts(verdicts: Mapping[str, Verdict], example: Example) -> dict[str, bool]:
    facts, owners = {}, {}
    for name, verdict in verdicts.items():
        for fact, holds in verdict.facts.items():
            if fact in owners:
                raise UserError(
                    f"Verifiers {owners[fact]!r} and {name!r} both name the fact {fact!r}, for "
                    f"example {example.id!r}. Expected each fact of one verifier: rename one."
                )
            facts[fact], owners[fact] = holds, name
    return facts


def checked(result: Any) -> Verdict:
    """What a user's function returned, as a verdict of Python's own types.

    Raises:
        ValueError: it is none of what a verifier may return; the message says "must return" what.
    """
    if _is_bool(result):
        return Verdict(bool(result))
    if _is_reward(result):
        return Verdict(reward=_as_float(result))
    if not isinstance(result, Verdict):
        raise ValueError(f"{_EXPECTED}; it returned {_shown(result)}")
    faults = [
        f"{name} must be a bool, found {_shown(value)}"
        for name, value in (("correct", result.correct), ("parsed", result.parsed))
        if not (_is_bool(value) or (name == "correct" and value is None))
    ]
    if not _is_reward(result.reward):
        faults.append(f"reward must be a float from 0 to 1, found {_shown(result.reward)}")
    if not isinstance(result.facts, Mapping):
        faults.append(f"facts must be a dict of bools by name, found {_shown(result.facts)}")
    else:
        faults += [
            f"the fact {name!r} must be a bool under a name, found {_shown(holds)}"
            for name, holds in result.facts.items()
            if not (isinstance(name, str) and name == _writable(name) != "" and _is_bool(holds))
        ]
    if faults:
        raise ValueError(f"{_EXPECTED}; of the Verdict that it returned {'; '.join(faults)}")
    return dataclasses.replace(
        result,
        correct=None if result.correct is None else bool(result.correct),
        parsed=bool(result.parsed),
        read=_writable(str(result.read)),
        canonical=_writable(str(result.canonical)),
        reward=_as_float(result.reward),
        facts={str(name): bool(holds) for name, holds in result.facts.items()},
    )


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_reward(value: Any) -> bool:
    """A number from 0 to 1, which NaN is not, or a bool."""
    is_number = isinstance(value, int | float | np.integer | np.floating | np.bool_)
    return is_number and bool(0 <= value <= 1)


def _as_float(value: Any) -> float:
    """By its digits: a float32's 0.7 is 0.7, not 0.69999999, which misses a threshold of 0.7."""
    return float(value if _is_bool(value) else str(value))


def _writable(text: str) -> str:
    """With "?" for halves of surrogate pairs, which no file in UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _shown(value: Any) -> str:
    return f"{value!r} of type {type(value).__name__}"
