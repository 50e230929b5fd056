"""Questions about a few objects and their colors. Difficulty: the number of objects."""

import dataclasses
import random
from collections.abc import Sequence

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
    thing = things[asked]
    return scene.draft(f"What color is the {thing}?", thing, words.COLORS, colors[asked])


def _next_to(rng: random.Random, things: list[str]) -> Draft:
    colors = rng.sample(words.COLORS, len(things))
    left = rng.randrange(len(things) - 1)
    side, answer, beside = rng.choice((("left", left, left + 1), ("right", left + 1, left)))
    scene = _scene(rng, things, colors, "some objects in a row: ")
    question = f"What is the color of the object directly to the {side} of the {things[beside]}?"
    row = f"{side} of {things[beside]} in {' '.join(things)}"
    return scene.draft(question, row, words.COLORS, colors[answer])


def _neither(rng: random.Random, things: list[str]) -> Draft:
    # The count is drawn first: independent colors would make "all but two" the usual answer.
    answer = rng.randint(0, len(things))
    first, second, *others = rng.sample(words.COLORS, len(words.COLORS))
    colors = rng.choices(others, k=answer)
    colors += rng.choices((first, second), k=len(things) - answer)
    rng.shuffle(colors)
    scene = _scene(rng, things, colors)
    options = [text for n in range(len(things) + 1) for text in (str(n), words.number_word(n))]
    question = f"How many objects are neither {first} nor {second}?"
    asked = f"neither {' '.join(sorted((first, second)))}"
    return scene.draft(question, asked, options, str(answer), words.number_word(answer))


def _yes_or_no(rng: random.Random, things: list[str]) -> Draft:
    # A wrong color is that of another object, so that seeing the color somewhere is not enough.
    colors = rng.sample(words.COLORS, len(things))
    asked, other = rng.sample(range(len(things)), 2)
    answer = rng.choice(("yes", "no"))
    color = colors[asked if answer == "yes" else other]
    scene = _scene(rng, things, colors)
    question = f"Is the {things[asked]} {color}?"
    return scene.draft(question, f"{color} {things[asked]}", ("yes", "no"), answer)


@dataclasses.dataclass(frozen=True)
class _Scene:
    text: str
    objects: tuple[str, ...]

    def draft(self, question: str, asked: str, options: Sequence[str], *answers: str) -> Draft:
        """A question about it; the objects make the premise, in whatever order and place."""
        premise = ", ".join(sorted(self.objects))
        return Draft(f"{self.text} {question}", tuple(options), answers, premise, asked)


def _scene(rng: random.Random, things: list[str], colors: list[str], how: str = "") -> _Scene:
    objects = tuple(f"{color} {thing}" for color, thing in zip(colors, things, strict=True))
    who = rng.choice(("I", "you"))
    seen = words.listing([words.with_article(each) for each in objects])
    return _Scene(f"On the {rng.choice(_PLACES)}, {who} see {how}{seen}.", objects)


FAMILY = Family(_draw, range(2, 11), "the number of objects")
