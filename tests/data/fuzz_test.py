"""Data files with anything in them: examples that hold together, or a sentence."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from hir_jax import data
from hir_jax.data import Example
from hir_jax.data.bigbench import bigbench_dataset_builder, reader
from hir_jax.data.example import letter
from hir_jax.data.options import movable, shuffle_options
from hir_jax.hindsight.verify import BUILT_IN
from tests import fuzz
from tests.data.config import data_config

OPTIONS = "Which is it?\nOptions:\n(A) red\n(B) blue"
BBH = {
    "canary": "x",
    "examples": [
        {"input": f"The bird {i} is {'red' if i % 2 else 'blue'}. {OPTIONS}", "target": "(A)"}
        for i in range(6)
    ],
}
BIGBENCH = {
    "name": "t",
    "task_prefix": "Answer. ",
    "example_input_prefix": "\nQ: ",
    "examples": [
        *({"input": f"{i} + 1?", "target": [str(i + 1), "many"]} for i in range(3)),
        *({"input": f"{i} red?", "target_scores": {"yes": 1, "no": 0}} for i in range(3)),
    ],
}
JSONL = [
    *({"question": f"What is {i} + 1?", "answer": i + 1} for i in range(4)),
    *(
        {"question": f"Bird {i}?", "options": ["red", "blue"], "answers": ["A"], "premise": f"p{i}"}
        for i in range(3)
    ),
    {"question": "Last?", "answers": ["a", "b"], "id": "last"},
]


def check(splits):
    """What holds of every data set that is read."""
    for example in itertools.chain(*splits):
        for text in (example.question, *example.options, *example.answers, example.id):
            assert text.encode() is not None  # no half of a surrogate pair
        assert example.answers and example.targets
        assert not example.options or set(example.answers) <= set(example.options)
    for one, other in itertools.combinations(splits, 2):
        assert not {e.premise for e in one} & {e.premise for e in other}
        assert not {e.id for e in one} & {e.id for e in other}


def loaded(path, content, **settings):
    path.write_bytes(content)
    config = data_config(path=str(path), dev_fraction=0.2, test_fraction=0.2, **settings)
    splits = fuzz.outcome(data.load, config)
    assert path.read_bytes() == content
    if splits is not None:
        check(splits)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@fuzz.cases()
@hypothesis.given(content=fuzz.files(BBH))
def test_bbh(folder, content):
    loaded(folder / "bbh.json", content, source="bbh", task="bbh")


@fuzz.cases()
@hypothesis.given(content=fuzz.line_files(JSONL))
def test_jsonl(folder, content):
    loaded(folder / "own.jsonl", content, source="jsonl", task="")


@fuzz.cases()
@hypothesis.given(content=fuzz.files(BIGBENCH))
def test_bigbench(folder, content):
    (folder / "task.json").write_bytes(content)
    records = fuzz.outcome(bigbench_dataset_builder.read_raw, folder / "task.json")
    for record in records or []:
        for text in (record["prefix"], record["input"], *record["options"], *record["targets"]):
            assert text.encode("utf-8") is not None  # as TFDS writes it
        assert np.isfinite(np.array(record["scores"], np.float32)).all()
        for make in (reader._as_published, reader._as_paper):
            assert make("t", record).targets


# Options, answers and letters ---------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="()"), min_size=1, max_size=12)
SPOKEN = st.sampled_from(["none of the above", "both A and B", "A", "the first option", "all"])


@fuzz.cases()
@hypothesis.given(
    options=st.lists(st.one_of(TEXTS, TEXTS, SPOKEN), min_size=1, max_size=8, unique=True),
    seed=st.integers(0, 2**32 - 1),
    picks=st.sets(st.integers(0, 7), min_size=1),
)
def test_options_answers_and_letters_hold_together_under_every_shuffle(options, seed, picks):
    answers = tuple(options[i % len(options)] for i in sorted(picks))
    before = Example("t/1", "Which?", tuple(options), answers, "t", "p")
    after = shuffle_options(before, seed)
    assert sorted(after.options) == sorted(options)
    assert after.answers == before.answers and after.question == before.question
    fixed = movable(before.options)
    assert after.options[fixed:] == before.options[fixed:]
    lettered = {letter(i): option for i, option in enumerate(after.options)}
    assert {lettered[target] for target in after.targets} == set(answers)
    for name, option in lettered.items():
        assert BUILT_IN["choice"](name, after).correct == (option in answers)
    assert shuffle_options(before, seed) == after
