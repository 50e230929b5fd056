"""Two processes of four devices each do what one process of eight does, and end together."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.commands.eval import evaluate_policy
from hir_jax.commands.lines import open_output
from hir_jax.commands.sample import sample_file
from hir_jax.commands.score import score_file
from hir_jax.decoding.rows import free_memory
from hir_jax.devices import leaving, processes, sharding
from hir_jax.devices.interrupts import Interrupted, Interrupts
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.run import lock, loop, metrics, terminal, workdirs
from hir_jax.run.judging import judge
from tests import tiny

ROOT = pathlib.Path(__file__).parents[2]
# Parameters and optimizer state are split over both processes, and so is every batch.
MESH = {"mesh.data": 1, "mesh.fsdp": 8}
CHANGES = {"iterations": 1, "train.log_every": 2, "checkpoint.every_steps": 4, **MESH}


# Two processes ------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def pair(program, folder, *arguments):
    """Runs a program in two processes that know of each other; (exit code, stdout, stderr) of each.

    `program` is what stands between "python" and the flags.
    """
    together = [f"--coordinator=localhost:{free_port()}", "--processes=2"]
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4")
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        running = []
        for i in range(2):
            out, err = (
                stack.enter_context(open(folder / f"{name}{i}", "w+")) for name in ("out", "err")
            )
            command = [sys.executable, *program, *together, f"--process_id={i}", *arguments]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)
            stack.callback(process.kill)
            running.append((process, out, err))
        ended = []
        for process, out, err in running:
            process.wait(600)
            out.seek(0)
            err.seek(0)
            ended.append((process.returncode, out.read(), err.read()))
    return ended


# main.py, but a machine that pauses is not to spoil a test.
PATIENT = """
from absl import app
from hir_jax import cli
from hir_jax.devices import processes

processes.HEARTBEAT_SECONDS = 600
app.run(cli.main, flags_parser=cli.parse_flags)
"""

SCENES = """
import os, signal
from absl import app
from hir_jax import cli
from hir_jax.devices import interrupts, processes
from hir_jax.errors import UserError
from hir_jax.model import hf
from hir_jax.run import lock, loop
from hir_jax.devices.interrupts import Interrupted
from tests.devices.processes_test import by_ppo, use_modes

processes.HEARTBEAT_SECONDS = 600
interrupts.ASK_SECONDS = 0  # at every step
steps = []

def signalled(number, process, signal_number, original=loop.Job._step):
    def step(job, batch):
        steps.append(job)
        if len(steps) == number and processes.index() == process:
            os.kill(os.getpid(), signal_number)
        return original(job, batch)
    return step

def not_finite(number, original=loop.Job._step):
    def step(job, batch):
        values = original(job, batch)
        return values | ({"loss": float("nan")} if job.progress.steps == number else {})
    return step

def refused(run, says):
    try:
        run()
        raise AssertionError("went on")
    except UserError as e:
        assert says in str(e), e

def scenes(config, workdir, unused_after, run=loop.run):
    run(config, workdir + "/straight")
    use_modes(config, workdir + "/straight")
    run(by_ppo(config), workdir + "/ppo")
    same_weights = hf.load_params
    own = processes.index()
    hf.load_params = lambda folder, model, place: same_weights(
        folder, model, lambda path, array: place(path, array + own)
    )
    refused(lambda: run(config, workdir + "/mixed"), "process 0's:\\n  weights: on [1]\\n")
    hf.load_params = same_weights
    lock.SEEN_SECONDS = 1
    refused(lambda: run(config, workdir + f"/copy{own}"), "is not seen by [1]: ")
    loop.Job._step = not_finite(3)
    try:
        run(config, workdir + "/not_finite")
        raise AssertionError("went on after NaN")
    except UserError as e:
        assert "step 3, in iteration 1, gave a loss nan" in str(e)
    loop.Job._step = signalled(3, 1, signal.SIGTERM)
    try:
        run(config, workdir + "/broken")
        raise AssertionError("went on after SIGTERM")
    except Interrupted as e:
        assert (e.exit_code, len(steps)) == (143, 3)
    steps.clear()
    loop.Job._step = signalled(2, 0, signal.SIGKILL)
    run(config, workdir + "/broken")

