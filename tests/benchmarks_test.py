"""What the benchmarks compare with; the benchmarks themselves are run by hand."""

import json
import math
import pathlib

import pytest

from benchmarks import decode_profile, workloads
from hir_jax.model import shapes


def workload(folder: pathlib.Path, size, prompts):
    (folder / "config.json").write_text(json.dumps(shapes.flan_t5(size)))
    return workloads.Workload("D", folder, [[5] * 256] * prompts, 1, 64, exact=True)


@pytest.mark.parametrize(
    ("size", "rows", "thousands"),
    [
        # An H200 at 4.3 TB/s in bfloat16, worked out apart from this program.
        ("small", 64, 907),
        ("small", 1024, 1190),
        ("base", 256, 371),
        ("large", 64, 106),
        ("xl", 1024, 72),
    ],
)
def test_a_decode_step_reads_weights_keys_and_values_once(tmp_path, size, rows, thousands):
    made = workload(tmp_path, size, rows)
    tokens = rows * 64
    seconds = made.roofline(tokens, rows, rate=math.inf, bandwidth=4.3e12, itemsize=2)
    assert tokens / seconds / 1000 == pytest.approx(thousands, rel=0.01)


def test_where_memory_is_fast_the_roofline_is_the_products_limit(tmp_path):
    made = workload(tmp_path, "small", 64)
    seconds = made.roofline(4096, 64, rate=1e11, bandwidth=math.inf, itemsize=4)
    assert seconds == pytest.approx(made.flops(4096) / 1e11)


def test_weights_are_those_of_the_published_model(tmp_path):
    weights = workloads.Weights.of(workload(tmp_path, "small", 1).folder)
    embedding = 32128 * 512
    # Two norms a block of the encoder, three of the decoder, one after each stack.
    norms = 512 * (8 * 2 + 8 * 3 + 2)
    biases = 2 * 32 * 6
    read = weights.encoder + weights.cross + weights.decoder
    assert read + embedding + norms + biases == 76_961_152


def test_rows_that_wait_for_the_end_of_a_chunk():
    assert decode_profile.rows_at_work(1) == 1
    # Of geometric lengths with mean 12 in chunks of n steps: 12 (1 - (11/12)^n) / n.
    assert decode_profile.rows_at_work(8) == pytest.approx(12 * (1 - (11 / 12) ** 8) / 8)
