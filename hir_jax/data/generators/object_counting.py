"""Counting the things of one category in a list. Difficulty: the number of kinds listed."""

import random
import re

from hir_jax.data.generators import words
from hir_jax.data.generators.draft import Draft, Family

_CATEGORIES = {
    "fruits": words.FRUITS,
    "animals": words.ANIMALS,
    "vegetables": words.VEGETABLES,
    "musical instruments": words.INSTRUMENTS,
}
_KINDS = min(map(len, _CATEGORIES.values()))


def _draw(rng: random.Random, difficulty: int) -> list[Draft]:
    counted, other = rng.sample(list(_CATEGORIES), 2)
    distractors = rng.randint(max(0, difficulty - _KINDS), difficulty // 3)
    total, phrases = 0, []
    for noun in rng.sample(_CATEGORIES[counted], difficulty - distractors):
        quantity = _quantity(rng)
        total += quantity
        phrases.append(_phrase(noun, quantity))
    for noun in rng.sample(_CATEGORIES[other], distractors):
        phrases.append(_phrase(noun, _quantity(rng)))
    rng.shuffle(phrases)
    question = f"I have {words.listing(phrases)}. How many {counted} do I have?"
    answers = (words.number_word(total), str(total))
    return [Draft(question, (), answers, premise=_read(question) or question, asked=counted)]


def _read(question: str) -> str | None:
    """The things in alphabetical order: whatever order they stand in, and what is counted."""
    listed = re.fullmatch(r"I have (.+)\. How many .+ do I have\?", question.strip())
    return listed and ", ".join(sorted(re.split(r",? and |, ", listed[1])))


def _quantity(rng: random.Random) -> int:
    return 1 if rng.random() < 0.5 else rng.randint(2, 5)


def _phrase(noun: str, quantity: int) -> str:
    if quantity == 1:
        return words.with_article(noun)
    return f"{words.number_word(quantity)} {noun}s"


# Up to a third of the kinds are distractors, so twelve kinds still need only eight of a category.
FAMILY = Family(_draw, range(1, 13), "the number of kinds listed", _read)
