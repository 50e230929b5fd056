"""Each answer is worked out again here, from the question's text alone."""

import collections
import itertools
import re
from collections.abc import Callable

import pytest

from hir_jax.data.example import Example, format_prompt
from hir_jax.data.generators import FAMILIES, generate, split_of
from hir_jax.errors import UserError

NUMBERS = """
zero one two three four five six seven eight nine ten
eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty
twenty-one twenty-two twenty-three twenty-four twenty-five twenty-six twenty-seven twenty-eight
twenty-nine thirty thirty-one thirty-two thirty-three thirty-four thirty-five thirty-six
thirty-seven thirty-eight thirty-nine forty
"""
NUMBERS = NUMBERS.split()
ORDINALS = {"second": 1, "third": 2, "fourth": 3}
CATEGORIES = {
    "fruits": "apple banana fig grape lemon orange pear plum",
    "animals": "bear cat cow dog duck frog goat owl",
    "vegetables": "bean beet carrot leek onion pea pepper yam",
    "musical instruments": "bell drum flute guitar harp horn piano violin",
}


def items_of(text: str) -> list[str]:
    return re.split(r", and |, | and ", text)


def check_counting(example: Example, difficulty: int):
    listed, asked = re.fullmatch(
        r"I have (.+)\. How many (.+) do I have\?", example.question
    ).groups()
    items = [item.split() for item in items_of(listed)]
    assert len(items) == difficulty
    total = 0
    for quantity, noun in items:
        number = 1 if quantity in ("a", "an") else NUMBERS.index(quantity)
        assert noun.endswith("s") == (number > 1)
        if noun.removesuffix("s") in CATEGORIES[asked].split():
            total += number
    assert example.answers == (NUMBERS[total], str(total))
    assert not example.options


def check_colored(example: Example, difficulty: int):
    scene, asked = example.question.split(". ")
    pairs = [
        item.split()[-2:]
        for item in items_of(scene.split(" see ")[1].removeprefix("some objects in a row: "))
    ]
    assert len(pairs) == difficulty
    colors = [color for color, _ in pairs]
    color_of = {thing: color for color, thing in pairs}
    assert len(color_of) == difficulty
    if found := re.fullmatch(r"What color is the (\w+)\?", asked):
        expected = {color_of[found[1]]}
    elif found := re.fullmatch(r"Is the (\w+) (\w+)\?", asked):
        expected = {"yes" if color_of[found[1]] == found[2] else "no"}
    elif found := re.fullmatch(r"How many objects are neither (\w+) nor (\w+)\?", asked):
        number = sum(color not in found.groups() for color in colors)
        expected = {str(number), NUMBERS[number]}
    else:
        found = re.fullmatch(
            r"What is the color of the object directly to the (left|right) of the (\w+)\?", asked
        )
        assert " in a row: " in scene
        step = {"left": -1, "right": 1}[found[1]]
        place = list(color_of).index(found[2]) + step
        assert place >= 0
        expected = {colors[place]}
    assert set(example.answers) == expected
    assert expected <= set(example.options)


def check_tracking(example: Example, difficulty: int):
    assert example.question.startswith(f"{example.premise} At the end of the ")
    people, start, swaps = re.fullmatch(
        r"(.+?) (?:are|work) .+?: (.+?)\.\n\n.+?(First, .+)", example.premise
    ).groups()
    held = {}
    for item in items_of(start):
        person, _, _, thing = item.split(" ", 3)
        held[person] = f"{thing}."
    assert list(held) == items_of(people)
    assert len(held) == difficulty
    assert example.options == tuple(held.values())
    pairs = re.findall(r"(?:First|Then|Finally), (\w+) and (\w+) ", swaps)
    assert len(pairs) == difficulty or difficulty == 2
    for one, other in pairs:
        held[one], held[other] = held[other], held[one]
    person = re.search(r", (\w+) \w+ the$", example.question)[1]
    assert example.answers == (held[person],)


