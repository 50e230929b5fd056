"""Questions about a few objects and their colors. Difficulty: the number of objects."""

import random

from hir_jax.data.generators import words
from hir_jax.data.generators.draft import Draft, Family

_PLACES = ("desk", "table", "shelf", "floor")


def _draw(rng: random.Random, difficulty: int) -> list[Draft]:
    kind = rng.choice((_color, _next_to, _neither, _yes_or_no))
    return [kind(rng, rng.sample(words.THINGS, difficulty))]


def _color(rng: random.Random, things: list[str]) -> Draft:
    colors = rng.sample(words.COLORS, len(things))
    asked = rng.randrange(len(things))
    scene = _scene(rng, things, colors)
    return _draft(f"{scene} What color is the {things[asked]}?", words.COLORS, colors[asked])


def _next_to(rng: random.Random, things: list[str]) -> Draft:
    colors = rng.sample(words.COLORS, len(things))
    left = rng.randrange(len(things) - 1)
    side, answer, beside = rng.choice((("left", left, left + 1), ("right", left + 1, left)))
    scene = _scene(rng, things, colors, "some objects in a row: ")
    asked = f"What is the color of the object directly to the {side} of the {things[beside]}?"
    return _draft(f"{scene} {asked}", words.COLORS, colors[answer])


def _neither(rng: random.Random, things: list[str]) -> Draft:
    # The count is drawn first: independent colors would make "all but two" the usual answer.
    answer = rng.randint(0, len(things))
    first, second, *others = rng.sample(words.COLORS, len(words.COLORS))
    colors = rng.choices(others, k=answer)
    colors += rng.choices((first, second), k=len(things) - answer)
    rng.shuffle(colors)
    scene = _scene(rng, things, colors)
    options = [text for n in range(len(things) + 1) for text in (str(n), words.number_word(n))]
    question = f"{scene} How many objects are neither {first} nor {second}?"
    return _draft(question, options, str(answer), words.number_word(answer))


def _yes_or_no(rng: random.Random, things: list[str]) -> Draft:
    # A wrong color is that of another object, so that seeing the color somewhere is not enough.
    colors = rng.sample(words.COLORS, len(things))
    asked, other = rng.sample(range(len(things)), 2)
    answer = rng.choice(("yes", "no"))
    color = colors[asked if answer == "yes" else other]
    scene = _scene(rng, things, colors)
    return _draft(f"{scene} Is the {things[asked]} {color}?", ("yes", "no"), answer)


def _scene(rng: random.Random, things: list[str], colors: list[str], how: str = "") -> str:
    seen = [words.with_article(f"{c} {t}") for c, t in zip(colors, things, strict=True)]
    who = rng.choice(("I", "you"))
    return f"On the {rng.choice(_PLACES)}, {who} see {how}{words.listing(seen)}."


def _draft(question: str, options: list[str] | tuple[str, ...], *answers: str) -> Draft:
    return Draft(question, tuple(options), answers, premise=question)


FAMILY = Family(_draw, range(2, 11), "the number of objects")
