import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore as ts
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from hir_jax.errors import UserError
from hir_jax.run import arrays, sealed
from hir_jax.run.arrays import PART_BYTES
from hir_jax.run.checkpoint import Checkpoints, newest_progress
from hir_jax.run.checksums import checksum

# Orbax abandons the other reads of a checkpoint when one fails, and they complain of it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def make_state(fill: float = 0.1, sharding: jax.sharding.Sharding | None = None):
    params = {
        "encoder": {"embedding": jax.random.normal(jax.random.key(0), (64, 16)) * fill},
        "head": jnp.full((16,), fill, jnp.bfloat16),
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(5e-4))
    _, opt_state = optimizer.update(params, optimizer.init(params), params)
    state = {
        "params": params,
        "opt_state": opt_state,
        "key": jax.random.key(7),
        "step": jnp.int32(3),
    }
    return jax.device_put(state, sharding or SingleDeviceSharding(jax.devices()[0]))


def abstract(tree):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


def bits(tree):
    def of(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()

    return [of(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same(restored, state):
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert bits(restored) == bits(state)


def array_file(folder: pathlib.Path) -> pathlib.Path:
    # Random numbers hardly compress, so the largest file is one of arrays, not of an index.
    return max(folder.glob("state/**/d/*"), key=lambda path: path.stat().st_size)


def truncate(folder: pathlib.Path):
    # All of them: which file holds what varies with the timing of the writing threads.
    for path in folder.glob("state/**/d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_a_byte(folder: pathlib.Path):
    path = array_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(str(tmp_path / "checkpoints"))
    yield opened
    opened.close()


@pytest.fixture
def two_saved(checkpoints, tmp_path):
    for step in (4, 6):
        checkpoints.save(step, make_state(step), {"iteration": step})
    checkpoints.wait()
    return checkpoints, tmp_path / "checkpoints"


def test_round_trip_is_bit_identical(checkpoints):
    state = make_state()
    progress = {
        "position": 12,
        "best": 0.1 + 0.2,
        "worst": float("nan"),
        "buffer": [{"text": "é\n", "ids": [1, 2]}],
    }
    checkpoints.save(3, state, progress)
    checkpoints.wait()
    step, restored, found = checkpoints.restore_latest(abstract(state))
    assert step == 3
    assert_same(restored, state)
    assert restored["opt_state"][1][0].count.dtype == jnp.int32
    assert jax.random.key_impl(restored["key"]) == jax.random.key_impl(state["key"])
    assert json.dumps(found) == json.dumps(progress)


def test_no_checkpoint_is_none_and_writes_nothing(checkpoints, tmp_path):
    assert checkpoints.restore_latest(abstract(make_state())) is None
    assert checkpoints.restore_best(abstract(make_state()["params"])) is None
    checkpoints.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_relative_directory_of_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints("run 1%20#/checkpoints")
    checkpoints.save(1, make_state(), {})
    checkpoints.close()
    assert (tmp_path / "run 1%20#/checkpoints/1").is_dir()
    assert checkpoints.restore_latest(abstract(make_state()))[0] == 1


def test_keeps_the_newest(checkpoints, tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(step), {})
    checkpoints.wait()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def test_restores_onto_another_mesh(checkpoints):
    eight = jax.make_mesh((8,), ("data",))
    state = make_state()
    state["params"]["encoder"]["embedding"] = jax.device_put(
        state["params"]["encoder"]["embedding"], NamedSharding(eight, P("data"))
    )
    checkpoints.save(1, state, {})
    checkpoints.wait()

    mesh = jax.make_mesh((2, 2), ("fsdp", "tensor"), devices=jax.devices()[:4])
    wanted = abstract(make_state(sharding=NamedSharding(mesh, P())))
    leaf = wanted["params"]["encoder"]["embedding"]
    sharding = NamedSharding(mesh, P("fsdp", "tensor"))
    wanted["params"]["encoder"]["embedding"] = jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
    )
    _, restored, _ = checkpoints.restore_latest(wanted)
    assert_same(restored, state)
    assert restored["params"]["encoder"]["embedding"].sharding == sharding
    assert restored["key"].sharding.is_equivalent_to(NamedSharding(mesh, P()), 0)


def test_a_leaf_without_sharding_goes_to_the_default_device(checkpoints):
    state = make_state(sharding=NamedSharding(jax.make_mesh((8,), ("data",)), P()))
    checkpoints.save(1, state, {})
    checkpoints.wait()
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    _, restored, _ = checkpoints.restore_latest(shapes)
    assert_same(restored, state)
    assert restored["step"].devices() == {jax.devices()[0]}


def test_a_sharding_that_does_not_fit_is_not_taken_for_damage(two_saved):
    checkpoints, _ = two_saved
    wanted = abstract(make_state())
    odd = NamedSharding(jax.make_mesh((3,), ("data",), devices=jax.devices()[:3]), P("data"))
    wanted["params"]["head"] = jax.ShapeDtypeStruct((16,), jnp.bfloat16, sharding=odd)
    with pytest.raises(ValueError, match="divi"):
        checkpoints.restore_latest(wanted)


@pytest.mark.parametrize("spec", [P(), P("data")])
def test_buffers_may_be_donated_while_saving(checkpoints, spec):
    sharding = NamedSharding(jax.make_mesh((8,), ("data",)), spec)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    for step in (1, 2, 3):
        state = jax.device_put(
            {str(i): jnp.arange(100_000, dtype=jnp.float32) + i for i in range(20)}, sharding
        )
        wanted, expected = abstract(state), bits(jax.tree.map(jnp.copy, state))
        checkpoints.save(step, state, {})
        jax.block_until_ready(overwrite(overwrite(state)))
        checkpoints.wait()
        _, restored, _ = checkpoints.restore_latest(wanted)
        assert bits(restored) == expected


def test_small_arrays_are_written_whole_and_parts_of_others_by_each_device(checkpoints, tmp_path):
    everywhere = NamedSharding(jax.make_mesh((8,), ("data",)), P())
    sizes = {"small": 1024, "large": 8 * PART_BYTES // 4}
    state = {name: jax.device_put(jnp.zeros(size), everywhere) for name, size in sizes.items()}
    checkpoints.save(1, state, {})
    checkpoints.wait()
    base = {"driver": "file", "path": f"{tmp_path}/checkpoints/1/state/"}
    store = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    chunks = {n: json.loads(store.read(f"{n}/.zarray").result().value)["chunks"] for n in sizes}
    assert chunks == {"small": [1024], "large": [PART_BYTES // 4]}


def test_progress_may_be_changed_while_saving():
    progress = {"buffer": [1]}
    kept = sealed.seal(progress)
    progress["buffer"].append(2)
    assert kept["content"] == {"buffer": [1]}


def change_json(folder, **fields):
    file = folder / "progress" / "progress.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        change_a_byte,
        lambda folder: shutil.rmtree(folder / "progress"),
        lambda folder: shutil.rmtree(folder / "leaves"),
        lambda folder: shutil.rmtree(folder / "state"),
        lambda folder: (folder / "state" / "_METADATA").write_text("{"),
        lambda folder: change_json(folder, crc32=1),
    ],
    ids=["truncated", "byte", "progress", "leaves", "state", "metadata", "crc32"],
)
def test_damaged_newest_is_reported_and_replaced(two_saved, damage, caplog):
    checkpoints, directory = two_saved
    damage(directory / "6")
    step, restored, progress = checkpoints.restore_latest(abstract(make_state()))
    assert (step, progress) == (4, {"iteration": 4})
    assert_same(restored, make_state(4))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any(str(directory / "6") in warning for warning in warnings)

    checkpoints.save(6, make_state(60), {"iteration": 60})
    checkpoints.wait()
    step, restored, progress = checkpoints.restore_latest(abstract(make_state()))
    assert (step, progress) == (6, {"iteration": 60})
    assert_same(restored, make_state(60))


def test_a_checkpoint_of_another_format_is_told_and_not_taken_for_damage(two_saved):
    checkpoints, directory = two_saved
    change_json(directory / "6", format=99, hir_jax="9.9")
    with pytest.raises(UserError, match=r"has format 99, as hir_jax 9\.9 writes it; this is"):
        checkpoints.restore_latest(abstract(make_state()))
    file = directory / "6" / "progress" / "progress.json"
    file.rename(file.with_name("metadata"))  # as they were before there was a format
    with pytest.raises(UserError, match=r"has no format, as hir_jax earlier than 0\.2\.0"):
        checkpoints.restore_latest(abstract(make_state()))


def test_checkpoints_that_a_run_at_work_replaces_while_they_are_read(two_saved, monkeypatch):
    _, directory = two_saved
    original = sealed.read

    def read(folder, item):
        if folder.name == "6":
            (directory / "6").rename(directory / "8")
            shutil.rmtree(directory / "4")
        return original(folder, item)

    monkeypatch.setattr(sealed, "read", read)
    assert newest_progress(directory) == {"iteration": 6}


def test_a_link_to_nothing_is_told_and_not_replaced(two_saved):
    checkpoints, directory = two_saved
    (directory / "6").rename(directory / "moved")
    (directory / "6").symlink_to("moved_away")
    with pytest.raises(UserError, match=r"/6: expected checkpoints, found a link to nothing"):
        checkpoints.restore_latest(abstract(make_state()))
    directory.rename(directory.with_name("moved"))
    directory.symlink_to("moved_away")
    with pytest.raises(UserError, match=f"{directory}: expected checkpoints, found a link to"):
        newest_progress(directory)


def test_another_version_of_the_same_format_is_read_and_told(two_saved, caplog):
    checkpoints, directory = two_saved
    change_json(directory / "6", hir_jax="9.9")
    assert checkpoints.restore_latest(abstract(make_state()))[0] == 6
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1 and "was written by hir_jax 9.9; this is" in told[0]


def test_probe_finds_a_cut_file(two_saved):
    _, directory = two_saved
    arrays._probe(directory / "6/state")
    path = array_file(directory / "6")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match="not valid for value of size"):
        arrays._probe(directory / "6/state")


def test_damaged_newest_gives_way_to_an_earlier_step(two_saved):
    checkpoints, directory = two_saved
    truncate(directory / "6")
    checkpoints.restore_latest(abstract(make_state()))
    checkpoints.save(5, make_state(5), {})
    checkpoints.wait()
    assert checkpoints.restore_latest(abstract(make_state()))[0] == 5
    assert not (directory / "6").exists()


def test_a_step_saved_again_is_replaced_and_an_earlier_one_not_skipped(two_saved):
    _, directory = two_saved
    (directory / "6" / "_CHECKPOINT_METADATA").write_text("{")
    writer = Checkpoints(str(directory))
    writer.save(6, make_state(60), {})
    writer.save(5, make_state(50), {})
    writer.close()
    wanted = abstract(make_state())
    assert_same(Checkpoints(str(directory)).restore_latest(wanted)[1], make_state(60))
    shutil.rmtree(directory / "6")
    assert_same(Checkpoints(str(directory)).restore_latest(wanted)[1], make_state(50))


def test_all_damaged_is_a_user_error(two_saved):
    checkpoints, directory = two_saved
    truncate(directory / "4")
    change_a_byte(directory / "6")
    with pytest.raises(UserError, match="found only damaged ones") as raised:
        checkpoints.restore_latest(abstract(make_state()))
    for step in ("4", "6"):
        assert str(directory / step) in str(raised.value)


def test_another_model_is_a_user_error_not_damage(two_saved, caplog):
    checkpoints, directory = two_saved
    other = make_state()
    other["params"]["encoder"]["embedding"] = jnp.zeros((64, 32))
    other["params"]["head"] = jnp.zeros((16,), jnp.float32)
    other["params"]["extra"] = jnp.zeros(2)
    del other["step"]
    with pytest.raises(UserError) as raised:
        checkpoints.restore_latest(abstract(other))
    message = str(raised.value)
    assert str(directory / "6") in message
    assert "4 of 10 leaves differ" in message
    assert "params/encoder/embedding: expected float32[64, 32], found float32[64, 16]" in message
    assert "params/head: expected float32[16], found bfloat16[16]" in message
    assert "params/extra: expected float32[2], found nothing" in message
    assert "step: expected nothing, found int32[]" in message
    assert not caplog.records


def test_a_mismatch_lists_ten_leaves_at_most(checkpoints):
    checkpoints.save(1, {f"w{i:02}": jnp.zeros(2) for i in range(30)}, {})
    checkpoints.wait()
    with pytest.raises(UserError, match="30 of 30 leaves differ") as raised:
        checkpoints.restore_latest(abstract({f"w{i:02}": jnp.zeros(3) for i in range(30)}))
    assert str(raised.value).count("expected") == 10


def steps_in(directory):
    return sorted(int(path.name) for path in directory.iterdir())


def test_the_best_is_kept_as_long_as_one_of_the_newest_speaks_of_it(checkpoints, tmp_path):
    directory, wanted = tmp_path / "checkpoints", abstract(make_state())
    found = []
    for step, best in ((0, 0), (1, 1), (2, 1), (3, 1), (4, 4), (5, 4), (6, 4)):
        if step == 4:  # another process goes on: what it finds is kept as before
            checkpoints.close()
            checkpoints = Checkpoints(str(directory))
            assert checkpoints.restore_latest(wanted)[0] == 3
        checkpoints.save(step, make_state(step), {"step": step}, best)
        checkpoints.wait()
        found.append(steps_in(directory))
        params, progress = checkpoints.restore_best(wanted["params"])
        assert_same(params, make_state(best)["params"])
        assert progress == {"step": step}
    checkpoints.close()
    # 3 is of the newest two while 4 is, and speaks of 1.
    assert found == [[0], [0, 1], [1, 2], [1, 2, 3], [1, 3, 4], [4, 5], [4, 5, 6]]


def test_where_the_newest_is_damaged_the_best_is_that_of_the_one_before(checkpoints, tmp_path):
    for step, best in ((1, 1), (2, 1), (3, 3)):
        checkpoints.save(step, make_state(step), {"step": step}, best)
    checkpoints.wait()
    truncate(tmp_path / "checkpoints" / "3")
    wanted = abstract(make_state())
    again = Checkpoints(str(tmp_path / "checkpoints"))
    params, progress = again.restore_best(wanted["params"])
    assert (progress, bits(params)) == ({"step": 2}, bits(make_state(1)["params"]))
    assert again.restore_latest(wanted)[0] == 2
    again.check_best()
    shutil.rmtree(tmp_path / "checkpoints" / "1")
    with pytest.raises(UserError, match=r"best parameters in .*/1, found none"):
        again.check_best()


def test_where_the_arrays_are_the_same_progress_alone_is_written(checkpoints, tmp_path):
    folder, state = tmp_path / "checkpoints" / "4", make_state(4)
    checkpoints.save(4, state, {"sampled": False})
    checkpoints.wait()

    def files():
        every = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.stat().st_ino for path in every}

    before = files()
    checkpoints.save(4, state, {"sampled": True})
    changed = {name for name, inode in files().items() if before.get(name) != inode}
    assert changed == {"progress/progress.json"}
    resumed = Checkpoints(str(tmp_path / "checkpoints"))
    step, restored, progress = resumed.restore_latest(abstract(state))
    assert (step, progress) == (4, {"sampled": True})
    assert_same(restored, state)
    resumed.save(4, state, {"sampled": "twice"})
    assert newest_progress(str(tmp_path / "checkpoints")) == {"sampled": "twice"}
    assert files().keys() == before.keys()


def test_reading_leaves_the_writer_s_temporary_folders(two_saved):
    _, directory = two_saved
    unfinished = directory / "8.orbax-checkpoint-tmp"
    unfinished.mkdir()
    reader = Checkpoints(str(directory))
    assert reader.restore_latest(abstract(make_state()))[0] == 6
    reader.restore_best(abstract(make_state()["params"]))
    assert unfinished.exists()
    writer = Checkpoints(str(directory))
    writer.save(10, make_state(), {})
    writer.close()
    assert not unfinished.exists()


_SAVE_FOREVER = """
import sys
import jax, jax.numpy as jnp
from hir_jax.run.checkpoint import Checkpoints

checkpoints = Checkpoints(sys.argv[1])
wanted = {str(i): jax.ShapeDtypeStruct((200_000,), jnp.float32) for i in range(5)}
found = checkpoints.restore_latest(wanted)
step = found[0] if found else 0
while True:
    step += 1
    state = {name: jnp.full((200_000,), step, jnp.float32) for name in wanted}
    checkpoints.save(step, state, {"step": step})
    print(step, flush=True)
"""


def test_killed_while_saving_stays_restorable(tmp_path):
    directory = tmp_path / "checkpoints"
    wanted = {str(i): jax.ShapeDtypeStruct((200_000,), jnp.float32) for i in range(5)}
    last = 0
    for delay in (0.0, 0.013, 0.029):
        process = subprocess.Popen(
            [sys.executable, "-c", _SAVE_FOREVER, str(directory)],
            stdout=subprocess.PIPE,
            cwd=pathlib.Path(__file__).parents[2],
        )
        reached = [int(process.stdout.readline()) for _ in range(2)][-1]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()

        step, state, progress = Checkpoints(str(directory)).restore_latest(wanted)
        assert last < reached - 1 <= step
        assert progress == {"step": step}
        assert all((np.asarray(leaf) == step).all() for leaf in state.values())
        last = step


def test_checksum_by_hand_and_on_any_mesh():
    # Words 5, 6, 7 with weights 1, 3, 5.
    assert int(checksum(jnp.array([5, 6, 7], jnp.uint32))) == 5 + 18 + 35
    # 1.0 is 0x3F80 in bfloat16.
    assert int(checksum(jnp.ones(2, jnp.bfloat16))) == 4 * 0x3F80
    array = jax.random.normal(jax.random.key(0), (16, 8))
    mesh = jax.make_mesh((4, 2), ("data", "tensor"))
    for spec in (P(), P("data"), P("tensor", "data")):
        assert checksum(jax.device_put(array, NamedSharding(mesh, spec))) == checksum(array)
    assert checksum(array[::-1]) != checksum(array)
