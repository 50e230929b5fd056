"""The page in a browser: drawn, filtered, searched, clicked, by keys and by links."""

import re

import pytest

from hir_jax.report import report
from hir_jax.report.runs import read_runs
from tests.report import browser, made
from tests.run.evaluate_test import evaluation

pytestmark = pytest.mark.skipif(not browser.PROGRAM, reason="needs Chromium")

OTHER = "Is <b>this</b> a question?"
OUTPUTS = (
    [("1 + 1?", "2", True), ("1 + 1?", "three", False), (OTHER, "no", False), (OTHER, "no", False),
     (made.HOSTILE, made.HOSTILE, False), (made.HOSTILE, "2", True)],
    [("1 + 1?", "2", True), ("1 + 1?", "2", True), (OTHER, "2", True), (OTHER, "", False),
     (made.HOSTILE, made.HOSTILE, False), (made.HOSTILE, "3", False)],
)  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Addresses: of one run, and of it beside two others, of which the second goes on."""
    root = tmp_path_factory.mktemp("runs")
    first = made.run(root / "first", OUTPUTS, alarm="ratios are off")
    made.run(root / "second", OUTPUTS, after=("1111000000", "1111000000"), algorithm="grpo")
    made.run(root / "third", after=None)
    found = {"one": [first], "three": [root / name for name in ("first", "second", "third")]}
    for name, folders in found.items():
        report.write(read_runs(list(map(str, folders))), root / f"{name}.html", 0)
    addresses = {name: (root / f"{name}.html").as_uri() for name in found}
    return addresses | {"file": root / "one.html"}


@pytest.fixture(scope="module")
def browsing():
    with browser.tab() as opened:
        yield opened


@pytest.fixture
def tab(browsing):
    browsing.complaints.clear()
    yield browsing
    assert browsing.complaints == []


def shown(tab):
    return tab.run(
        "[...document.querySelectorAll('.entry .snippet')].map((each) => each.innerText)"
    )


def test_the_overview_has_figures_intervals_alarms_and_curves(tab, pages):
    tab.open(pages["one"])
    low, high = (
        100 * evaluation(*made.AFTER).bounds()[f"accuracy_{end}"] for end in ("low", "high")
    )
    assert tab.text("tbody td.estimate").startswith(f"90.0% [{low:.1f}, {high:.1f}]")
    assert "first in iteration 1, at step 15; 3 times" in tab.text(".alarms")
    assert tab.count("canvas") == 2
    assert tab.text(".readout b") == "90.0%"
    tab.press("2")
    assert "own term" in tab.text("main")  # a loss term that no list has
    assert tab.count(".chart") == tab.count("canvas") == 7
    assert tab.count(".segments i") == 2


def test_runs_are_compared_with_the_one_that_is_chosen(tab, pages):
    tab.open(pages["three"])
    cell = "section:nth-of-type(3) tbody tr:nth-child(1) td.estimate"
    assert tab.text(cell).startswith("−50.0 [")
    tab.choose("beside", "second")
    assert tab.text(cell).startswith("+50.0 [")
    assert "not ended" in tab.text("section:nth-of-type(3)")
    assert "iteration 1 of 2" in tab.text("header")  # of the one that goes on
    curves = tab.count(".readout span")
    tab.click(".chip[aria-pressed=true]")
    assert tab.count(".readout span") < curves
    tab.press("4")
    assert tab.text("tbody th") == "algorithm"  # they differ in it alone
    assert tab.text(".settings tbody").count("grpo") == 1


def test_filters_leave_what_they_say(tab, pages):
    tab.open(f"{pages['one']}#view=samples")
    assert tab.text(".count") == "3 questions"
    tab.choose("outputs", "right")
    assert shown(tab) == ["1 + 1?"]
    tab.choose("outputs", "unread")
    assert shown(tab) == [OTHER]
    tab.choose("outputs", "any")
    tab.choose("change", "gained")
    assert shown(tab) == [OTHER]
    tab.choose("change", "lost")
    assert len(shown(tab)) == 1 and "owned" in shown(tab)[0]
    tab.choose("change", "any")
    tab.choose("iteration", "1")
    tab.choose("outputs", "wrong")
    assert shown(tab) == [OTHER]
    tab.choose("outputs", "fact_short")
    assert len(shown(tab)) == 2  # "three" is long, and so is the enemy's


def test_search_marks_what_it_finds_and_keeps_the_caret(tab, pages):
    tab.open(f"{pages['one']}#view=samples&iteration=1")
    tab.type("THREE")
    assert shown(tab) == ["1 + 1?"]  # found in an output
    assert tab.text(".output mark") == "three"
    assert tab.run("document.activeElement.id") == "find"
    tab.type("<b>this</b>")
    assert tab.text(".question mark") == "<b>this</b>"
    tab.type("no such text")
    assert tab.text(".sample .notice") == "No question is left by these filters."


def test_the_order_is_by_score_and_the_sample_follows(tab, pages):
    tab.open(f"{pages['one']}#view=samples")
    tab.choose("order", "logprob")
    assert shown(tab)[1:] == [OTHER, "1 + 1?"]
    tab.choose("order", "-rate")
    assert shown(tab)[0] == "1 + 1?"
    assert tab.text(".question") == "1 + 1?"


def test_keys_and_buttons_go_from_question_to_question(tab, pages):
    tab.open(f"{pages['one']}#view=samples")
    tab.press("j")
    assert tab.text(".samplehead .number") == "2 of 3"
    tab.click("button[title^='next question']")
    assert tab.text(".samplehead .number") == "3 of 3"
    tab.press("ArrowUp")
    assert tab.text(".question") == OTHER
    tab.press("[")
    assert tab.text(".question") == OTHER
    assert "iteration=1" in tab.run("location.hash")
    assert tab.text(".output .verdict") == "✗ wrong ×2 ✓ short"
    tab.press("?")
    assert "previous iteration" in tab.text("dialog")
    tab.press("?")
    tab.press("/")
    tab.press("j")  # is written into the field
    assert tab.run("document.getElementById('find').value") == "j"


def test_a_link_opens_what_was_looked_at_and_back_goes_back(tab, pages):
    tab.open(f"{pages['three']}#view=samples&run=second&iteration=1")
    tab.click(".entry:nth-child(2)")
    link = tab.run("location.href")
    tab.open(link)
    assert (tab.text(".question"), tab.text(".entry.chosen .snippet")) == (OTHER, OTHER)
    assert tab.count(".instructions") == 0  # grpo trains on none of them
    assert tab.count(".ratesteps") == 2  # of each run that drew it
    tab.click(".ratestep")
    assert "run=first" in tab.run("location.hash") or "run=" not in tab.run("location.hash")
    assert tab.count(".instructions") == 1
    tab.run("history.back()")
    tab.settle()
    assert "run=second" in tab.run("location.hash")
    assert (tab.text(".question"), tab.count(".instructions")) == (OTHER, 0)
    tab.open(f"{pages['three']}#view=samples&run=third")
    assert "has no samples" in tab.text(".notice")


def test_what_an_enemy_wrote_is_read_and_never_run(tab, pages):
    tab.open(f"{pages['one']}#view=samples&find=owned")
    assert tab.run("document.title") == "hir_jax: first"
    assert tab.run("document.querySelector('.question').textContent") == made.HOSTILE
    assert tab.run("document.querySelector('.output .text').textContent") == made.HOSTILE
    assert tab.count("img") == 0
    tab.open(f"{pages['one']}#view=<img src=x onerror=alert(1)>&find=<b>")


def test_old_and_new_instruction_stand_side_by_side(tab, pages):
    tab.open(f"{pages['one']}#view=samples&iteration=1&question=sums/{OTHER}")
    assert tab.text(".instructions").endswith("relabeled Solve the question with wrong answer.")
    assert tab.text(".instructions b") == "wrong"


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_is_wider_than_the_window(tab, pages, width):
    for view in ("overview", "curves", "samples", "settings"):
        tab.open(f"{pages['three']}#view={view}", width=width)
        assert tab.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("runs", ["one", "three"])
def test_the_closing_table_is_whole_on_a_small_laptop(tab, pages, runs):
    tab.open(pages[runs], width=1200)
    assert tab.text("tbody td.kept").startswith("iteration 2")
    table = "document.querySelector('.wide:has(.kept)')"
    assert tab.run(f"{table}.scrollWidth - {table}.clientWidth") == 0


def test_dark_and_light(tab, pages):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.open(pages["one"]).run(ground)
    dark = tab.open(pages["one"], dark=True).run(ground)
    assert light != dark
    tab.press("t")  # light, whatever the system says
    assert tab.run(ground) == light


def test_a_browser_that_cannot_unpack_says_which_can(tab, pages, tmp_path):
    lacking = tmp_path / "lacking.html"
    # The policy lets no script run that was changed.
    content = pages["file"].read_text(encoding="utf-8").replace("DecompressionStream", "NoStream")
    lacking.write_text(re.sub("<meta http-equiv[^>]*>", "", content), encoding="utf-8")
    tab.open(lacking.as_uri(), drawn=False)
    assert "Chrome or Edge 80, Firefox 113, Safari 16.4" in tab.text("#waiting")
