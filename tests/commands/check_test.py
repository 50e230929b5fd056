"""A data set with each kind of fault, and what is said of it."""

import json
import random
import shutil
import time

import pytest

from hir_jax import data
from hir_jax.commands.check import check
from hir_jax.data import Example
from hir_jax.errors import UserError
from tests import tiny


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def look(tmp_path, *records, model=None, **changes):
    """The page, and of each finding where it is."""
    settings = {
        "data.source": "jsonl",
        "data.task": "",
        "data.path": write(tmp_path / "mine.jsonl", records),
        "data.max_train": 0,
        "data.max_test": 0,
        "data.test_fraction": 0.0,
        "data.dev_fraction": 0.0,
        "model.path": str(model or tiny.folder()),
    }
    output = tmp_path / "found.json"
    output.unlink(missing_ok=True)
    page = check(tiny.config(**settings | changes), str(output))
    record = json.loads(output.read_text())
    found = {finding["name"]: finding for finding in record["findings"]}
    for finding in found.values():
        assert finding["count"] == len(finding["where"])
        assert all(place["id"] for group in finding["where"] for place in group)
        finding["where"] = [[place["where"] for place in group] for group in finding["where"]]
        section = "A run refuses:" if finding["refused"] else "Look at:"
        assert finding["says"] in page[page.index(section) :]
    return page, record, found


def ask(text, answer="True", **more):
    return {"question": text, "answer": answer, **more}


def words(seed, count=6):
    """A question that is like no other."""
    return " ".join(random.Random(seed).choices(tiny.VOCABULARY[30:], k=count))


MANY = [ask(words(i)) for i in range(20)]


def lines(*groups):
    return [[f"mine.jsonl:{n}" for n in group] for group in groups]


def test_sound_data_has_its_figures_and_nothing_more(tmp_path):
    answers = ["True"] * 15 + ["False"] * 5
    records = [ask(words(i), answer) for i, answer in enumerate(answers)]
    page, record, found = look(tmp_path, *records, **{"data.test_fraction": 0.2})
    assert found == {}
    sides = {name: (side["questions"], side["stories"]) for name, side in record["splits"].items()}
    assert sides == {"train": (16, 16), "test": (4, 4), "all": (20, 20)}
    # "correct answer Q : ... A :" and EOS.
    assert record["splits"]["all"]["prompt_tokens"] == [13, 13, 13]
    assert record["splits"]["all"]["answer_tokens"] == [2, 2, 2]
    assert record["answers"] == {"True": 0.75, "False": 0.25}
    assert record["constant"] == {"text": "True", "accuracy": 0.75}
    assert page.endswith("Nothing else was found.")
    assert "13 / 13 / 13        2 / 2 / 2" in page


def test_option_position_and_options_that_stay(tmp_path):
    options = [[f"w{(3 * i + j) % 36}" for j in range(3)] for i in range(30)]
    biased = [ask(words(i), own[0], options=own) for i, own in enumerate(options)]
    page, record, found = look(tmp_path, *biased)
    assert found["option_position"]["count"] == 30
    assert "of 30 right options that stand at (A) in the file" in page
    assert "chance would put 10; they are shuffled" in page
    assert record["in_the_file"]["constant"] == {"text": "(A)", "accuracy": 1.0}
    assert record["constant"]["accuracy"] < 0.7
    page, record, _ = look(tmp_path, *biased, **{"data.shuffle_options": False})
    assert "chance would put 10; they are not shuffled" in page
    assert record["constant"]["accuracy"] == 1.0
    even = [ask(words(i), options[i][i % 3], options=options[i]) for i in range(29)]
    last = ask(words(99), "w1", options=["w1", "w2", "none of the above"])
    twice = ask(words(98), "w1", options=["w2", "w1", "w1 ."])
    found = look(tmp_path, *even, last, twice, ask(words(97)))[2]
    # The tokenizer here knows no letter but "A", which the findings say as well.
    assert {name: finding["where"] for name, finding in found.items() if "option" in name} == {
        "options_that_stay": lines([30]),
        "option_twice": lines([31]),
        "without_options": lines([32]),
    }


def test_repeats_and_repeats_that_contradict(tmp_path):
    both = {"question": words(5), "answers": ["False", "True"]}
    found = look(tmp_path, *MANY, ask(words(3) + " ."), ask(words(4), "False"), both)[2]
    assert {name: finding["where"] for name, finding in found.items()} == {
        "contradiction": lines([5, 22]),
        "duplicate": lines([4, 21], [6, 23]),
        "story": lines([4, 21], [5, 22], [6, 23]),
    }


def test_near_duplicates(tmp_path):
    text = words("near", 40)
    found = look(tmp_path, *MANY, ask(text), ask(text + " w1"))[2]
    assert found["near_duplicate"]["where"] == lines([21, 22])
    assert "near_duplicate_on_two_sides" not in found
    same = [ask(text, premise="s"), ask(text + " w1", premise="s")]
    assert set(look(tmp_path, *MANY, *same)[2]) == {"story"}


