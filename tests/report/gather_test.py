"""What a page is made of: the figures of runs, and their samples as columns."""

import json

import pytest

from hir_jax.errors import UserError
from hir_jax.report import gather, samples
from hir_jax.report.runs import names_of, read_lines, read_runs
from hir_jax.run.evaluation import compare, estimate
from tests.report import made
from tests.run.evaluate_test import evaluation

FIRST, SECOND, _ = made.QUESTIONS
OUTPUTS = (
    [(FIRST, "2", True), (FIRST, "3", False), (SECOND, "3", False), (SECOND, "3", False)],
    [(FIRST, "2", True), (FIRST, "2", True), (SECOND, "4", False), (SECOND, "", False)],
)


def gathered(*folders, most=0):
    return gather.gather(read_runs([str(folder) for folder in folders]), most)


def test_a_run_that_has_ended(tmp_path):
    folder = made.run(tmp_path / "run", OUTPUTS, alarm="entropy is below 0")
    page = gathered(folder)
    (run,) = page["runs"]
    assert (run["name"], run["iteration"], run["iterations"], run["finished"]) == (
        "run",
        2,
        2,
        True,
    )
    assert run["config"]["loss.smoothing"] == 0.2
    assert run["instruction"] == "Solve the question with correct answer."
    assert run["alarms"] == [{"kind": "entropy is below 0", "count": 3, "iteration": 1, "step": 15}]
    assert run["timings"][0] == {"phase": "train", "iteration": 1, "seconds": 2.0, "rates": {}}
    curve = run["curves"]["evaluate"]
    assert curve["accuracy"] == [0.5, 0.9, 0.9]
    # As eval.json has them, of ten questions.
    assert curve["accuracy_low"][1] == pytest.approx(
        evaluation(*made.AFTER).bounds()["accuracy_low"], abs=1e-6
    )
    assert run["curves"]["train"]["loss"] == [None, 0.1, 1.0, 0.1]
    assert run["curves"]["train"]["own_term"] == [2.0] * 4
    after = run["outcome"]["after"]
    assert after["asked_correct"][0] == 0.9
    assert after["asked_correct"] == estimate([evaluation(*made.AFTER)])["asked_correct"]
    assert run["outcome"]["change"]["gap"][0] == pytest.approx(0.8)


def test_a_run_that_goes_on_has_no_outcome(tmp_path):
    (run,) = gathered(made.run(tmp_path / "run", OUTPUTS[:1], after=None))["runs"]
    assert (run["iteration"], run["finished"], run["outcome"]) == (1, False, None)
    # Nor has one that was asked for more iterations.
    (longer,) = gathered(made.run(tmp_path / "longer", iterations=5))["runs"]
    assert (longer["finished"], longer["outcome"]["iterations"]) == (False, 2)


def test_runs_are_compared_pair_by_pair_where_their_questions_are_the_same(tmp_path):
    worse = ("1111000000", "1111000000")
    folders = [
        made.run(tmp_path / "a"),
        made.run(tmp_path / "b", after=worse),
        made.run(tmp_path / "c", digest="others"),
        made.run(tmp_path / "running", after=None),
    ]
    found = gathered(*folders)["comparisons"]
    assert [each["runs"] for each in found] == [(0, 1), (0, 2), (1, 2)]
    expected = compare([evaluation(*made.AFTER)], [evaluation(*worse)])
    assert {name: found[0][name] for name in expected} == expected
    assert found[1]["why"] == found[2]["why"] == "other test questions"


def test_a_run_says_where_its_answers_are_not_greedy(tmp_path):
    folders = [made.run(tmp_path / "a"), made.run(tmp_path / "b", **{"evaluate.beams": 4})]
    assert [run["answers"] for run in gathered(*folders)["runs"]] == ["", ", 4 beams"]


def test_runs_that_were_judged_otherwise_are_not_compared(tmp_path):
    folders = [made.run(tmp_path / name) for name in "abc"]
    for folder, verifier in zip(folders, ("exact", "exact", "list"), strict=True):
        (folder / "identity.json").write_text(json.dumps({"verifier": verifier}))
    found = gathered(*folders)["comparisons"]
    assert [each.get("why") for each in found] == [None, "another verifier", "another verifier"]


