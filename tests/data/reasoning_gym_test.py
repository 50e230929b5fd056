"""The adapter of reasoning-gym: on a package of the same interface, and on itself where it is."""

import importlib.util
import random
import subprocess
import sys
import types

import pytest

from hir_jax import data
from hir_jax.data import generators, reasoning_gym
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.run.constant import best_constant
from tests.data.config import ROOT, data_config

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed"
)


class Sums:
    """A family of the package's interface: sums below `most`, half a point for one off."""

    def __init__(self, seed, size, most=1000):
        self.seed, self.most = seed, most

    def __getitem__(self, index):
        rng = random.Random(self.seed + index)
        a, b = rng.randrange(self.most), rng.randrange(self.most)
        return {"question": f"{a} + {b}?", "answer": str(a + b), "metadata": {"sum": a + b}}

    def score_answer(self, answer, entry):
        off = abs(int(answer) - entry["metadata"]["sum"])  # raises where it is no number
        return 1.0 if off == 0 else 0.5 if off == 1 else 0.01


class Silent(Sums):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"answer": None}


class Broken(Sums):
    def __init__(self, seed, size):
        raise AssertionError("most must be positive")


class Curriculum:
    """Sums of one digit, of two or of three."""

    def __init__(self):
        self.attributes = {"most": types.SimpleNamespace(levels=[10, 100, 1000])}

    def set_global_level(self, level):
        self.most = self.attributes["most"].levels[level]

    def generate_configuration(self):
        return types.SimpleNamespace(seed=None, size=500, most=self.most)


@pytest.fixture
def package(monkeypatch):
    """A package in the place of reasoning-gym."""
    families = {"sums": (Sums, None), "silent": (Silent, None), "broken": (Broken, None)}
    fake, factory = types.ModuleType("reasoning_gym"), types.ModuleType("reasoning_gym.factory")
    factory.DATASETS = families
    factory.has_curriculum = lambda name: name == "sums"
    factory.create_curriculum = lambda name: Curriculum()
    fake.factory = factory
    fake.create_dataset = lambda name, **given: families[name][0](**given)
    monkeypatch.setitem(sys.modules, "reasoning_gym", fake)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)


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


def test_neighbouring_seeds_have_questions_of_their_own(package):
    # Item 1 of reasoning-gym's seed 0 is item 0 of its seed 1.
    one, other = ({e.question for e in data.load(config(seed=s)).train} for s in (0, 1))
    assert len(one & other) < 10


def test_repeated_questions_are_drawn_once_and_too_few_are_told(package):
    splits = data.load(config(level=0, size=100))
    assert len({e.question for side in splits for e in side}) == 100
    with pytest.raises(UserError, match=r"sums: expected 101 different .* found only 100 "):
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
    monkeypatch.setattr(Sums, "score_answer", lambda *_: 1.5)
    with pytest.raises(UserError, match=r"'auto' must return .*; it returned 1\.5"):
        verify.resolve("auto")("1", example)

    def forever(*_):
        while True:
            pass

    monkeypatch.setattr(Sums, "score_answer", forever)
    with pytest.raises(UserError, match=r"'auto' has given no verdict within"):
        verify.resolve("auto", seconds=0.05)("1", example)


def test_the_best_constant_answer_is_by_the_scorer(package):
    examples = data.load(config(level=0, size=100)).train
    found = best_constant(examples, verify.resolve("auto", threshold=0.5))
    near = [sum(abs(int(e.answers[0]) - n) <= 1 for e in examples) for n in range(19)]
    assert found.accuracy == max(near) / len(examples)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "sum"}, "Unknown family 'sum' of reasoning-gym. Choose one of: broken, silent, "),
        ({"task": "silent"}, "silent: expected an answer that is a text, found None"),
        ({"task": "broken"}, "broken: reasoning-gym has failed with AssertionError: most must be"),
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


DIGEST = """
from hir_jax.data import reasoning_gym
print([(e.id, e.where, e.answers) for e in reasoning_gym.generate("spell_backward", 50, 2, 7)])
"""


@needs_package
def test_another_process_gives_the_same_questions():
    done = [
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
        for seed in ("1", "2")
    ]
    assert done[0] == done[1] and "spell_backward[0]" in done[0]


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