loop.run = scenes
app.run(cli.main, flags_parser=cli.parse_flags)
"""


PROMPTS = ("not True is", "True and False is", "False or not True is")


def by_ppo(config):
    """The config of a run with all that a method may need: ratios, values, the start."""
    changed = config.copy_and_resolve_references().unlock()
    changes = {"algorithm": "ppo", "ppo.kl_coefficient": 0.1, "sample.top_k": None}
    # Where nothing is right, the gradient of the value head is noise, which Adam makes large.
    changes["verifier"] = "tests.methods.runs_test:pulls"
    changed.update_from_flattened_dict(changes)
    return changed.lock()


def use_modes(config, workdir):
    """--mode=eval, sample and score, of a finished run; their inputs stand beside its workdir."""
    evaluate_policy(config, workdir)
    for name, mode in {"sample": sample_file, "score": score_file}.items():
        mode(config, workdir, f"{workdir}/../{name}.jsonl", f"{workdir}/{name}d.jsonl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the workdirs of both processes are, and the one of a process of eight devices."""
    made = tmp_path_factory.mktemp("pair")
    for name, record in {"sample": {}, "score": {"output": "True False"}}.items():
        given = [json.dumps({"prompt": prompt, **record}) for prompt in PROMPTS]
        (made / f"{name}.jsonl").write_text("\n".join(given))
    return made


@pytest.fixture(scope="module")
def flags(cache):
    changes = CHANGES | {"model.path": tiny.folder()}
    given = [f"--config.{name}={value}" for name, value in changes.items()]
    return ["--config=tests/tiny.py", f"--compilation_cache={cache}", *given]


@pytest.fixture(scope="module")
def ended(folder, flags):
    """How two processes ended that ran `SCENES`."""
    return pair(["-c", SCENES], folder / "first", f"--workdir={folder}", *flags)


def records(workdir):
    files = [workdir / "metrics.jsonl", workdir / "eval.json", *workdir.glob("samples/*")]
    return {str(file.relative_to(workdir)): file.read_text() for file in files}


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_two_processes_do_what_one_does(ended, folder):
    config, alone = tiny.config(**CHANGES), folder / "alone"
    loop.run(config, str(alone))
    use_modes(config, str(alone))
    ours, theirs = records(folder / "straight"), records(alone)
    assert ours.keys() == theirs.keys()
    assert ours.pop("eval.json") == theirs.pop("eval.json")
    for name in ("sampled.jsonl", "scored.jsonl"):
        ours[name], theirs[name] = (
            (run / name).read_text() for run in (folder / "straight", alone)
        )
    for name in theirs:
        for line, other in zip(lines(ours[name]), lines(theirs[name]), strict=True):
            assert line == {key: rounded(value) for key, value in other.items()}
    scores = [
        json.loads((folder / run / "eval_test.json").read_text()) for run in ("straight", "alone")
    ]
    assert scores[0] | {"model": ""} == scores[1] | {"model": ""}


def test_a_method_with_a_value_head_and_ratios_in_two_processes(ended, folder):
    loop.run(by_ppo(tiny.config(**CHANGES)), str(folder / "ppo_alone"))
    ours, theirs = (records(folder / name) for name in ("ppo", "ppo_alone"))
    assert json.loads(ours.pop("eval.json")) == json.loads(theirs.pop("eval.json"))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        for line, other in zip(lines(ours[name]), lines(theirs[name]), strict=True):
            assert line == {key: rounded(value) for key, value in other.items()}


def rounded(value):
    """Equal to floats that differ by the order in which devices' shares were summed."""
    numbers = value if isinstance(value, list) else [value]
    is_float = numbers and all(isinstance(number, float) for number in numbers)
    return pytest.approx(value, rel=1e-5, abs=1e-5) if is_float else value


