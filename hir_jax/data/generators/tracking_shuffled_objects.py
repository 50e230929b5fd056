"""Who holds what after a row of swaps, asked once a person. Difficulty: the number of people."""

import dataclasses
import random

from hir_jax.data.generators import words
from hir_jax.data.generators.draft import Draft, Family


@dataclasses.dataclass(frozen=True)
class _Scenario:
    """The sentences of a story; `{}` stands for the names, or for the two who swap."""

    setting: str
    start: str
    holding: str  # between a person and a thing; the last words of the question too
    things: tuple[str, ...]
    swapping: str
    swap: str
    end: str


_SCENARIOS = (
    _Scenario(
        setting="{} are at a party.",
        start="At the start of the party, each of them has a hat:",
        holding="has the",
        things=tuple(f"{color} hat" for color in words.COLORS),
        swapping="As the party goes on, they trade hats.",
        swap="{} trade hats",
        end="At the end of the party,",
    ),
    _Scenario(
        setting="{} are in a band.",
        start="At the start of the song, each of them plays an instrument:",
        holding="plays the",
        things=words.INSTRUMENTS,
        swapping="As the song goes on, pairs of them switch instruments.",
        swap="{} switch instruments",
        end="At the end of the song,",
    ),
    _Scenario(
        setting="{} work on a farm.",
        start="At the start of the day, each of them feeds an animal:",
        holding="feeds the",
        things=words.ANIMALS,
        swapping="As the day goes on, pairs of them swap animals.",
        swap="{} swap animals",
        end="At the end of the day,",
    ),
)


def _draw(rng: random.Random, difficulty: int) -> list[Draft]:
    scenario = rng.choice(_SCENARIOS)
    people = words.PEOPLE[:difficulty]
    start = rng.sample(scenario.things, difficulty)
    swaps = [rng.sample(range(difficulty), 2) for _ in range(_swap_count(rng, difficulty))]
    held = list(start)
    for i, j in swaps:
        held[i], held[j] = held[j], held[i]
    story = _story(scenario, people, start, swaps)
    # Who stands first in a swap changes nothing.
    pairs = [" and ".join(people[i] for i in sorted(swap)) for swap in swaps]
    premise = f"{', '.join(start)}; {', '.join(pairs)}"
    options = tuple(f"{thing}." for thing in start)
    return [
        Draft(
            question=f"{story} {scenario.end} {person} {scenario.holding}",
            options=options,
            answers=(f"{thing}.",),
            premise=premise,
            asked=person,
        )
        for person, thing in zip(people, held, strict=True)
    ]


def _swap_count(rng: random.Random, people: int) -> int:
    """As many swaps as people. Between two people that would always undo itself, so it varies."""
    return people if people > 2 else rng.choice((2, 3))


def _story(
    scenario: _Scenario, people: tuple[str, ...], start: list[str], swaps: list[list[int]]
) -> str:
    held = [f"{p} {scenario.holding} {thing}" for p, thing in zip(people, start, strict=True)]
    pairs = [scenario.swap.format(f"{people[i]} and {people[j]}") for i, j in swaps]
    when = ["First", *["Then"] * (len(pairs) - 2), "Finally"]
    told = " ".join(f"{w}, {pair}." for w, pair in zip(when, pairs, strict=True))
    setting = scenario.setting.format(words.listing(people))
    return f"{setting} {scenario.start} {words.listing(held)}.\n\n{scenario.swapping} {told}"


FAMILY = Family(_draw, range(2, len(words.PEOPLE) + 1), "the number of people")
