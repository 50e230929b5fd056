"""Tables and figure of a grid, from hand-made results."""

import dataclasses
import warnings

import numpy as np
import pytest

from hir_jax.commands import comparison, curves
from hir_jax.commands.results import Cell, Result
from hir_jax.run import statistics
from hir_jax.run.choices import Choices
from hir_jax.run.constant import Constant
from hir_jax.run.outcome import Outcome
from tests.run.evaluate_test import evaluation


def result(before, after, samples=100, best=1, **changes):
    """Of strings of digits: right or wrong under p_correct, before as after; none under p_wrong."""
    first, last = evaluation(before, before), evaluation(after, "0" * len(after))
    first, last = (dataclasses.replace(e, **changes) for e in (first, last))
    outcome = Outcome(1, samples, best, best, "dev", first, last if best else first)
    curve = ((0, first.asked_correct.accuracy, 0.0), (samples, last.asked_correct.accuracy, 0.5))
    return Result(outcome, curve, steps=20, seconds=3.4)


START = "1100000000"
RESULTS = {
    Cell("sft", "sorting", 0): result(START, "1111111100", samples=0),
    Cell("hir", "sorting", 0): result(START, "1111110000"),
    Cell("hir", "sorting", 1): result(START, "1111111010"),
}


def test_spread():
    assert comparison.spread([60.0, 80.0]) == "70.0 ± 14.1"  # deviations of 10, over n - 1 = 1
    assert comparison.spread([100.0, 100.0]) == "100.0 ± 0.0"
    assert comparison.spread([5.0]) == "5.0"  # one value says nothing of spread


def cells(results, **options):
    """Of each table, by its title, the only task's cell of each line; and the rest of the text."""
    tables, text = {}, []
    for line in comparison.tables(results, first="hir", **options).splitlines():
        if not line.startswith("|"):
            text.append(line)
        elif line.split("|")[2].strip() == "sorting":
            rows = tables[line.split("|")[1].strip()] = {}
        elif not line.startswith("|-"):
            name, value = (part.strip() for part in line.split("|")[1:3])
            rows[name] = value
    return tables, "\n".join(text)


def test_accuracy_and_gap():
    tables, caption = cells(RESULTS)
    assert tables["accuracy, %"] == {
        "best constant": '60.0% "four"',
        "base": "20.0 [5.7, 51.0]",
        "sft": "80.0 [49.0, 94.3]",
        # The interval is of the mean of both seeds: Wilson's of 7 in 10.
        "hir": "70.0 ± 14.1 [39.7, 89.2]",
    }
    assert tables["gap, points"]["base"] == "0.0 [-23.1, 23.1]"
    assert tables["gap, points"]["hir"].startswith("70.0 ± 14.1 [")
    assert "standard deviation over seeds" in caption
    assert "Test questions (stories): sorting 10 (10)." in caption


def test_differences_are_paired_and_know_of_seeds():
    both = RESULTS | {Cell("sft", "sorting", 1): result(START, "1111111000", samples=0)}
    tables, caption = cells(both)
    # Of ten questions: one lost in one seed of two, one lost in both, one won in one, ...
    first = np.array([[1, 1, 1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0, 1, 0]])
    other = np.array([[1, 1, 1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0, 0, 0]])
    found = statistics.difference((first - other).mean(axis=0), np.arange(10))
    expected = statistics.with_seeds(found, [-0.2, 0.1])
    assert tables["difference, points"] == {"hir - sft": statistics.points(expected)}
    assert expected.value == pytest.approx(-0.05)
    assert expected.high - expected.low > 1.5 * (found.high - found.low)
    assert "paired" in caption


def test_a_difference_is_of_the_seeds_that_both_have():
    sft = RESULTS[Cell("sft", "sorting", 0)], RESULTS[Cell("hir", "sorting", 1)]
    one = {Cell("hir", "sorting", 0): RESULTS[Cell("hir", "sorting", 0)]}
    one |= {Cell("sft", "sorting", 0): sft[0]}
    expected = cells(one)[0]["difference, points"]["hir - sft"]
    assert expected.startswith("-20.0 [")
    # Seed 1 of hir has nothing to stand beside; nor has seed 2 of sft.
    assert cells(RESULTS)[0]["difference, points"] == {"hir - sft": f"{expected}; 1 of 2 seeds"}
    more = RESULTS | {Cell("sft", "sorting", 2): sft[1]}
    assert cells(more)[0]["difference, points"] == {"hir - sft": f"{expected}; 1 of 3 seeds"}
    apart = {Cell("hir", "sorting", 0): sft[0], Cell("sft", "sorting", 1): sft[1]}
    assert cells(apart)[0]["difference, points"] == {"hir - sft": "no common seed"}