def test_stories_that_are_known_and_those_that_are_not(tmp_path):
    story = words("story", 30)
    told = [ask(f"{story}. True {words(i)}") for i in (50, 51)]
    found = look(tmp_path, *MANY, *({**one, "premise": "s"} for one in told))[2]
    assert set(found) == {"story"}
    assert found["story"]["where"] == lines([21, 22])
    config = {"data.test_path": write(tmp_path / "test.jsonl", told[1:])}
    found = look(tmp_path, *MANY, told[0], **config)[2]
    assert found["story_on_two_sides"]["where"] == [["mine.jsonl:21", "test.jsonl:1"]]
    assert not found["story_on_two_sides"]["refused"]


def test_what_a_run_refuses_is_told_with_all_else(tmp_path):
    test = [ask(words(3), premise="other"), ask("日 w1"), ask(words(60), premise=words(5))]
    config = {"data.test_path": write(tmp_path / "test.jsonl", test)}
    page, _, found = look(tmp_path, *MANY, ask("月 w1"), **config)
    refused = {name: finding["where"] for name, finding in found.items() if finding["refused"]}
    assert refused == {
        "premise_on_two_sides": [
            ["mine.jsonl:4", "test.jsonl:1"],
            ["mine.jsonl:6", "test.jsonl:3"],
        ],
        "question_on_two_sides": [["mine.jsonl:4", "test.jsonl:1"]],
        "prompt_on_two_sides": [["mine.jsonl:21", "test.jsonl:2"]],
    }
    assert page.index("A run refuses") < page.index("Look at")


def test_lengths(tmp_path):
    records = [*MANY, ask(words(70, 30)), ask(words(71), "True or False or")]
    page, _, found = look(tmp_path, *records, **{"data.max_source_tokens": 20})
    assert found["long_prompt"]["where"] == lines([21])
    assert found["long_prompt"]["refused"]
    assert found["long_answer"]["where"] == lines([22])
    assert "answers longer than config.sample.max_new_tokens=4, EOS included" in page
    dropped = {"data.max_source_tokens": 20, "data.too_long": "drop"}
    page, _, found = look(tmp_path, *records, **dropped)
    assert not found["long_prompt"]["refused"]
    assert "max_source_tokens=20; they are left out" in page
    page, record, _ = look(tmp_path, *[each | {"answer": "True or " * 99} for each in MANY])
    assert max(map(len, page.splitlines())) < 200
    assert list(record["answers"]) == ["True or " * 99]


def test_what_the_tokenizer_cannot_write_or_read(tmp_path):
    records = [*MANY, ask(words(80), "maybe"), {"question": "日 ^ \0", "answers": ["True", "yes"]}]
    page, _, found = look(tmp_path, *records)
    assert found["unwritable_answer"]["where"] == lines([21])
    assert found["unwritable_answer"]["refused"]
    assert "answers that the tokenizer cannot write: 'maybe' comes back as '<unk>'" in page
    assert found["unwritable_spelling"]["where"] == lines([22])
    assert found["unknown_characters"]["where"] == lines([22])
    assert "that the model sees as <unk>: \\x00 ^ 日" in page
    assert not look(tmp_path, *records, **{"data.unwritable": "drop"})[2]["unwritable_answer"][
        "refused"
    ]


def picky(output: str, example: Example) -> bool:
    return output == "True"


def test_true_answers_that_the_verifier_refuses(tmp_path):
    name = "tests.commands.check_test:picky"
    found = look(tmp_path, *MANY, ask(words(90), "False"), verifier=name)[2]
    assert found["answer_not_right"]["where"] == lines([21])


def asleep(output: str, example: Example) -> bool:
    time.sleep(5)
    return True


def test_a_verifier_that_hangs_is_told(tmp_path):
    name = "tests.commands.check_test:asleep"
    with pytest.raises(UserError, match=r"no verdict within config.reward.seconds=0\.05"):
        look(tmp_path, *MANY, verifier=name, **{"reward.seconds": 0.05})


def test_only_the_tokenizer_is_read(tmp_path):
    folder = shutil.copytree(tiny.folder(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    page = look(tmp_path, *MANY, model=folder)[0]
    (folder / "config.json").unlink()
    assert look(tmp_path, *MANY, model=folder)[0] == page
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="expected a tokenizer"):
        look(tmp_path, *MANY, model=folder)


def test_an_output_that_is_there_and_data_that_cannot_be_read(tmp_path):
    (tmp_path / "there.json").touch()
    with pytest.raises(UserError, match="is there already"):
        check(tiny.config(), str(tmp_path / "there.json"))
    with pytest.raises(UserError, match="line 1: missing"):
        look(tmp_path, {"question": "w1"})


def test_generated_questions_are_their_generators_word(tmp_path):
    assert "story_on_two_sides" not in check(tiny.config(), None)
    assert data.load(tiny.config().data).train
