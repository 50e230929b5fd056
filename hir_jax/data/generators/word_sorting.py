"""Sorting words alphabetically. Difficulty: the number of words."""

import random

from hir_jax.data.generators import words
from hir_jax.data.generators.draft import Draft, Family, free_form

# Most of these are words of the other families' sentences: that keeps the vocabulary small.
_MORE = """
after animal band before day desk end farm first floor fruit last left list many more
object old order party play race right row see sell shelf shop some song sort start
swap switch table trade word work young
air baby bird boat bread chair city door egg fire fish hand hill house king lake leaf light
moon night rain river snow stone tree water
"""

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
    question = f"Sort the following words alphabetically:\nList: {' '.join(chosen)}"
    return free_form(question, " ".join(sorted(chosen)))


FAMILY = Family(_draw, range(2, 21), "the number of words")
