"""The value of a boolean expression. Difficulty: the number of operators (and, or, not)."""

import ast
import dataclasses
import random

from hir_jax.data.generators.draft import Draft, Family

_PRECEDENCE = {"or": 0, "and": 1, "not": 2, "value": 3}


@dataclasses.dataclass(frozen=True)
class _Term:
    text: str
    value: bool
    kind: str


def _draw(rng: random.Random, difficulty: int) -> list[Draft]:
    term = _term(rng, difficulty)
    question = f"{term.text} is"
    return [Draft(question, (), (str(term.value),), premise=_read(question) or question)]


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


def _read(question: str) -> str | None:
    """The syntax tree, so that parentheses which change nothing make no difference.

    >>> _read("( True ) and ( not False and True ) is")
    '(and True (not False) True)'
    """
    try:
        return _written(ast.parse(question.strip().removesuffix("is").strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        return None


def _written(node: ast.expr, inside: str = "") -> str:
    """The tree with parentheses everywhere, but for an operator that stands in the same one."""
    match node:
        case ast.Constant(value=bool(value)):
            return str(value)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"(not {_written(operand)})"
        case ast.BoolOp(op=op, values=values):
            name = type(op).__name__.lower()
            operands = " ".join(_written(value, name) for value in values)
            return operands if name == inside else f"({name} {operands})"
    raise ValueError(f"no boolean expression: {ast.dump(node)}")


FAMILY = Family(_draw, range(1, 13), "the number of operators", _read)
