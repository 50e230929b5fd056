"""Sorting words alphabetically. Difficulty: the number of words."""

import random

from hir_jax.data.generators import words
from hir_jax.data.generators.draft import Draft, Family

# Most of these are words of the other families' sentences: that keeps the vocabulary small.
_MORE = """
after animal band before day desk end farm first floor fruit last left list many more
object old order party play race right row see sell shelf shop some song sort start
swap switch table trade word work young
air baby bird boat bread chair city door egg fire fish hand hill house king lake leaf light
moon night rain river snow stone tree water
"""

_LIST = "List: "

WORDS = tuple(
    sorted(
        {
            *_MORE.split(),
            *words.FRUITS,
            *words.ANIMALS,
            *words.VEGETABLES,
            *words.INSTRUMENTS,
            *words.THINGS,
            *words.COLORS,
        }
    )
)


def _draw(rng: random.Random, difficulty: int) -> list[Draft]:
    chosen = rng.sample(WORDS, difficulty)
    question = f"Sort the following words alphabetically:\n{_LIST}{' '.join(chosen)}"
    answers = (" ".join(sorted(chosen)),)
    return [Draft(question, (), answers, premise=_read(question) or question)]


def _read(question: str) -> str | None:
    """The words, each once, in alphabetical order."""
    _, found, listed = question.partition(_LIST)
    return " ".join(sorted(set(listed.lower().split()))) if found else None


FAMILY = Family(_draw, range(2, 21), "the number of words", _read)