def test_variants_that_were_judged_otherwise_are_not_compared():
    judged = {cell: r._replace(verifier="exact") for cell, r in RESULTS.items()}
    assert cells(judged) == cells(RESULTS)
    judged[Cell("sft", "sorting", 0)] = RESULTS[Cell("sft", "sorting", 0)]  # nobody knows by what
    assert cells(judged) == cells(RESULTS)
    judged[Cell("sft", "sorting", 0)] = judged[Cell("hir", "sorting", 0)]._replace(verifier="list")
    assert cells(judged)[0]["difference, points"] == {"hir - sft": "another verifier"}
    # The starting model has a figure of each, not the mean of both.
    list_start = result("1111000000", "1111111100")._replace(verifier="list")
    judged[Cell("sft", "sorting", 0)] = list_start
    tables, _ = cells(judged)
    starts = {
        "20.0 [5.7, 51.0]",
        cells({Cell("x", "sorting", 0): list_start})[0]["accuracy, %"]["base"],
    }
    assert {*tables["accuracy, %"]["base"].split(" or ")} == starts


def test_the_size_counts_stories():
    stories = (0,) * 5 + (1,) * 5
    _, caption = cells({Cell("hir", "sorting", 0): result(START, START, stories=stories)})
    assert "sorting 10 (2)" in caption


def test_runs_that_nothing_improved_are_marked():
    results = {
        Cell("hir", "sorting", 0): result(START, "1111110000"),
        Cell("hir", "sorting", 1): result(START, START, best=0),
        Cell("farl", "sorting", 0): result(START, "1111110000"),
    }
    tables, _ = cells(results)
    assert tables["accuracy, %"]["hir"].endswith("; nothing beat the start: 1 of 2")
    assert "nothing" not in tables["accuracy, %"]["farl"]


def test_variants_on_other_questions_are_not_compared():
    other = result("1110000000", "1111110000", digest="other")
    tables, _ = cells(RESULTS | {Cell("farl", "sorting", 0): other})
    assert tables["difference, points"]["hir - farl"] == "other questions"
    assert tables["accuracy, %"]["base"] == "20.0 [5.7, 51.0] or 30.0 [10.8, 60.3]"
    assert tables["difference, points"]["hir - sft"] != "other questions"


def test_cells_that_are_not_done_are_marked():
    planned = [Cell(v, "sorting", seed) for v in ("sft", "hir", "farl") for seed in (0, 1)]
    tables, _ = cells(RESULTS, planned=planned)
    assert tables["accuracy, %"]["sft"].endswith("; 1 of 2 seeds")
    assert "seeds" not in tables["accuracy, %"]["hir"]
    assert "farl" not in tables["accuracy, %"]  # a line without any cell
    planned = [*planned, Cell("hir", "counting", 0)]
    text = comparison.tables(RESULTS, planned=planned)
    lines = [line for line in text.splitlines() if line.startswith("| hir ")]
    assert lines and all(line.split("|")[3].strip() == "–" for line in lines)


def test_more_tasks_than_variants_are_lines_beside_what_is_published():
    planned = [*RESULTS, Cell("sft", "counting", 0), Cell("hir", "shapes", 0)]
    published = {"sorting": {"base": 10.0, "hir": 75.0, "ppo": 1.0}, "shapes": {"hir": 90.3}}
    published |= {"counting": {}}
    accuracy = cells(RESULTS)[0]["accuracy, %"]
    text = comparison.tables(RESULTS, planned=planned, published=published, note="Of tasks.")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    start = lines.index(["accuracy, %", "best constant", "base", "sft", "hir"]) + 2
    assert lines[start : start + 5] == [
        ["sorting, published", "–", "10.0", "–", "75.0"],
        ["sorting", *accuracy.values()],
        ["counting", *"––––"],
        ["shapes, published", "–", "–", "–", "90.3"],
        ["shapes", *"––––"],
    ]
    assert "Of tasks." in text
    # In the other tables stands what is done.
    start = lines.index(["samples, steps, seconds", "sft", "hir"]) + 2
    assert lines[start] == ["sorting", "0, 20, 3", "100, 20, 3"] and not lines[start + 1]
    assert "difference, points" not in comparison.tables(RESULTS, first="ppo")  # none is there
    assert "difference, points" not in comparison.tables({planned[0]: RESULTS[planned[0]]})