def check_deduction(example: Example, difficulty: int):
    assert example.question.endswith(f"\n\n{example.premise}")
    opening, *statements = example.premise.rstrip(".").split(". ")
    objects = [
        re.sub(r"^an? ", "", item) for item in items_of(re.split(r"\w+: ", opening, maxsplit=1)[1])
    ]
    assert len(objects) == difficulty
    orders = list(itertools.permutations(range(difficulty)))
    meanings = [meaning(statement, objects) for statement in statements]
    held_by = [set(filter(is_true, orders)) for is_true in meanings]
    (order,) = set(orders).intersection(*held_by)
    for k in range(len(statements)):  # none is superfluous
        assert len(set(orders).intersection(*held_by[:k], *held_by[k + 1 :])) > 1
    right = tuple(o for o in example.options if meaning(o.rstrip("."), objects)(order))
    assert len(example.options) == difficulty
    assert example.answers == right
    assert len(right) == 1


def meaning(statement: str, objects: list[str]) -> Callable[[tuple[int, ...]], bool]:
    """The test a statement puts to an order: objects[i] stands at order[i] from the low end."""
    words = re.sub(r"\b[Tt]he ", "", statement)
    subject = next(o for o in objects if words.startswith(f"{o} "))
    i = objects.index(subject)
    text = re.sub(r"^(is|are|finished) ", "", words.removeprefix(f"{subject} "))
    if found := re.fullmatch(r"(to left of|older than|less expensive than|before) (.+)", text):
        j = objects.index(found[2])
        return lambda order: order[i] < order[j]
    if found := re.fullmatch(r"(to right of|younger than|more expensive than|after) (.+)", text):
        j = objects.index(found[2])
        return lambda order: order[i] > order[j]
    place = sum(step for word, step in ORDINALS.items() if text.startswith(word))
    if re.search(r"right|youngest|most expensive|last", text):
        place = len(objects) - 1 - place
    return lambda order: order[i] == place


def check_sorting(example: Example, difficulty: int):
    listed = example.question.removeprefix("Sort the following words alphabetically:\nList: ")
    assert len(set(listed.split())) == difficulty
    assert example.answers == (" ".join(sorted(listed.split())),)


def check_boolean(example: Example, difficulty: int):
    expression = example.question.removesuffix(" is")
    tokens = expression.split()
    assert set(tokens) <= {"True", "False", "and", "or", "not", "(", ")"}
    assert sum(token in ("and", "or", "not") for token in tokens) == difficulty
    assert example.answers == (str(eval(expression)),)


CHECKS = {
    "boolean_expressions": check_boolean,
    "logical_deduction": check_deduction,
    "object_counting": check_counting,
    "reasoning_about_colored_objects": check_colored,
    "tracking_shuffled_objects": check_tracking,
    "word_sorting": check_sorting,
}
EVERY = [(task, d) for task, family in FAMILIES.items() for d in family.difficulties]


@pytest.mark.parametrize(("task", "difficulty"), EVERY)
def test_answers_are_right(task, difficulty):
    size = 30 if difficulty == 1 else 70  # little is to be had at difficulty 1
    for example in generate(task, size, difficulty, seed=3):
        CHECKS[task](example, difficulty)
        assert example.task == task


def test_counting_has_distractors_from_three_kinds_on():
    def kinds_counted(example: Example) -> int:
        category = next(c for c in CATEGORIES if f"many {c} do" in example.question)
        return sum(f" {noun}" in example.question for noun in CATEGORIES[category].split())

    found = {
        difficulty: {kinds_counted(e) for e in generate("object_counting", 200, difficulty, seed=0)}
        for difficulty in (2, 6, 12)
    }
    assert found == {2: {2}, 6: {4, 5, 6}, 12: {8}}


@pytest.mark.parametrize("task", FAMILIES)
def test_first_examples_of_a_larger_size_are_the_same(task):
    large = generate(task, 200, 4, seed=5)
    assert generate(task, 73, 4, seed=5) == large[:73]
    assert generate(task, 73, 4, seed=6) != large[:73]
    assert [e.id for e in large] == [f"{task}/4/5/{i}" for i in range(200)]


def test_drawn_text_is_pinned():
    """Ids stand for texts: a change here changes what every seed means."""
    assert generate("object_counting", 1, 4, 0)[0].question == (
        "I have five plums, a grape, three bananas, and an orange. How many fruits do I have?"
    )
    assert generate("word_sorting", 1, 4, 0)[0].answers == ("air egg more plum",)
    assert generate("boolean_expressions", 1, 4, 0)[0].question == (
        "( True ) or ( True or not False ) or False is"
    )