def test_both_stop_at_what_is_not_finite(ended, folder):
    # `SCENES` would have said otherwise; here, what is left.
    workdir = folder / "not_finite"
    assert (workdir / workdirs.NONFINITE).exists() and not (workdir / "eval.json").exists()
    steps = [line["step"] for line in lines((workdir / "metrics.jsonl").read_text())]
    assert max(steps) == 2


def test_neither_other_weights_nor_a_copy_of_the_workdir_are_trained_with(ended, folder):
    # `SCENES` would have said otherwise. Nothing was begun, and the locks are given back.
    left = {name: [file.name for file in (folder / name).iterdir()] for name in ("mixed", "copy0")}
    assert left == {"mixed": ["config.json"], "copy0": []}
    assert not (folder / "copy1").exists()
    assert not list((folder / "straight").glob("lock-*"))


def test_one_stopped_then_one_killed_and_the_same_command_goes_on(ended, folder, flags):
    # SIGTERM to process 1 before the third step stopped both after it, where they agree. SIGKILL to
    # process 0 before the fifth, when the fourth's checkpoint is perhaps being written, takes the
    # coordination service away with it.
    (killed, _, _), (code, _, err) = ended
    assert (killed, code) == (-signal.SIGKILL, leaving.LOST), err
    assert err.splitlines()[-1] == leaving.LOST_SENTENCE
    assert "Traceback" not in err
    assert not (folder / "broken" / "eval.json").exists()
    workdir = f"--workdir={folder / 'broken'}"
    (code, out, err), (other_code, other_out, other_err) = pair(
        ["-c", PATIENT], folder / "second", workdir, *flags
    )
    assert (code, other_code) == (0, 0), err + other_err
    assert re.search("resuming at iteration 1, step [34]", err)
    assert records(folder / "broken") == records(folder / "straight")
    # Process 0 alone talks.
    assert "before " in out
    assert "before " not in other_out
    assert other_err == ""


def test_a_fault_of_all_is_told_once(ended, folder, flags):
    workdir = f"--workdir={folder / 'straight'}"
    (code, _, err), (other_code, _, other_err) = pair(
        ["-c", PATIENT], folder / "third", workdir, *flags, "--config.seed=3"
    )
    assert (code, other_code) == (2, 2), err + other_err
    assert "seed: 4 in the workdir, 3 now" in err
    assert other_err == ""


ENDINGS = """
import os, signal
from absl import app
import jax
import numpy as np
from hir_jax import cli
from hir_jax.devices import leaving, processes
from hir_jax.errors import UserError

leaving.GRACE, leaving.FAREWELL = 1, 3
processes.HEARTBEAT_SECONDS = 10 if HOW == "SIGKILL" else 600

def run(mode):
    mesh = jax.make_mesh((8,), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    array = processes.place({"a": np.arange(16)}, split)
    assert not array["a"].is_fully_addressable
    assert processes.fetch(array, mesh)["a"].tolist() == list(range(16))
    own = processes.index()
    assert processes.gather((own, "a")) == [[0, "a"], [1, "a"]]
    assert processes.on_first(lambda: own) == 0
    assert processes.shared_out(list("abc"), lambda item: item + str(own)) == ["a0", "b1", "c0"]
    for fault in (UserError("told"), ZeroDivisionError("told")):
        try:
            processes.on_first(lambda: raise_(fault))
            raise AssertionError("no fault")
        except (UserError, RuntimeError, ZeroDivisionError) as e:
            assert str(e) == "told"
            assert isinstance(e, UserError) == isinstance(fault, UserError)
    try:
        processes.shared_out([0, 1], lambda item: raise_(UserError("mine")) if item else item)
        raise AssertionError("no fault")
    except UserError as e:
        assert str(e) == "mine"
    try:
        processes.check_same({"weights": 1, "questions": own})
        raise AssertionError("no fault")
    except UserError as e:
        assert "found other things than process 0's:\\n  questions: on [1]\\nGive" in str(e)
    if HOW == "UserError" and own == 1:
        raise UserError("its disk is full")
    if HOW == "SIGKILL" and own == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if HOW == "abort" and own == 1:
        os.abort()
    processes.gather(None)

def raise_(error):
    raise error

cli.run = run
app.run(cli.main, flags_parser=cli.parse_flags)
"""