def test_what_is_published_may_be_a_column():
    text = comparison.tables(RESULTS, published={"sorting": {"hir": 75.0}})
    header, _, *lines = text.splitlines()
    assert header.split("|")[2].strip() == "sorting, published"
    assert [line.split("|")[2].strip() for line in lines[:4]] == ["–", "–", "–", "75.0"]


def test_accuracy_by_the_pass_rate_of_the_start():
    passes = {"sorting": [1.0, 0.6, 0.59, 0.2, 0.19, 0.1, 0.0, 0.0, 0.0, 0.0]}
    tables, caption = cells(RESULTS, passes=passes)
    assert tables["base right in below 20%"]["sft"] == "66.7 (n = 6)"  # 111100, as its last six
    assert tables["base right in 20 to 60%"]["base"] == "0.0 (n = 2)"
    assert tables["base right in 60% and above"]["base"] == "100.0 (n = 2)"
    assert tables["base right in below 20%"]["hir"] == "50.0 ± 23.6 (n = 6)"  # 2 and 4 of 6
    assert "starting model's own samples" in caption


def test_pass_rates_are_of_the_first_results_questions_and_of_no_others():
    passes = {"sorting": [1.0, 0.6, 0.59, 0.2, 0.19, 0.1, 0.0, 0.0, 0.0, 0.0]}
    more = RESULTS | {Cell("farl", "sorting", 0): result("11" + START, "1" * 12, digest="other")}
    tables, _ = cells(more, passes=passes)
    expected = cells(RESULTS, passes=passes)[0]
    for name in [name for name in tables if name.startswith("base right")]:
        assert tables[name].pop("farl") == "other questions"
        assert tables[name] == expected[name]


def test_a_bar_in_a_text_ends_no_cell():
    constant = Constant("a|b", 0.5, 1, 1)
    text = comparison.tables({Cell("hir|x", "a task", 0): result(START, START, constant=constant)})
    (line,) = (line for line in text.splitlines() if line.startswith("| best constant"))
    assert line.split(" | ")[1].strip(" |") == '50.0% "a\\|b"'
    assert r"| hir\|x " in text


def test_costs():
    tables, _ = cells(RESULTS)
    assert tables["samples, steps, seconds"] == {"sft": "0, 20, 3", "hir": "100, 20, 3"}


def test_figure_of_odd_names(tmp_path):
    results = {cell._replace(task="$\\bad$", variant="_x"): r for cell, r in RESULTS.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of a legend without names
        curves.figure(results, tmp_path / "accuracy.png")


@pytest.mark.parametrize("tasks", [1, 8])  # 8 are more than stand beside one another
def test_figure(tmp_path, tasks):
    results = {cell._replace(task=f"{n}"): r for n in range(tasks) for cell, r in RESULTS.items()}
    curves.figure(results, tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_the_course_of_runs_is_the_mean_of_their_curves():
    tables, _ = cells(RESULTS)
    # Of hir 60 and 80% at the end of two seeds.
    assert tables["on dev: accuracy (gap)"] == {
        "sft": "20 (+0), 80 (+50)",
        "hir": "20 (+0), 70 (+50)",
    }


def test_ways_of_answering_are_of_variants_that_were_asked_for_them():
    def chosen(majority):
        right = tuple(c == "1" for c in majority)
        found = {"greedy": (True,) * len(right), "majority of 4": right}
        return Choices(found, tuple(range(len(right))))

    asked = {
        Cell("hir", "sorting", 0): result(START, "1" * 10, choices=chosen("1111110000")),
        Cell("hir", "sorting", 1): result(START, "1" * 10, choices=chosen("1111111100")),
    }
    tables, caption = cells(RESULTS | asked)
    assert tables["way of answering, %"] == {
        "hir, greedy": "100.0 ± 0.0 [72.2, 100.0]",
        "hir, majority of 4": "70.0 ± 14.1 [39.7, 89.2]",
    }
    assert "reranked" in caption
    other = result("1100", "1" * 4, choices=chosen("1100"), digest="other")
    tables, _ = cells(RESULTS | asked | {Cell("hir", "sorting", 1): other})
    assert tables["way of answering, %"]["hir, majority of 4"] == "55.0 ± 7.1"
    some = RESULTS | dict([next(iter(asked.items()))])
    assert "way of answering, %" not in cells(some)[0]
