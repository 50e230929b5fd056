"""A run keeps the commit of the hub's model that it began with."""

import json

import pytest

from hir_jax.commands.policy import load_policy
from hir_jax.errors import UserError
from hir_jax.run import loop, models
from tests import tiny
from tests.model.hub_test import NAME, NEW, OLD, cached

pytestmark = pytest.mark.usefixtures("cache")


def config(**changes):
    return tiny.config(**{"model.path": NAME, "iterations": 0} | changes)


def test_a_run_goes_on_with_the_commit_it_began_with(tmp_path, monkeypatch):
    model = cached(tmp_path, monkeypatch, {OLD: tiny.folder()}, main=OLD, dev=OLD)
    workdir = str(tmp_path / "run")
    loop.run(config(), workdir)

    def kept():
        return json.loads((tmp_path / "run" / "config.json").read_text())["model"]["revision"]

    assert kept() == OLD
    # The branches move on, to what is no model at all.
    (model / "snapshots" / NEW).mkdir()
    for branch in ("main", "dev"):
        (model / "refs" / branch).write_text(NEW)
    loop.run(config(), workdir)
    loop.run(config(**{"model.revision": "dev"}), workdir)
    load_policy(config(), workdir)
    assert kept() == OLD
    # Another commit is another model, which this one is not; and a folder may stand in for it.
    with pytest.raises(UserError, match="expected model"):
        loop.run(config(**{"model.revision": NEW}), workdir)
    loop.run(tiny.config(iterations=0), workdir)
    assert kept() == ""


def test_a_run_that_saved_nothing_begins_anew(tmp_path, monkeypatch):
    model = cached(tmp_path, monkeypatch, {OLD: tiny.folder()}, main=OLD)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"model": {"path": NAME}}))
    assert models.pinned(config(), str(tmp_path / "run")).model.revision == OLD
    (tmp_path / "run" / "checkpoints").mkdir()
    assert models.pinned(config(), str(tmp_path / "run")).model.revision == OLD
    (model / "refs" / "main").write_text(NEW)
    assert models.pinned(config(**{"model.revision": OLD}), "none").model.revision == OLD
    with pytest.raises(UserError, match="did not give a model"):
        models.pinned(config(), str(tmp_path / "elsewhere"))
