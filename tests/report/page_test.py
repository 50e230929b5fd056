"""The page as a file: whole, small, and safe whatever a model has written."""

import html.parser
import importlib.resources
import pathlib
import re
import tomllib

import pytest

from hir_jax.report import gather, page
from hir_jax.report.runs import read_runs
from tests.report import made

ROOT = pathlib.Path(__file__).parents[2]
PARTS = importlib.resources.files("hir_jax.report").joinpath("page")
OURS = {name: PARTS.joinpath(name).read_text(encoding="utf-8") for name in page.SCRIPTS}


class Parts(html.parser.HTMLParser):
    """The elements of a page, and what stands in scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.contents = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.elements and self.cdata_elem:  # a script or a style
            self.contents.append((self.elements[-1], data))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page whose run, config, questions and outputs are all written by an enemy."""
    folder = tmp_path_factory.mktemp("runs") / "<b>{{data}}"
    samples = [[(f"Q{made.HOSTILE}", made.HOSTILE, False), ("plain", "2", True)]]
    changes = {"data.task": made.HOSTILE, "instruction.correct": made.HOSTILE}
    made.run(folder, samples, alarm=made.HOSTILE, **changes)
    content = gather.gather(read_runs([str(folder)]), 0)
    return content, page.render(content, f"hir_jax: {folder.name}")


def test_nothing_of_a_run_becomes_markup(hostile):
    content, text = hostile
    assert "onerror" not in text and "owned" not in text and "\u2028" not in text
    elements = [tag for tag, _ in Parts(text).elements]
    benign = page.render({}, "none")
    assert elements == [tag for tag, _ in Parts(benign).elements]
    assert "<title>hir_jax: &lt;b&gt;{{data}}</title>" in text
    data = re.search(r'id="data">([^<]*)</script>', text)[1]
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", data)
    assert page.decompress(data)["texts"] == content["texts"]
    assert made.HOSTILE in content["texts"]


def test_halves_of_surrogate_pairs_and_separators_come_back():
    content = {"text": "\ud800 \u2028 </script>"}
    assert page.decompress(page.compress(content)) == content
    assert page.compress(content) == page.compress(content)


def test_only_what_was_written_here_may_run(hostile):
    _, text = hostile
    parts = Parts(text)
    (policy,) = [a["content"] for tag, a in parts.elements if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    scripts = [c for (tag, a), c in parts.contents if tag == "script" and "type" not in a]
    styles = [c for (tag, _), c in parts.contents if tag == "style"]
    assert len(scripts) == 2 and len(styles) == 1
    assert policy == page.policy(scripts, styles)
    assert "unsafe" not in policy
    assert not re.findall(
        r"""(?:src|href)=["']?[^"'#]""", re.sub(r"(?s)<script.*?</script>", "", text)
    )


@pytest.mark.parametrize("name", OURS)
def test_texts_go_into_the_page_as_texts(name):
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment"
    banned += r"|\beval\b|new Function|DOMParser|srcdoc|javascript:|https?:"
    assert not re.search(banned, OURS[name])


def test_no_part_ends_its_own_element():
    for name in (*page.SCRIPTS, page.LIBRARY):
        text = PARTS.joinpath(name).read_text(encoding="utf-8")
        assert "</script" not in text.lower() and "<!--" not in text
    for name in page.STYLES:
        assert "</style" not in PARTS.joinpath(name).read_text(encoding="utf-8").lower()


def test_every_part_is_used_and_shipped():
    used = {*page.SCRIPTS, *page.STYLES, page.LIBRARY, "page.html", "LICENSE.uPlot"}
    assert {part.name for part in PARTS.iterdir()} == used
    # All that lies in the package comes with it; its licence with the plot library.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["hir_jax"]
    assert "MIT" in PARTS.joinpath("LICENSE.uPlot").read_text()


@pytest.mark.parametrize("name", OURS)
def test_scripts_are_of_a_size_that_is_read_at_once(name):
    lines = OURS[name].splitlines()
    assert len(lines) <= 420 and max(map(len, lines)) <= 100