def test_a_fault_of_one_ends_the_other(tmp_path):
    program = ENDINGS.replace("HOW", "'UserError'")
    (code, _, err), (other_code, _, other_err) = pair(["-c", program], tmp_path)
    assert (code, other_code) == (2, 2), err + other_err
    said = "error: its disk is full"
    assert other_err.splitlines()[-1] == said
    assert err.splitlines()[-1] == f"error: process 1 has stopped, and so has this one: {said}"


def test_one_killed_is_missed_by_its_heartbeat(tmp_path):
    program = ENDINGS.replace("HOW", "'SIGKILL'")
    (code, _, err), (killed, _, _) = pair(["-c", program], tmp_path)
    assert (killed, code) == (-signal.SIGKILL, leaving.LOST), err
    assert leaving.LOST_SENTENCE in err
    assert "Traceback" not in err


def test_a_crash_of_one_is_not_taken_for_a_lost_process(tmp_path):
    program = ENDINGS.replace("HOW", "'abort'")
    (code, _, err), (crashed, _, crashed_err) = pair(["-c", program], tmp_path)
    assert (crashed, code) == (-signal.SIGABRT, 128 + signal.SIGABRT), err
    assert err.splitlines()[-1].startswith("error: process 1 has stopped, and so has this one: it ")
    assert leaving.LOST_SENTENCE not in err + crashed_err


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        (
            "--processes=3",
            "error: --processes: expected 2, as process 0 says and there are; found 3.",
        ),
        ("--mode=eval", "found other things than process 0's:\n  --mode: on [1]"),
        ("--config.sise=3", "process 1 has stopped, and so has this one: error: --config.sise:"),
        ("trian", "and so has this one: error: Expected flags only, found ['trian']"),
        ("--workdir=", "and so has this one: error: --workdir: expected a path, found nothing"),
    ],
)
def test_flags_that_must_be_the_same_are_told(tmp_path, flag, says):
    program = f"""
import sys
from absl import app
from hir_jax import cli
if "--process_id=1" in sys.argv:
    sys.argv.append("{flag}")
app.run(cli.main, flags_parser=cli.parse_flags)
"""
    (code, _, err), (other_code, _, other_err) = pair(["-c", program], tmp_path)
    assert (code, other_code) == (2, 2)
    assert says in err
    assert "Traceback" not in err + other_err


def test_an_abort_of_jax_while_it_joins_has_last_words():
    """As of a process whose number another has."""
    program = "from hir_jax.devices import leaving; leaving.explain_abort('a word', 2); {}"
    program = "import os; " + program.format("os.abort()")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "a word\n")


# One process --------------------------------------------------------------------------------------


def test_alone_nothing_is_sent_or_copied():
    assert not processes.many()
    assert (processes.count(), processes.index(), processes.is_first()) == (1, 0, True)
    record = (1, object())
    assert processes.gather(record)[0] is record
    assert processes.on_first(lambda: record) is record
    assert processes.shared_out([1, 2], lambda item: -item) == [-1, -2]
    mesh = sharding.make_mesh({"data": 8, "fsdp": 1, "tensor": 1})
    placed = processes.place(np.arange(8), sharding.batch_sharding(mesh))
    assert placed.sharding == sharding.batch_sharding(mesh)
    assert processes.replicate(placed, mesh) is placed
    assert processes.fetch(placed, mesh).tolist() == list(range(8))
    processes.check_same({"questions": 1})


@pytest.fixture
def second_of_three(monkeypatch):
    """This process as one of three; sets what `gather` gives, and collects what it is given."""
    for name, value in {"many": True, "count": 3, "index": 1}.items():
        monkeypatch.setattr(processes, name, lambda value=value: value)
    given = []

    def answer(*answers):
        left = list(answers)

        def gather(record, seconds=0.0):
            given.append(record)
            found = left.pop(0)
            return [found[0], record, found[1]]

        monkeypatch.setattr(processes, "gather", gather)
        return given

    return answer


