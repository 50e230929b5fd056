"""The adapter of reasoning-gym: on a package of the same interface, and on itself where it is."""

import importlib
import importlib.util
import sys

import pytest

from hir_jax import data
from hir_jax.data import generators, reasoning_gym
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.run.constant import best_constant
from tests.data.config import data_config

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed"
)


FACTORY = '''
import random
import types
from typing import ClassVar

import numpy as np


class Sums:
    """Sums below `most`; half a point for one off. Fixed by the index alone, but for the name."""

    def __init__(self, seed, size, most=1000):
        self.seed, self.most = seed, most

    def __getitem__(self, index):
        rng = random.Random(self.seed + index)
        a, b = rng.randrange(self.most), rng.randrange(self.most)
        return {"question": f"{a} + {b}?", "answer": str(a + b), "metadata": {"sum": a + b}}

    def score_answer(self, answer, entry):
        off = abs(int(answer) - entry["metadata"]["sum"])  # raises where it is no number
        return 1.0 if off == 0 else 0.5 if off == 1 else 0.01


class Words(Sums):
    """As families are that draw from a set, and by Python's own state."""

    def __getitem__(self, index):
        word = "".join({"ab", "cd", "ef", "gh", "ij", "kl"})
        return {"question": f"{word} {random.random()} {index}", "answer": word, "metadata": {}}


class Kept(Sums):
    """As some families keep tuples, numbers for keys and NumPy's scalars beside a question."""

    kept: ClassVar[dict] = {(1, 2): [np.float64(0.5), {np.str_("a")}], 3: None}

    def __getitem__(self, index):
        return super().__getitem__(index) | {"metadata": self.kept}

    def score_answer(self, answer, entry):
        return float(entry["metadata"] == {(1, 2): [0.5, {"a"}], 3: None})


class Odd(Sums):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"metadata": {"odd": object()}}


class Silent(Sums):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"answer": None}


class Partly(Sums):
    def __getitem__(self, index):
        entry = super().__getitem__(index)
        return entry | ({"answer": " "} if index % 2 else {})


class Broken(Sums):
    def __init__(self, seed, size):
        raise AssertionError("most must be positive")


class Late(Sums):
    def __getitem__(self, index):
        raise KeyError("word")


class Dying(Sums):
    def __getitem__(self, index):
        raise SystemExit("out of memory")


class Curriculum:
    """Sums of one digit, of two or of three."""

    def __init__(self):
        self.attributes = {"most": types.SimpleNamespace(levels=[10, 100, 1000])}

    def set_global_level(self, level):
        self.most = self.attributes["most"].levels[level]

    def generate_configuration(self):
        return types.SimpleNamespace(seed=None, size=500, most=self.most)


FAMILIES = (Sums, Words, Kept, Odd, Silent, Partly, Broken, Late, Dying)
DATASETS = {each.__name__.lower(): (each, None) for each in FAMILIES}


def has_curriculum(name):
    return name == "sums"


def create_curriculum(name):
    return Curriculum()
'''
PACKAGE = """
from reasoning_gym import factory


def create_dataset(name, **given):
    return factory.DATASETS[name][0](**given)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the same interface in the place of reasoning-gym; gives its factory."""
    folder = tmp_path / "fake" / "reasoning_gym"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE)
    (folder / "factory.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(folder.parent)
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        monkeypatch.delitem(sys.modules, name)
    yield importlib.import_module("reasoning_gym.factory")
    for name in ("reasoning_gym", "reasoning_gym.factory"):
        del sys.modules[name]


def config(**changes):
    return data_config(**{"source": "reasoning_gym", "task": "sums", "size": 300} | changes)


def test_the_same_config_gives_the_same_questions_and_no_side_shares_any(package):
    splits = data.load(config())
    assert data.load(config()) == splits
    assert sum(map(len, splits)) == 300
    questions = [{e.question for e in side} for side in splits]
    assert sum(map(len, questions)) == len(set.union(*questions)) == 300
    for name, side in zip(data.Splits._fields, splits, strict=True):
        assert {generators.split_of(example) for example in side} == {name}


def test_what_an_entry_keeps_is_there_for_its_scorer(package):
    [example] = reasoning_gym.generate("kept", 1, None, seed=0)
    assert example.score("any") == 1.0


def test_questions_with_an_empty_answer_are_left_out(package):
    examples = reasoning_gym.generate("partly", 20, None, seed=0)
    assert [e.where for e in examples] == [f"partly[{2 * i}]" for i in range(20)]


@pytest.mark.parametrize("seed", range(4))
def test_a_familys_own_randomness_is_fixed(package, monkeypatch, seed):
    monkeypatch.setenv("PYTHONHASHSEED", str(seed))
    [example] = reasoning_gym.generate("words", 1, None, seed=0)
    assert example == reasoning_gym.generate("words", 1, None, seed=0)[0]
    assert example.answers == ("efklcdabijgh",)  # what PYTHONHASHSEED=0 makes of the set


def test_neighbouring_seeds_have_questions_of_their_own(package):
    # Item 1 of reasoning-gym's seed 0 is item 0 of its seed 1.
    one, other = ({e.question for e in data.load(config(seed=s)).train} for s in (0, 1))
    assert len(one & other) < 10


def test_repeated_questions_are_drawn_once_and_too_few_are_told(package):
    splits = data.load(config(level=0, size=60))
    assert len({e.question for side in splits for e in side}) == 60
    with pytest.raises(
        UserError, match=r"sums: expected 101 different .* found only \d+ in 404 draws"
    ):
        data.load(config(level=0, size=101))


def test_a_level_is_of_the_curriculum(package):
    assert max(len(e.question) for e in data.load(config(level=1)).train) == len("99 + 99?")
    with pytest.raises(UserError, match=r"data\.level: expected 0 to 2 for sums, found 3"):
        data.load(config(level=3))
    with pytest.raises(UserError, match="expected None, since silent has no curriculum; found 0"):
        data.load(config(task="silent", level=0))


def test_the_familys_scorer_is_the_verifier(package):
    example = data.load(config()).train[0]
    right = int(example.answers[0])
    auto = verify.resolve("auto", threshold=0.5)
    for text, reward, correct in (
        (f" {right:d}", 1.0, True),
        (str(right + 1), 0.5, True),
        (str(right + 2), 0.01, False),
        ("no number", 0.0, False),
    ):
        verdict = auto(text, example)
        assert (verdict.reward, verdict.correct, verdict.parsed) == (reward, correct, True)
    assert not verify.resolve("auto", threshold=0.6)(str(right + 1), example).correct
    assert not verify.resolve("exact")(str(right + 1), example).correct


def test_a_scorer_out_of_bounds_or_time_is_told(package, monkeypatch):
    example = data.load(config()).train[0]
    monkeypatch.setattr(package.Sums, "score_answer", lambda *_: 1.5)
    with pytest.raises(UserError, match=r"'auto' must return .*; it returned 1\.5"):
        verify.resolve("auto")("1", example)

    def forever(*_):
        while True:
            pass

    monkeypatch.setattr(package.Sums, "score_answer", forever)
    with pytest.raises(UserError, match=r"'auto' has given no verdict within"):
        verify.resolve("auto", seconds=0.05)("1", example)


def test_the_best_constant_answer_is_by_the_scorer(package):
    examples = data.load(config(level=0, size=60)).train
    found = best_constant(examples, verify.resolve("auto", threshold=0.5))
    near = [sum(abs(int(e.answers[0]) - n) <= 1 for e in examples) for n in range(19)]
    assert found.accuracy == max(near) / len(examples)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task": "sum"},
            "Unknown family 'sum' of reasoning-gym. Choose one of: broken, dying, kept, ",
        ),
        ({"task": "silent"}, "silent: expected answers that are texts, found None. Such a family"),
        ({"task": "broken"}, "broken: reasoning-gym has failed with AssertionError: most must be"),
        (
            {"task": "odd"},
            "odd: reasoning-gym has failed with an entry that holds <object object at",
        ),
        ({"task": "late"}, "late: reasoning-gym has failed with KeyError: 'word'. Take another"),
        ({"task": "dying"}, "dying: reasoning-gym has failed with out of memory. Take another"),
        ({"size": 0}, "sums: expected a size of at least 1, found 0"),
        ({"dev_fraction": 0.3}, "Expected data.dev_fraction=0.1 and data.test_fraction=0.2"),
        ({"path": "p"}, "path: it is for source bbh or jsonl, not 'reasoning_gym'"),
    ],
)
def test_faults(package, changes, message):
    with pytest.raises(UserError) as error:
        data.load(config(**changes))
    assert message in str(error.value)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r'pip install "hir_jax\[reasoning_gym\]", or pip install'):
        data.load(config())


@needs_package
@pytest.mark.parametrize("task", ["word_ladder", "list_functions"])
def test_families_that_draw_from_sets_give_the_same_questions(task):
    # Each is drawn in a process of its own.
    one, other = (reasoning_gym.generate(task, 20, None, seed=7) for _ in range(2))
    assert one == other


@needs_package
@pytest.mark.parametrize("level", [None, 0])
@pytest.mark.parametrize(
    "task", ["spell_backward", "chain_sum", "countdown", "letter_counting", "word_sorting"]
)
def test_families_give_their_own_answers_a_point(task, level):
    auto = verify.resolve("auto")
    for example in reasoning_gym.generate(task, 10, level, seed=1):
        assert auto(example.answers[0], example).reward == 1.0
        assert auto("I do not know", example).reward < 0.5
