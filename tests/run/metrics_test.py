import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.errors import UserError
from hir_jax.run import metrics


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_steps(writer, steps):
    for step in steps:
        writer.write(step, {"phase": "train", "loss": 1 / (step + 1), "tokens": 3 * step})
        writer.timing(step, {"seconds": 0.5})


def test_lines_have_sorted_keys_and_exact_floats(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    writer.write(7, {"phase": "train", "loss": 0.1 + 0.2, "correct": 3})
    writer.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"correct": 3, "loss": 0.30000000000000004, "phase": "train", "step": 7}\n'


def test_scalars_of_numpy_and_jax(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    writer.write(
        0, {"a": np.float32(0.1), "b": jnp.float32(0.1), "c": np.int64(4), "d": jnp.int32(5)}
    )
    writer.close()
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert line == {"a": float(np.float32(0.1)), "b": line["a"], "c": 4, "d": 5, "step": 0}
    assert isinstance(line["c"], int)
    assert isinstance(line["d"], int)


def test_numbers_that_are_not_finite_are_strings(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    writer.write(0, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32("nan")})
    writer.close()
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert line == {"a": "nan", "b": "inf", "c": "-inf", "d": "nan", "step": 0}


def test_a_resumed_run_leaves_the_same_bytes(tmp_path):
    whole = metrics.MetricsWriter(tmp_path / "whole", 0)
    write_steps(whole, range(10))
    whole.close()

    killed = metrics.MetricsWriter(tmp_path / "resumed", 0)
    write_steps(killed, range(4))
    position = killed.position
    assert position == (tmp_path / "resumed/metrics.jsonl").stat().st_size
    write_steps(killed, range(4, 7))
    resumed = metrics.MetricsWriter(tmp_path / "resumed", position)
    assert resumed.position == position
    write_steps(resumed, range(4, 10))
    resumed.close()
    killed.close()

    expected = (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert (tmp_path / "resumed/metrics.jsonl").read_bytes() == expected
    assert len(lines(tmp_path / "resumed/timings.jsonl")) == 13


def test_without_position_lines_are_added(tmp_path):
    for step in (1, 2):
        writer = metrics.MetricsWriter(tmp_path)
        writer.write(step, {"loss": 1.0})
        writer.close()
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1, 2]


@pytest.mark.parametrize("position", [10_000, 3])
def test_a_position_the_file_does_not_have(tmp_path, position):
    writer = metrics.MetricsWriter(tmp_path)
    write_steps(writer, range(2))
    writer.close()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=rf"metrics.jsonl .*byte {position}.*{len(before)} bytes"):
        metrics.MetricsWriter(tmp_path, position)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_missing_file_has_no_bytes(tmp_path):
    with pytest.raises(UserError, match="found 0 bytes"):
        metrics.MetricsWriter(tmp_path, 1)
    metrics.MetricsWriter(tmp_path, 0).close()


def test_timings_tell_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics.time, "time", lambda: 12.5)
    writer = metrics.MetricsWriter(tmp_path)
    writer.timing(3, {"seconds": 0.25})
    writer.close()
    assert lines(tmp_path / "timings.jsonl") == [{"seconds": 0.25, "step": 3, "time": 12.5}]
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_format_table():
    rows = [("before", "5.0% [1%, 9%]", "+1.0", 60), ("b", "7.0%", "-12.50", 7)]
    table = metrics.format_table(("", "accuracy", "gap", "n"), rows)
    assert table.splitlines() == [
        "             accuracy     gap    n",
        "------  -------------  ------  ---",
        "before  5.0% [1%, 9%]    +1.0   60",
        "b                7.0%  -12.50    7",
    ]
    assert metrics.format_table(("a", "b"), []).splitlines()[0].split() == ["a", "b"]
