"""What `import hir_jax` gives, when it is loaded, and the example and the page that use it."""

import ast
import inspect
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

import hir_jax
from hir_jax import library
from tests import tiny

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "library.py"
PAGE = (ROOT / "docs" / "library.md").read_text()


def test_importing_it_loads_nothing_until_it_is_used():
    code = (
        "import sys, hir_jax; new = set(sys.modules); assert not {'jax', 'numpy', 'absl'} & new;"
        "assert 'load' in dir(hir_jax); assert hir_jax.UserError.__name__ == 'UserError';"
        "assert 'jax' in sys.modules; assert not {'torch', 'tensorboardX'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_it_is_the_library_by_the_same_names():
    tree = ast.parse((ROOT / "hir_jax" / "__init__.py").read_text())
    (told,) = (node for node in ast.walk(tree) if getattr(node, "module", "") == "hir_jax.library")
    assert [alias.name for alias in told.names] == hir_jax.__all__  # what type checkers see
    assert hir_jax.__all__ == sorted(library.__all__)
    assert all(getattr(hir_jax, name) is getattr(library, name) for name in hir_jax.__all__)
    with pytest.raises(AttributeError, match="'hir_jax' has no attribute 'nonsense'"):
        hir_jax.nonsense  # noqa: B018


def test_no_name_is_that_of_a_room_which_would_take_its_place_once_it_is_imported():
    assert not {path.stem for path in (ROOT / "hir_jax").iterdir()} & set(hir_jax.__all__)


@pytest.mark.parametrize("name", hir_jax.__all__)
def test_each_is_described_and_typed(name):
    found = getattr(hir_jax, name)
    assert f"`{name}`" in PAGE or f"`{name}(" in PAGE or f"`hir_jax.{name}`" in PAGE
    assert inspect.getdoc(found)
    if inspect.isfunction(found):
        signature = inspect.signature(found)
        typed = [p.annotation for p in signature.parameters.values()] + [
            signature.return_annotation
        ]
        assert inspect.Signature.empty not in typed


def test_the_page_has_the_code_of_the_example():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) > 4
    assert [block for block in blocks if block not in EXAMPLE.read_text()] == []


def test_the_example(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with tiny.compiled_once():
        found = runpy.run_path(str(EXAMPLE))
    assert found["after"] > found["before"] + 0.5
    assert found["outcome"].after.gap > found["outcome"].before.gap + 0.3
    assert pathlib.Path("runs/library/report.html").is_file()
    said = capsys.readouterr().out
    assert "\nafter: iteration 1 of 1, the best on the development questions\n" in said
    assert said.splitlines()[-1] == "runs/library/report.html"
