"""A `config.data` for the tests of the data sources, and where the real task files are."""

import dataclasses
from pathlib import Path

import ml_collections
import pytest

from hir_jax.data import records

ROOT = Path(__file__).parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"

needs_shared_data = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason="no ../shared/data (the real task files) beside the checkout"
)


def data_config(**changes):
    fields = {
        "source": "jsonl",
        "task": "",
        "path": "",
        "dev_path": "",
        "test_path": "",
        "bigbench_dir": "",
        "tfds_dir": "",
        "protocol": "premise",
        "dev_fraction": 0.1,
        "test_fraction": 0.2,
        "seed": 0,
        "shuffle_options": True,
        "max_train": 0,
        "max_dev": 0,
        "max_test": 0,
        "size": 0,
        "difficulty": 0,
        "level": None,
        "fields": dataclasses.asdict(records.AS_USUAL),
    }
    return ml_collections.ConfigDict(fields | changes)
