"""Answers that are one number."""

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.verifiers import numerals
from hir_jax.hindsight.verifiers.verdict import UNREADABLE, Verdict


def number(output: str, example: Example) -> Verdict:
    """Has the value of one of `example.answers`: "1,200", "1.2e3", "twelve hundred", "$1,200".

    Words around the number and unknown units are passed over; of two known units that differ
    ("5 cents", "$5") the output is wrong, though one may say less ("$5", "5 dollars an hour"). 50%
    is 0.5, so to the answer "50" it is wrong: where both are meant, give both as answers. Parsed:
    `numerals.read` finds one number.

    Raises:
        UserError: an answer of the example is not a number.
    """
    golds = [numerals.read(answer) for answer in example.answers]
    if None in golds:
        raise UserError(
            f"Verifier 'number' expects one number in each answer; example {example.id!r} has the "
            f"answers {list(example.answers)}. Use 'exact' or 'auto' for this task."
        )
    found = numerals.read(output)
    if found is None:
        return UNREADABLE
    correct = any(found.value == gold.value and _agree(found.unit, gold.unit) for gold in golds)
    return Verdict(correct, True, found.text, canonical=str(found.value))


def _agree(unit: str, other: str) -> bool:
    """Whether two units are the same as far as both say: "degree" and "degree c", "" and any."""
    return all(a == b for a, b in zip(unit.split(), other.split(), strict=False))
