"""What is installed, and that it finds what comes with it from any folder."""

import importlib
import pathlib
import subprocess
import sys
import tomllib

import hir_jax
from hir_jax import shipped
from hir_jax.model import hub

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_dependencies_are_listed_once():
    assert (ROOT / "requirements.txt").read_text().split() == ["-e", "."]
    assert (ROOT / "requirements-dev.txt").read_text().split() == ["-e", ".[test]"]
    assert {"cuda", "tpu", "test"} <= set(PROJECT["project"]["optional-dependencies"])


def test_the_console_script_is_main_py():
    module, _, function = PROJECT["project"]["scripts"]["hir-jax"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert f"{module.rpartition('.')[2]}.{function}()" in (ROOT / "main.py").read_text()


def test_version_is_said_once_and_in_the_changelog_and_the_citation():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert f"## {hir_jax.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {hir_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_an_installed_package_finds_its_files_where_the_wheel_puts_them():
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {name: f"hir_jax/shipped/{name}" for name in ("configs", "assets")}
    assert ROOT == shipped.HOME  # a checkout's own


def test_the_default_config_and_model_are_found_from_another_folder(tmp_path, monkeypatch):
    command = [sys.executable, str(ROOT / "main.py"), "--config.nonsense=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.startswith("error: --config.nonsense: the config has no field 'nonsense'")
    monkeypatch.chdir(tmp_path)
    assert hub.find("assets/tiny") == ROOT / "assets" / "tiny"


def test_what_lies_in_this_folder_goes_before_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets" / "tiny").mkdir(parents=True)
    assert shipped.find("assets/tiny") == "assets/tiny"
    assert shipped.find("assets/absent") == "assets/absent"
