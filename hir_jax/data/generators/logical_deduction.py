"""Finding the order of objects from statements, asked once a place. Difficulty: how many objects.

The statements of a story leave exactly one order, and every one of them is needed. This is checked
over all orders: a statement is the set of the orders it allows, held as the bits of an integer.
"""

import dataclasses
import functools
import itertools
import math
import operator
import random

from hir_jax.data.generators import words
from hir_jax.data.generators.draft import Draft, Family

_ORDINALS = ("", "", "second", "third", "fourth")


@dataclasses.dataclass(frozen=True)
class _Scenario:
    """The sentences of a story; places are counted from one end (`low`) to the other (`high`).

    A pair of texts is (towards low, towards high). `first` names the end itself, `nth` a place
    counted from that end; {} stands for the ordinal.
    """

    opening: str
    nouns: tuple[str, ...]
    listed: str  # how a noun stands in the opening: "article" | "plural" | "name"
    verb: str
    relation: tuple[str, str]
    first: tuple[str, str]
    nth: tuple[str, str]


_SCENARIOS = (
    _Scenario(
        opening="On a table, there are {} cups:",
        nouns=tuple(f"{color} cup" for color in words.COLORS),
        listed="article",
        verb="is",
        relation=("to the left of", "to the right of"),
        first=("the leftmost", "the rightmost"),
        nth=("the {} from the left", "the {} from the right"),
    ),
    _Scenario(
        opening="On a farm, there are {} animals:",
        nouns=words.ANIMALS,
        listed="article",
        verb="is",
        relation=("older than", "younger than"),
        first=("the oldest", "the youngest"),
        nth=("the {}-oldest", "the {}-youngest"),
    ),
    _Scenario(
        opening="A shop sells {} fruits:",
        nouns=words.FRUITS,
        listed="plural",
        verb="are",
        relation=("less expensive than", "more expensive than"),
        first=("the cheapest", "the most expensive"),
        nth=("the {}-cheapest", "the {}-most expensive"),
    ),
    _Scenario(
        opening="In a race, there were {} runners:",
        nouns=words.PEOPLE,
        listed="name",
        verb="finished",
        relation=("before", "after"),
        first=("first", "last"),
        nth=("{}", "{}-to-last"),
    ),
)


def _draw(rng: random.Random, difficulty: int) -> list[Draft]:
    scenario = rng.choice(_SCENARIOS)
    nouns = rng.sample(scenario.nouns, difficulty)
    places = rng.sample(range(difficulty), difficulty)  # places[i] is where nouns[i] stands
    subjects = [_subject(scenario, noun) for noun in nouns]
    number = words.number_word(difficulty)
    opening = f"{scenario.opening.format(number)} {words.listing(_listed(scenario, nouns))}."
    clues = _clues(rng, places)
    story = " ".join([opening, *(_tell(rng, scenario, subjects, clue) for clue in clues)])
    # The order of the nouns and clues, and the end that a clue is told from, change nothing.
    known = sorted(f"{nouns[i]} {f'< {nouns[j]}' if lower else j}" for i, j, lower in clues)
    premise = f"{', '.join(sorted(nouns))}; {', '.join(known)}"
    prefix = f"This paragraph describes {number} objects in a fixed order. All of it is true."
    drafts = []
    for index in range(difficulty):
        place = f"{scenario.verb} {_place(scenario, index, difficulty)}."
        drafts.append(
            Draft(
                question=f"{prefix}\n\n{story}",
                options=tuple(f"{subject} {place}" for subject in subjects),
                answers=(f"{subjects[places.index(index)]} {place}",),
                premise=premise,
                asked=str(index),
            )
        )
    return drafts


def _clues(rng: random.Random, places: list[int]) -> list[tuple[int, int, bool]]:
    """True clues that leave `places` alone, none of them superfluous.

    A clue is (i, j, True): object i stands lower than object j; or (i, p, False): object i stands
    at place p.
    """
    allowed_by = _allowed(len(places))
    every_order = (1 << math.factorial(len(places))) - 1
    left, clues = every_order, []
    while left.bit_count() > 1:
        i, j = rng.sample(range(len(places)), 2)
        if rng.random() < 0.7:
            clue = (i, j, True) if places[i] < places[j] else (j, i, True)
        else:
            clue = (i, places[i], False)
        if left & allowed_by[clue] != left:
            left &= allowed_by[clue]
            clues.append(clue)
    for clue in list(clues):
        rest = [allowed_by[other] for other in clues if other != clue]
        if functools.reduce(operator.and_, rest, every_order).bit_count() == 1:
            clues.remove(clue)
    return clues


@functools.cache
def _allowed(objects: int) -> dict[tuple[int, int, bool], int]:
    """Each clue -> the orders it allows; bit k stands for the k-th permutation of the places."""
    allowed = dict.fromkeys(
        (i, j, lower)
        for lower in (True, False)
        for i in range(objects)
        for j in range(objects)
        if not (lower and i == j)
    )
    orders = list(itertools.permutations(range(objects)))
    for i, j, lower in allowed:
        bits = (order[i] < order[j] if lower else order[i] == j for order in orders)
        allowed[i, j, lower] = sum(1 << k for k, bit in enumerate(bits) if bit)
    return allowed


def _tell(
    rng: random.Random, scenario: _Scenario, subjects: list[str], clue: tuple[int, int, bool]
) -> str:
    i, j, lower = clue
    if not lower:
        return f"{subjects[i]} {scenario.verb} {_place(scenario, j, len(subjects))}."
    relation = scenario.relation[0]
    if rng.random() < 0.5:
        i, j, relation = j, i, scenario.relation[1]
    other = subjects[j] if scenario.listed == "name" else subjects[j].lower()
    return f"{subjects[i]} {scenario.verb} {relation} {other}."


def _place(scenario: _Scenario, index: int, objects: int) -> str:
    """A place, counted from the nearer end; the middle from the low one."""
    side = 0 if index <= objects - 1 - index else 1
    nth = min(index, objects - 1 - index) + 1
    return scenario.first[side] if nth == 1 else scenario.nth[side].format(_ORDINALS[nth])


def _listed(scenario: _Scenario, nouns: list[str]) -> list[str]:
    styles = {"article": words.with_article, "plural": "{}s".format, "name": str}
    return [styles[scenario.listed](noun) for noun in nouns]


def _subject(scenario: _Scenario, noun: str) -> str:
    return {"article": f"The {noun}", "plural": f"The {noun}s", "name": noun}[scenario.listed]


FAMILY = Family(_draw, range(3, len(words.PEOPLE) + 1), "the number of objects")