RIGHT = [True, True, "d", 1.0, {}, {}]


def test_a_share_is_every_third_verdict(second_of_three):
    given = second_of_three(
        [
            {"done": [[True, True, "a", 0.7, {"short": True}, {"x": 0.7}], RIGHT], "fault": None},
            {"done": [[False, False, "", 0.0, {}, {}]], "fault": None},
        ]
    )
    judged = []

    def verifier(text, example):
        judged.append((text, example))
        return verify.Verdict(
            False, True, text, np.float64(0.1), {"short": False}, canonical=text.upper()
        )

    verdicts = judge(verifier, ["x", "y"], [["a", "b"], ["c", "d"]])
    assert judged == [("b", "x")]
    assert given == [{"done": [(False, True, "b", 0.1, {"short": False}, {}, "B")], "fault": None}]
    first = verify.Verdict(True, reward=0.7, facts={"short": True}, parts={"x": 0.7})
    second = verify.Verdict(False, reward=0.1, facts={"short": False})
    assert verdicts == [[first, second], [verify.UNREADABLE, verify.Verdict(True)]]
    assert [[verdict.read for verdict in own] for own in verdicts] == [["a", "b"], ["", "d"]]
    assert verdicts[0][1].canonical == "B"


def test_a_signal_to_another_stops_this_one_where_they_agree(second_of_three):
    fast, slow, stopped = [None, 0.1], [None, 2.0], [signal.SIGTERM, 2.0]
    given = second_of_three([fast, fast], [fast, slow], [slow, stopped], [None, signal.SIGTERM])
    interrupts = Interrupts()
    # Asked at the first step, after twice as many, and then after 5 s by the slowest: 2 s in two
    # steps are 5 s in five, of which it is four, twice as many as before.
    due = [interrupts.due(jnp.float32(0)) for _ in range(1 + 2 + 4)]
    assert due == [False] * 6 + [True]
    assert len(given) == 3
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        interrupts.check()


def test_processes_whose_steps_are_slow_ask_each_other_at_each(second_of_three, monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)
    slow = [[None, 0.1], [None, 30.0]]
    given = second_of_three(slow, slow, slow)
    interrupts = Interrupts()
    assert not any(interrupts.due(step) for step in ("first", "second", "third"))
    assert len(given) == 3
    assert waited == [None, "first", "second"]  # so the device has always one more step to do


def test_only_the_first_shows_progress_and_writes(second_of_three, tmp_path, capsys):
    with terminal.progress(3, "work", "thing") as bar:
        bar.update(3)
    writer = metrics.writer(tmp_path / "run", 0)
    writer.write(1, {"loss": 1.0})
    writer.timing(1, {"seconds": 1.0})
    writer.close()
    with open_output(str(tmp_path / "out")) as out:
        out.write("text")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("token", [None, "of the run that the folder was copied from"])
def test_a_workdir_of_its_own_or_a_copy_is_no_shared_one(
    second_of_three, tmp_path, monkeypatch, token
):
    monkeypatch.setattr(lock, "SEEN_SECONDS", 0)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0)
    if token is not None:
        (tmp_path / "lock-1.json").write_text(json.dumps({"token": token}))
    second_of_three([{"value": ["lock-1.json", "of this run"]}, {}], [True, True])
    with (
        pytest.raises(UserError, match=r"lock-1\.json, .* is not seen by \[1\]: .* or a copy"),
        lock.held(str(tmp_path)),
    ):
        pass


def test_free_memory_is_that_of_the_process_with_the_least(second_of_three):
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 10**11, "bytes_in_use": 0}

    class Mesh:
        local_devices = (Device(),)

    second_of_three([10**11, 10**6], [10**11, 10**11])
    assert [free_memory(Mesh()) for _ in range(2)] == [10**6, 10**11]
