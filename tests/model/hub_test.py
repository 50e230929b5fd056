"""Models by their hub names, offline: a cache laid out as the hub's, and what is asked of it."""

import pathlib
import shutil

import huggingface_hub
import pytest
from huggingface_hub import constants

from hir_jax.model import hub
from tests.model import pickles
from tests.model.hf_test import SINGLE, fault, load

NAME, OLD, NEW = "someone/model", "0" * 39 + "a", "0" * 39 + "b"


def cached(home, monkeypatch, commits, **refs):
    """A cache of one model: commit -> the folder it is like; branch or tag -> commit."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = home / "models--someone--model"
    for commit, folder in commits.items():
        shutil.copytree(folder, model / "snapshots" / commit)
    (model / "refs").mkdir()
    for ref, commit in refs.items():
        (model / "refs" / ref).write_text(commit)
    return model


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Two commits; main is at the newer one, the tag v1 at the older."""
    return cached(tmp_path, monkeypatch, {OLD: SINGLE, NEW: pickles.LEGACY}, main=NEW, v1=OLD)


def test_a_revision_is_a_commit_a_tag_or_a_branch(model):
    for revision, commit in {"": NEW, "main": NEW, "v1": OLD, OLD: OLD}.items():
        folder = hub.find(NAME, revision)
        assert folder == model / "snapshots" / commit
        assert hub.commit(folder) == commit
    assert hub.commit(model) == ""
    assert load(hub.find(NAME, "v1"))[1] == load(SINGLE)[1]


def test_a_revision_that_there_is_not(model):
    message = fault(hub.find, NAME, "v2")
    assert "did not give a model of that name and revision 'v2' (" in message
    for revision in ("../main", "a b", "/v1", "v1/", ".."):
        assert fault(hub.find, NAME, revision) == (
            "config.model.revision: expected a commit, tag or branch of someone/model, found "
            f"{revision!r}."
        )


def test_a_folder_has_no_revision(model):
    folder = str(pickles.ZIP)
    assert fault(hub.find, folder, "main") == (
        "config.model.revision: expected none for a folder, which has but one; found 'main' with "
        f"config.model.path={folder}. Leave it out, or give a hub name."
    )


@pytest.mark.parametrize(
    ("source", "weights"), [(SINGLE, []), (pickles.ZIP, ["pytorch_model.bin"])]
)
def test_pickles_are_asked_for_only_where_there_is_nothing_else(
    tmp_path, monkeypatch, source, weights
):
    asked = []
    folder = tmp_path / "snapshots" / NEW

    def download(name, revision, allow_patterns):
        asked.append((revision, allow_patterns))
        for file in source.iterdir():
            if any(pathlib.PurePath(file.name).match(pattern) for pattern in allow_patterns):
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, folder)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.find(NAME, "v1") == folder
    assert load(folder)[1] == load(source)[1]
    assert [revision for revision, _ in asked] == ["v1", *[NEW for _ in weights]]
    assert [file.name for file in folder.glob("*.bin")] == weights
    asked.clear()
    assert hub.find(NAME, "", ("*.json",)) == folder  # a tokenizer alone needs no weights
    assert [revision for revision, _ in asked] == [None]
