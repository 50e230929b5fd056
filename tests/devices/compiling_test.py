import json

import jax
import jax.numpy as jnp
import pytest

from hir_jax.devices import compiling


@pytest.fixture
def kept(tmp_path, monkeypatch):
    for name in ("_file", "_seconds", "_at_work"):
        monkeypatch.setattr(compiling, name, getattr(compiling, name))
    compiling.keep(str(tmp_path))
    return tmp_path / "compilations.json"


def compiled(number, seen):
    """Compiles a function that announces itself; `seen` gets what is at work meanwhile."""

    def announced(x):
        compiling.begin(f"number {number}", "announced", len)
        seen.append(compiling.at_work())
        return jnp.sin(x) * number

    return jax.jit(announced)(jnp.ones(3))


def test_a_compilation_says_how_long_it_took_last_time(kept, caplog):
    caplog.set_level("INFO")
    seen = []
    compiled(1, seen)
    assert compiling.at_work() is None
    assert seen[0].told() == "compiling: number 1"  # nothing is known yet
    ((key, seconds),) = json.loads(kept.read_text()).items()
    assert "number 1" in key
    kept.write_text(json.dumps({key: seconds + 41}))
    compiling.keep(str(kept.parent))
    compiled(1, seen)
    compiled(2, seen)
    assert seen[1].told() == f"compiling ({seconds + 41:.1f} s last time): number 1"
    assert seen[2].told() == "compiling: number 2"
    assert len(json.loads(kept.read_text())) == 2


def test_what_the_cache_holds_says_nothing_of_how_long_it_takes(kept, monkeypatch):
    compiling.begin("that", "f")
    compiling._note_cache(compiling.FROM_CACHE)
    compiling._note_end(compiling.ENDED, 0.1, fun_name="jit(f)")
    assert compiling.at_work() is None
    assert not kept.exists()


def test_small_things_that_jax_compiles_meanwhile_end_nothing(kept):
    compiling.begin("that", "f")
    compiling._note_end(compiling.ENDED, 0.1, fun_name="jit(broadcast_in_dim)")
    assert compiling.at_work() is not None


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": "b"}'])
def test_a_damaged_file_is_as_good_as_none(kept, content):
    kept.write_text(content)
    compiling.keep(str(kept.parent))
    assert compiling._seconds == {}