def test_samples_are_columns_with_each_text_once(tmp_path):
    page = gathered(made.run(tmp_path / "run", OUTPUTS))
    drawn = page["runs"][0]["samples"]
    columns = drawn["columns"]
    assert (drawn["iterations"], drawn["kept"]) == ([1, 2], [0, 1])
    rows = [
        (page["questions"]["text"][q], drawn["iterations"][i], page["texts"][t], right)
        for q, i, t, right in zip(
            *(columns[name] for name in ("question", "iteration", "text", "right")), strict=True
        )
    ]
    expected = [
        (question, iteration, text, str(int(right)))
        for iteration in (2, 1)  # the newest first
        for question, text, right in OUTPUTS[iteration - 1]
    ]
    assert rows == expected
    assert len(set(page["texts"])) == len(page["texts"])
    assert columns["parsed"] == "11101111"
    assert columns["facts"] == {"short": [1] * 8}
    assert columns["scores"]["logprob_start"] == [-1.5] * 8
    assert list(columns["scores"]) == ["logprob", "reward", "logprob_start"]
    relabeled = [page["texts"][i] for i in columns["relabeled"][:3]]
    assert [text.split()[-2] for text in relabeled] == ["correct", "correct", "wrong"]
    assert drawn["counts"][1] == {"question": [0, 1], "drawn": [2, 2], "right": [2, 0]}


def test_the_newest_iterations_stay_where_not_all_fit(tmp_path):
    folder = made.run(tmp_path / "run", [*OUTPUTS, OUTPUTS[0]])

    def kept(most):
        drawn = gathered(folder, most=most)["runs"][0]["samples"]
        assert [sum(counts["drawn"]) for counts in drawn["counts"]] == [4, 4, 4]
        return drawn["kept"], len(drawn["columns"].get("question", ()))

    assert kept(12) == ([0, 1, 2], 12)
    assert kept(11) == ([1, 2], 8)
    assert kept(3) == ([2], 3)  # the newest by itself has more


def test_any_other_number_of_a_sample_is_a_score():
    record = {"advantage": 0.123456, "logprob": float("-inf"), "note": "x", "values": [0.5, 0.7]}
    assert samples.scores(record) == {"advantage": 0.1235, "logprob": None, "value": 0.5}
    assert samples.scores({"logprob": -1.0, "opposite": -3.5})["margin"] == 2.5
    shared = samples.Shared()
    columns = samples.Columns(shared)
    record |= {"text": "", "correct": True}
    columns.add(record | {"late": 2}, 0, 0)
    columns.add(record, 0, 0)
    assert columns.to_json()["scores"]["late"] == [2, None]


def test_only_methods_that_relabel_show_the_new_instruction(tmp_path):
    assert samples.relabels("hir")
    assert not samples.relabels("grpo")
    assert samples.relabels("absent_module:Method")


def test_long_curves_are_thinned():
    lines = [{"step": i, "loss": 1.0} for i in range(3 * gather.POINTS)]
    assert gather.curve(lines)["step"][:3] == [0, 3, 6]


def test_repeated_phases_add_their_seconds():
    lines = [
        {"phase": "sample", "iteration": 1, "seconds": s, "tokens_per_second": s}
        for s in (1.0, 2.0)
    ]
    assert gather.timings(lines) == [
        {"phase": "sample", "iteration": 1, "seconds": 3.0, "rates": {"tokens_per_second": 2.0}}
    ]


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    file = tmp_path / "lines"
    file.write_bytes('{"a": "\u2028"}\n{"b"'.encode())
    assert read_lines(file) == [{"a": "\u2028"}]
    file.write_text('{"a": 1}\n{"b"\n')
    with pytest.raises(UserError, match=r"lines, line 2: expected a JSON object as a run"):
        read_lines(file)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected a run's folder, with its config\.json"):
        read_runs([str(tmp_path)])
    folder = made.run(tmp_path / "run")
    with pytest.raises(UserError, match="each run once"):
        read_runs([str(folder), f"{tmp_path}/../{tmp_path.name}/run"])
    (folder / "samples").mkdir()
    (folder / "samples" / "iter_0001.jsonl").write_text(json.dumps({"text": "x"}) + "\n")
    with pytest.raises(
        UserError, match=r"line 1: expected a sample .* example_id, correct, question"
    ):
        gathered(folder)


def test_names_are_what_paths_do_not_have_in_common(tmp_path):
    assert names_of([tmp_path / "a" / "x", tmp_path / "b" / "y"]) == ["x", "y"]
    assert names_of([tmp_path / "a" / "0", tmp_path / "b" / "0"]) == ["a/0", "b/0"]
