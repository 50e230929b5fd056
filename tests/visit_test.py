"""A visit to a device, tried on CPU devices: a tiny model, and stages that fail in every way."""

import json
import pathlib
import subprocess
import sys
import time

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.profiler import ProfileData

from benchmarks import limits, visit
from benchmarks.visits import (
    determinism,
    device,
    kernels,
    page,
    parity,
    plan,
    resumption,
    sampling,
    stages,
)
from benchmarks.visits import training as training_stage
from hir_jax.run import settings
from tests import docs_test


def stage(name, seconds=60.0, least=0.0):
    return stages.Stage(name, "", seconds, "tiny", least=least)


def has_ended(pid):
    """Whether a process is no more, or waits for whoever adopted it to notice."""
    for _ in range(100):
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


# Stages that fail -----------------------------------------------------------------------------


def test_what_fails_takes_nothing_else_away_and_says_why(tmp_path):
    """A stage that raises, one killed, one too slow with a child of its own, and one after them."""
    noting = (
        "import os, signal, subprocess, sys, time;"
        f"file = open({str(tmp_path)!r} + '/' + sys.argv[-1] + '.jsonl', 'w', 1);"
        'file.write(\'{"first": 1}\\n{"cut\')\n'
    )
    ends = {
        "raises": "raise ValueError('no such kernel')",
        "dies": "os.kill(os.getpid(), signal.SIGKILL)",
        "stays": "print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)",
        "ends": "pass",
    }
    code = noting + "\n".join(f"if sys.argv[-1] == {name!r}: {what}" for name, what in ends.items())
    run = visit.Processes(tmp_path, (sys.executable, "-c", code))
    wanted = [stage("raises"), stage("dies"), stage("stays", 8.0), stage("ends")]
    wanted.append(stage("late", least=1e6))
    found = visit.visit(wanted, 60.0, run, tmp_path)
    assert found == json.loads((tmp_path / "visit.json").read_text())
    outcomes = found["stages"]
    assert outcomes["raises"]["fault"] == "ended with 1: ValueError: no such kernel"
    assert outcomes["stays"]["fault"] == "stopped after 8 s, which was all its time"
    assert outcomes["ends"]["fault"] == ""
    assert "s were left, and it takes 1000000" in outcomes["late"]["fault"]
    assert outcomes["late"]["found"] == {}
    assert outcomes["dies"]["fault"] == "killed by SIGKILL: it said nothing"
    for name in ends:
        assert outcomes[name]["found"] == {"first": 1}
    assert has_ended(int((tmp_path / "stays.log").read_text()))
    text = (tmp_path / "visit.md").read_text()
    assert "1 of 5 stages whole" in text
    assert "| raises |" in text and "ValueError: no such kernel" in text


def test_a_stage_whose_own_line_is_broken_is_no_end_of_the_visit(tmp_path):
    note = stages.noting(tmp_path, "one two")
    note(a=1, b=2)
    note(b=3)
    with stages.file_of(tmp_path, "one two").open("a") as file:
        file.write('{"c": ')
    assert stages.found(tmp_path, "one two") == {"a": 1, "b": 3}
    assert stages.found(tmp_path, "another") == {}