@pytest.mark.parametrize(("task", "difficulty"), EVERY)
def test_questions_are_distinct(task, difficulty):
    size = 30 if difficulty == 1 else 500
    examples = generate(task, size, difficulty, seed=0)
    assert len({(e.question, e.options) for e in examples}) == size
    assert len({e.id for e in examples}) == size


def test_exhausted_family_says_how_many_it_found():
    with pytest.raises(UserError, match=r"expected 1,000 different .* found only 160\."):
        generate("object_counting", 1000, 1, seed=0)
    assert len(generate("object_counting", 160, 1, seed=0)) == 160


def test_unknown_task_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'counting'.*object_counting.*word_sorting"):
        generate("counting", 1, 4, 0)


@pytest.mark.parametrize("task", FAMILIES)
def test_difficulty_and_size_out_of_range(task):
    low, high = FAMILIES[task].difficulties[0], FAMILIES[task].difficulties[-1]
    for difficulty in (low - 1, high + 1):
        with pytest.raises(UserError, match=rf"from {low} to {high}, found {difficulty}\b"):
            generate(task, 1, difficulty, 0)
    with pytest.raises(UserError, match=r"a size of at least 1, found 0"):
        generate(task, 0, low, 0)


@pytest.mark.parametrize("task", FAMILIES)
def test_splits_have_their_shares(task):
    stories = {e.premise: e for e in generate(task, 6000, 5, seed=0)}.values()
    counts = collections.Counter(map(split_of, stories))
    tolerance = 4 * (0.25 / len(stories)) ** 0.5  # four standard deviations at most
    for name, share in (("train", 0.7), ("dev", 0.1), ("test", 0.2)):
        assert abs(counts[name] / len(stories) - share) < tolerance
    assert set(counts) == {"train", "dev", "test"}


@pytest.mark.parametrize("task", ["logical_deduction", "tracking_shuffled_objects"])
def test_a_story_is_asked_of_all_and_stays_in_one_split(task):
    splits, asked = collections.defaultdict(set), collections.Counter()
    for example in generate(task, 500, 5, seed=0):
        splits[example.premise].add(split_of(example))
        asked[example.premise] += 1
    assert set(asked.values()) == {5}
    assert all(len(names) == 1 for names in splits.values())


def test_split_depends_on_task_and_premise_alone():
    def example(**changes: str) -> Example:
        fields = {"id": "a", "question": "q", "task": "t", "premise": "p"} | changes
        return Example(options=(), answers=("x",), **fields)

    splits = {p: split_of(example(premise=p)) for p in (f"One story {i}." for i in range(60))}
    assert len(set(splits.values())) == 3
    for premise, split in splits.items():
        messy = f" {premise.upper().replace(' ', '  ')}\n"
        assert split_of(example(premise=messy, id="b", question="r")) == split
    assert any(split_of(example(premise=p, task="u")) != s for p, s in splits.items())


@pytest.mark.parametrize(("task", "difficulty"), [(t, d) for t, d in EVERY if d > 2])
def test_no_answer_is_far_more_frequent_than_the_others(task, difficulty):
    examples = generate(task, 1000, difficulty, seed=1)
    answers = collections.Counter(example.answers[0] for example in examples)
    # Two answers; a quarter of the questions have two answers; many answers.
    limit = {"boolean_expressions": 0.56, "reasoning_about_colored_objects": 0.17}.get(task, 0.2)
    assert answers.most_common(1)[0][1] / len(examples) < limit


@pytest.mark.parametrize(
    ("task", "difficulty"), [(t, d) for t, d in EVERY if generate(t, 1, d, 0)[0].options]
)
def test_no_place_among_the_options_is_far_more_frequent_than_the_others(task, difficulty):
    places = collections.defaultdict(list)
    for example in generate(task, 2000, difficulty, seed=1):
        right = example.options.index(example.answers[0]) // len(example.answers)
        places[len(example.options) // len(example.answers)].append(right)
    for number, found in places.items():
        most = collections.Counter(found).most_common(1)[0][1]
        expected = len(found) / number
        assert most < expected + 4 * expected**0.5


def test_vocabulary_is_small():
    words = set()
    for task, difficulty in EVERY:
        for e in generate(task, 30, difficulty, seed=0):
            text = f"{format_prompt('', e)} {' '.join(e.answers)}".lower()
            words |= {word for word in re.findall("[a-z]+", text) if len(word) > 1}
    assert 150 < len(words) < 260
