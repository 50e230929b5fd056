"""The value of a boolean expression. Difficulty: the number of operators (and, or, not)."""

import dataclasses
import random

from hir_jax.data.generators.draft import Draft, Family, free_form

_PRECEDENCE = {"or": 0, "and": 1, "not": 2, "value": 3}


@dataclasses.dataclass(frozen=True)
class _Term:
    text: str
    value: bool
    kind: str


def _draw(rng: random.Random, difficulty: int) -> list[Draft]:
    term = _term(rng, difficulty)
    return free_form(f"{term.text} is", str(term.value))


def _term(rng: random.Random, operators: int) -> _Term:
    """A random tree. As likely true as false: exchanging True/False and and/or turns it round."""
    if not operators:
        value = rng.random() < 0.5
        return _Term(str(value), value, "value")
    kind = rng.choice(("and", "or", "not"))
    if kind == "not":
        operand = _term(rng, operators - 1)
        return _Term(f"not {_operand(rng, operand, kind)}", not operand.value, kind)
    left_operators = rng.randrange(operators)
    left = _term(rng, left_operators)
    right = _term(rng, operators - 1 - left_operators)
    value = left.value and right.value if kind == "and" else left.value or right.value
    text = f"{_operand(rng, left, kind)} {kind} {_operand(rng, right, kind)}"
    return _Term(text, value, kind)


def _operand(rng: random.Random, term: _Term, parent: str) -> str:
    """In parentheses where they are needed, and now and then where they are not."""
    needed = _PRECEDENCE[term.kind] < _PRECEDENCE[parent]
    return f"( {term.text} )" if needed or rng.random() < 0.15 else term.text


FAMILY = Family(_draw, range(1, 13), "the number of operators")