# Stages with a tiny model ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def visited(tmp_path_factory):
    """(What stages with a tiny model found, the folder of what was compiled)."""
    scratch = tmp_path_factory.mktemp("visit")
    cached = {
        "jax_compilation_cache_dir": str(scratch / "cache"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in cached}
    works = {
        "device": device,
        "plan": plan,
        "sampling tiny": sampling,
        "training tiny": training_stage,
        "determinism": determinism,
    }
    table = {each.name: each for each in stages.table(("tiny",))}
    try:
        for name, value in cached.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setitem(limits.SIZES, "cpu", (8, 64))
            for name, work in works.items():
                work.run(
                    stages.Visit(scratch, table[name], ("tiny",)), stages.noting(scratch, name)
                )
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    return {name: stages.found(scratch, name) for name in works}, scratch / "cache"


def test_sampling_is_measured(visited):
    found, _ = visited
    equal, ending = (found["sampling tiny"][name] for name in ("equal", "ending"))
    assert equal["mean_length"] == 8
    assert equal["occupancy"] == 1
    assert 1 < ending["mean_length"] < 8
    assert equal["share_of_roofline"] > 0
    assert equal["tokens_per_second"] == equal["outputs"] * 8 / equal["seconds"]
    assert equal["rows"] == 8 * 8  # 8 on each of 8 devices


def test_training_is_measured(visited):
    found, _ = visited
    step = found["training tiny"]["step"]
    # A prompt, and an output of it behind.
    assert (step["examples"], step["source"], step["target"]) == (8, 24, 8)
    # Of 16 rows: 3 passes, each multiplying and adding each weight once a token.
    encoder = 2 * (4 * 64 * 64 + 3 * 64 * 128) + 2 * 2 * 64 * 64
    decoder = 2 * (6 * 64 * 64 + 3 * 64 * 128) + 64 * 512
    flops = 3 * 2 * 16 * (24 * encoder + 8 * decoder)
    assert step["tflops"] * step["seconds"] == pytest.approx(flops / 1e12)


def test_what_is_planned_is_what_is_measured(visited):
    """The stages that measure find in the cache what the plan has compiled: it is one program."""
    found, cache = visited
    for program in ("decode_pool", "step"):
        assert len({*cache.glob(f"jit_{program}-*-cache")}) == 1, program
    for program in ("sampling tiny", "training tiny"):
        planned = found["plan"][program]
        assert planned["fits"] and planned["predicted_gb"] > 0
        seen = found[program]["kernels"]
        assert seen["kernels_a_step"] > 10
        assert seen["longest"] == sorted(seen["longest"], key=lambda each: -each["ms"])


def test_the_same_again_is_the_same(visited):
    found, _ = visited
    for work in ("sampling", "training"):
        again = found["determinism"][work]
        assert again["equal"], again
        assert again["before"] == found[f"{work} tiny"]["digest"]


def test_the_page_shows_what_was_found(visited):
    found, _ = visited
    done = {name: {"found": each, "seconds": 1.0, "fault": ""} for name, each in found.items()}
    text = page.page({"seconds": 5.0, "stages": done})
    assert "5 of 5 stages whole" in text and "Not whole" not in text
    for title in ("Sampling", "Training", "Memory", "Kernels a step", "A second process"):
        assert f"\n## {title}" in text
    tokens = found["sampling tiny"]["equal"]["tokens_per_second"]
    assert f"{tokens:,.0f}" in text
    assert "NO" not in text


# Parity ---------------------------------------------------------------------------------------


def test_parity_is_seen_and_so_is_the_lack_of_it(monkeypatch):
    found = parity.compare("v1_1", parity.HIGHEST)
    assert found["within"] and found["greedy_tokens"] == 1
    load = parity.differences.load

    def wrong(*args):
        case = load(*args)
        case.params["lm_head"] *= 1.01
        return case

    monkeypatch.setattr(parity.differences, "load", wrong)
    assert not parity.compare("v1_1", parity.HIGHEST)["within"]


# Traces ---------------------------------------------------------------------------------------


def profile(planes):
    """A `ProfileData` of {plane: {line: [(event, operation, nanoseconds)]}}."""
    text = ""
    for plane, lines in planes.items():
        events = [event for each in lines.values() for event in each]
        names = list(dict.fromkeys(name for name, _, _ in events))
        written = ""
        for line, own in lines.items():
            written += f'lines {{ name: "{line}" '
            for name, operation, duration in own:
                stat = f'stats {{ metadata_id: 1 str_value: "{operation}" }}' if operation else ""
                at = names.index(name) + 1
                written += f"events {{ metadata_id: {at} duration_ps: {duration * 1000} {stat} }} "
            written += "} "
        for i, name in enumerate(names, 1):
            written += f'event_metadata {{ key: {i} value {{ id: {i} name: "{name}" }} }} '
        written += 'stat_metadata { key: 1 value { id: 1 name: "hlo_op" } } '
        text += f'planes {{ name: "{plane}" {written} }} '
    return ProfileData.from_serialized_xspace(ProfileData.text_proto_to_serialized_xspace(text))


def test_kernels_of_a_gpu_are_those_of_its_streams():
    """Two steps: a product and a sum in each, and three copies besides."""
    stream = [("gemm", "dot.1", 400), ("loop_add", "fusion.2", 100)] * 2
    stream += [("memcpy", "copy.3", 50)] * 3
    lines = {"Stream #7(Compute)": stream, "XLA Modules": [("jit_step", "", 9999)]}
    found = kernels.summed(profile({"/host:CPU": {}, "/device:GPU:0": lines}), steps=2)
    assert (found["kernels_a_step"], found["kernels"]) == (2, 7)
    assert found["ms_a_step"] == pytest.approx(500e-6)
    assert [each["kernel"] for each in found["longest"]] == ["gemm", "loop_add", "memcpy"]
    assert found["longest"][0]["share"] == pytest.approx(800 / 1150)


def test_what_a_cpu_holds_in_a_loop_is_not_counted_twice():
    line = [("while.1", "while.1", 900), ("dot.2", "dot.2", 400), ("python", "", 5000)]
    found = kernels.summed(profile({"/host:CPU": {"thread": line}}), steps=1)
    assert (found["kernels"], found["ms"]) == (1, pytest.approx(400e-6))


def test_a_trace_without_kernels_says_what_it_has():
    with pytest.raises(RuntimeError, match=r"found none in its lines .*Steps"):
        kernels.summed(profile({"/device:TPU:0": {"Steps": [("1", "", 5)]}}), steps=1)


# The script -----------------------------------------------------------------------------------


def test_the_script_takes_a_python_with_jax_and_brings_its_wheels(tmp_path):
    """The first named has no JAX; the second is told to install from the folder alone."""
    for name, body in {
        "without": "exit 1",
        "with": 'echo "$*" | sed "s#/tmp/[^ ]*#SITE#"; [ "$1" = -m ] && echo "path $PYTHONPATH"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\nexit 0\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "a.whl").touch()
    script = visit.ROOT / "benchmarks" / "visit.sh"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": "without with"}

    def run(**more):
        given = {"env": environment | more, "capture_output": True, "text": True}
        return subprocess.run([script, "--out=a b"], check=False, **given)

    assert run().stdout.splitlines()[0] == "-m benchmarks.visit --out=a b"
    installs, _, visits, path = run(WHEELS=str(tmp_path)).stdout.splitlines()
    assert installs.startswith("-m pip install --quiet --no-index --no-deps --target SITE")
    assert visits == "-m benchmarks.visit --out=a b" and len(path) > len("path ")
    refused = run(PYTHON="without")
    assert refused.returncode == 2 and "expected a Python that imports jax" in refused.stderr


def test_the_run_that_is_killed_is_one_that_main_takes(monkeypatch):
    config = docs_test.config_of([*resumption.FLAGS], monkeypatch)
    settings.check(config)
    assert (config.iterations, config.trackers) == (1, "")
