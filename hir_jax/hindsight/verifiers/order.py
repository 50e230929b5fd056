"""Lists taken apart into facts: in order, nothing left out, nothing added."""

from hir_jax.data.example import Example
from hir_jax.hindsight.verifiers import texts
from hir_jax.hindsight.verifiers.verdict import Verdict


def order(output: str, example: Example) -> Verdict:
    """Right: two items or more of `example.answers[0]`, in its order; whatever stands between.

    So the verdict and the facts may each hold without the others, and where all hold the output is
    the whole answer. Items are separated and compared as by `ordered_list`. Parsed: there are two
    items of the answer, or all where it has one. Of the answer "ant bee cow"::

        output             right   complete   only
        ant bee cow        yes     yes        yes
        cow ant bee        no      yes        yes
        ant cow            yes     no         yes
        ant dog bee cow    yes     yes        no
        cow dog bee        no      no         no

    Facts, as told apart by how often an item is there:
        complete: no item of the answer is missing.
        only: no item is there that the answer does not have.
    """
    answer, given = (texts.items(texts.fold(text)) for text in (example.answers[0], output))
    given = [next((one for one in answer if texts.says(item, [one])), item) for item in given]
    known = [item for item in given if item in answer]
    readable = len(known) >= min(2, len(answer))
    return Verdict(
        correct=readable and _in_order(known, answer),
        parsed=readable,
        read=" ".join(given),
        facts={
            "complete": all(given.count(item) >= answer.count(item) for item in answer),
            "only": all(given.count(item) <= answer.count(item) for item in given),
        },
    )


def _in_order(items: list[str], answer: list[str]) -> bool:
    """Whether each item is where the one before it is in the answer, or behind that place."""
    rest = answer
    for item in items:
        if item not in rest:
            return False
        rest = rest[rest.index(item) :]
    return True
