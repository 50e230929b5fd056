"""The command line: what goes wrong is one sentence and an exit code, never a traceback."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import ml_collections
import numpy as np
import pytest
import safetensors.numpy

from configs import common
from hir_jax import arguments, cli
from hir_jax.commands import diagnose
from hir_jax.devices import compiling
from hir_jax.errors import UserError
from hir_jax.planning import plan
from hir_jax.run import configs, lock, loop
from tests import tiny

pytestmark = pytest.mark.usefixtures("cache")

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def call(monkeypatch, capsys, cache, tmp_path):
    """Calls main.py's functions as its last lines do; gives exit code, stdout and stderr."""

    def run(*arguments, config="tests/tiny.py", model=None):
        argv = ["main.py", f"--config={config}", f"--compilation_cache={cache}"]
        argv += [f"--config.model.path={model or tiny.folder()}"]
        argv += [] if "--workdir" in str(arguments) else [f"--workdir={tmp_path / 'run'}"]
        argv += [argument for argument in arguments if argument != "--workdir="]  # none, that is
        reset_flags()
        monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for fields
        monkeypatch.chdir(ROOT)
        try:
            cli.main(cli.parse_flags(argv))
            code = 0
        except SystemExit as e:
            code = e.code
        return code, *capsys.readouterr()

    yield run
    reset_flags()


def reset_flags():
    for name in list(cli.FLAGS):
        if name.startswith("config."):
            delattr(cli.FLAGS, name)
    names = ("mode", "workdir", "input", "output", "config", "compilation_cache")
    places = ("distributed", "coordinator", "processes", "process_id", "topology", "programs")
    places += ("questions", "price", "confirm")
    for name in (*names, *places):
        cli.FLAGS[name].unparse()


@pytest.fixture
def refused(call):
    """Calls, expects code 2 and a sentence that has these parts, on stderr alone."""

    def run(*arguments, says, **changes):
        code, out, err = call(*arguments, **changes)
        assert code == 2, err
        assert out == ""
        assert "Traceback" not in err
        sentence = err[err.index("error: ") :]
        for part in [says] if isinstance(says, str) else says:
            assert part in sentence
        return sentence

    return run


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(tiny.folder(), tmp_path / "model")


def write(file, *records):
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


# A run that works ---------------------------------------------------------------------------------


def test_train_prints_the_table_and_again_without_computing(call, monkeypatch):
    code, table, _ = call("--config.iterations=0")
    assert code == 0
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["before", "after", "after:"]
    monkeypatch.setattr(loop.Job, "_evaluate", None)
    assert call("--config.iterations=0")[:2] == (0, table)


def test_a_run_keeps_a_report_that_can_be_made_anew(call, tmp_path):
    page = tmp_path / "run" / "report.html"
    assert call("--config.iterations=0", "--config.report.every=1")[0] == 0
    assert page.stat().st_size > 50_000
    assert call("--config.iterations=0")[0] == 0  # as it was, and no run of another config
    page.unlink()
    code, out, _ = call("--mode=report", f"--workdir={tmp_path / 'run'}")
    assert (code, out.split(" (")[0]) == (0, str(page))
    assert page.exists()


def test_sigterm_exits_143_and_says_how_to_go_on(call, monkeypatch):
    measure = loop.Job._measure

    def signalled(job):
        signal.raise_signal(signal.SIGTERM)
        return measure(job)

    monkeypatch.setattr(loop.Job, "_measure", signalled)
    code, out, err = call()
    assert code == 143
    assert out == ""
    assert err.splitlines()[-1] == "stopped by SIGTERM; give the same command to go on"


def test_a_process_in_training_stops_at_sigterm(tmp_path, cache):
    command = [sys.executable, "main.py", "--config=tests/tiny.py", f"--workdir={tmp_path}"]
    command += [f"--config.model.path={tiny.folder()}", f"--compilation_cache={cache}"]
    command += ["--config.train.epochs=2000"]
    environment = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    metrics = tmp_path / "metrics.jsonl"
    with open(tmp_path / "stderr", "w+") as err:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=err)
        try:
            until = time.monotonic() + 240
            while not (metrics.exists() and '"phase": "train"' in metrics.read_text()):
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
            process.terminate()
            assert process.wait(60) == 143
        finally:
            process.kill()
        err.seek(0)
        said = err.read()
    assert said.splitlines()[-1] == "stopped by SIGTERM; give the same command to go on"
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "search"), [((), True), (("--config.mesh.data=4", "--config.mesh.fsdp=2"), False)]
)
def test_plan_prints_what_it_finds_for_the_mesh_given_or_any(call, monkeypatch, flags, search):
    asked = []
    monkeypatch.setattr(plan, "run", lambda config, *rest: asked.append(rest) or "a plan")
    call("--mode=plan", "--topology=v5e:2x4", "--programs=sampling", *flags)
    call("--mode=plan", "--questions=70", "--price=1.2", "--noconfirm", *flags)
    programs = ["training", "sampling"]
    assert asked == [
        ("v5e:2x4", search, ["sampling"], None, None, True),
        (None, search, programs, 70, 1.2, False),
    ]


def test_programs_for_devices_that_are_not_here_are_not_kept(call, monkeypatch):
    told = []

    def update(name, value):
        if name == "jax_compilation_cache_dir":  # not what packages set as they are imported
            told.append(value)

    monkeypatch.setattr(plan, "run", lambda *rest: "a plan")
    monkeypatch.setattr(jax.config, "update", update)
    monkeypatch.setattr(compiling, "keep", told.append)
    call("--mode=plan", "--topology=v5e:2x4", "--compilation_cache=programs")
    assert told == ["programs"]  # seconds that they took
    call("--mode=plan", "--compilation_cache=programs")
    assert told[1:] == ["programs", "programs"]
    call("--mode=plan", "--compilation_cache=~nobody_of_this_name/programs")  # nor in a folder "~"
    assert told[3:] == []


def test_diagnose_prints_its_page_with_a_file_beside_or_without(call, monkeypatch):
    monkeypatch.setattr(diagnose, "diagnose", lambda config, *given: f"a page of {given}")
    assert call("--mode=diagnose", "--workdir=runs/a")[1] == "a page of ('runs/a', None)\n"
    given = "--mode=diagnose", "--workdir=runs/a", "--output=a.json"
    assert call(*given)[1] == "a page of ('runs/a', 'a.json')\n"


# Flags and config ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--config.nonsense=1", "--config.nonsense: the config has no field 'nonsense'"),
        ("--nonsense=1", "Unknown command line flag 'nonsense'"),
        # Only before JAX has looked for devices can a process join others.
        ("--distributed", "Expected to join the other processes by itself, found a fault: coord"),
    ],
)
def test_flags_refused_in_a_process_of_its_own(argument, says):
    done = subprocess.run(
        [sys.executable, "main.py", argument], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {says}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--mode=eval", "--workdir=/runs/a"], "configs/workdir.py:/runs/a"),
        (["--workdir", "/runs/a", "-mode", "score"], "configs/workdir.py:/runs/a"),
        (["--mode=diagnose", "--workdir=/runs/a"], "configs/workdir.py:/runs/a"),
        (["--mode=eval"], arguments.DEFAULT_CONFIG),
        (["--workdir=/runs/a"], arguments.DEFAULT_CONFIG),
        (["--mode=train", "--workdir=/runs/a"], arguments.DEFAULT_CONFIG),
    ],
)
def test_modes_of_a_run_begin_with_its_config(given, expected):
    assert arguments._default_config(["main.py", *given]) == expected


def test_configs_that_come_with_us_are_found_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours, own = str(ROOT / "configs" / "jsonl.py"), "--config.model.path=configs/jsonl.py"
    given = ["--config=configs/jsonl.py:a", "--config", "configs/jsonl.py", own, "configs/jsonl.py"]
    found = [f"--config={ours}:a", "--config", ours, own, "configs/jsonl.py"]
    assert arguments._shipped_configs(given) == found


def test_faulty_flags(refused):
    refused("--config.data.taks=x", says=["--config.data.taks", "'taks'", "mean 'task'?"])
    refused("--config.train.seed=1", says="--config.train.seed: the config has no field 'seed'")
    refused("--config.nomodel.x=1", says="--config.nomodel.x: the config has no field 'nomodel'")
    refused("--config.seed=abc", says=["--config.seed=abc", "invalid literal for int()"])
    refused("--config.loss.smoothing=much", says=["--config.loss.smoothing=much", "float"])
    refused("--mode=fly", says="--mode=fly: value should be one of <train|check|")
    refused("--config.algorithm.x=1", says="--config.algorithm.x: expected fields as in")
    refused("--config.=", says="--config.: expected fields as in")
    refused("--mode=plan", "--topology=v9:4x4", says=["--topology: expected", "'v9:4x4'"])
    refused("--mode=plan", "--programs=tea", says=["--programs: expected", "'tea'"])
    refused("--workdri=x", says="Unknown command line flag 'workdri'")
    refused("train", says="Expected flags only, found ['train']")
    refused("--workdir", "", says="--workdir: expected a path, found nothing")
    refused("--mode=eval", "--workdir", "", says="--workdir: expected a path, found nothing")


def test_help_lists_modes_and_flags_and_is_no_fault():
    program = [sys.executable, "main.py", "--help"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("--mode=check|diagnose|", "--workdir: train: where the run lives", "--config:"):
        assert part in done.stdout


def test_config_files_that_do_not_load(refused):
    refused(config="configs/none.py", says=["configs/none.py", "No such file"])
    refused(config="configs/flan_t5.py:huge", says="expected a size of small, ")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("config.sample.temprature = 0.5", "did you mean 'sample.temperature'?"),
        ("config.iteration = 3", "iteration: there is no such field; did you mean 'iterations'?"),
        ("config.seed = None", "seed: expected a value, found none"),
        ("del config.seed", "seed: expected a value, found none"),
        ("config.seed = 'x'", "mine.py:5: Could not override field 'seed'"),
        ("{}['model']", "mine.py:5: KeyError: 'model'"),
        (
            "raise ValueError('mine.py: expected tea:\\n  found none')",
            "expected tea:\n  found none",
        ),
        ("config = {}", "--config: expected a file whose get_config returns a config, found"),
        ("return", "--config: expected a file whose get_config returns a config, found"),
        ("def", "--config: invalid syntax (mine.py, line 5)"),
    ],
)
def test_faults_of_ones_own_config(refused, tmp_path, lines, says):
    head = "from configs import common\n\ndef get_config():\n    config = common.get_config()"
    (tmp_path / "mine.py").write_text(f"{head}\n    {lines}\n    return config\n")
    refused("--mode=plan", config=tmp_path / "mine.py", says=says)


def test_a_config_that_ends_the_program_is_a_fault(tmp_path):
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(0)\n")
    program = [sys.executable, "main.py", f"--config={tmp_path / 'mine.py'}"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: --config: {tmp_path}/mine.py:2: SystemExit: 0\n"


def test_ones_own_config_has_a_function_and_may_have_sections(refused, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("seed = 1\n")
    refused(config=file, says="--config: expected a file whose get_config returns a config, found")
    with pytest.raises(UserError, match="expected a file with a function get_config"):
        configs.make(str(file), {})
    with pytest.raises(UserError, match="expected get_config to return a ConfigDict, found dict"):
        configs.check_fields({}, "mine.py")
    made = common.get_config()
    made.mine = ml_collections.ConfigDict({"pull": 2.0})
    made.instruction.facts.short = ("Be short.", "Be long.")
    configs.check_fields(made, "mine.py")


def test_fields_that_only_another_config_has_can_be_set(refused):
    # Past the flags: the sentence is that of the mode.
    changes = {"config": "configs/pretrain.py", "says": "--mode=sample needs --input and --output"}
    refused("--mode=sample", "--config.pretrain.steps=3", **changes)


def test_faulty_values_are_all_listed_before_anything_is_written(refused, tmp_path):
    refused(
        "--config.algorithm=pppo",
        "--config.model.dtype=float16",
        "--config.train.log_every=0",
        says=["algorithm: expected one of hir,", "overflows in float16", "log_every: expected 1"],
    )
    assert not (tmp_path / "run").exists()


def test_none_by_flag_is_none(call, monkeypatch):
    asked = []
    monkeypatch.setattr(plan, "run", lambda config, *rest: asked.append(config))
    flags = ("--config.sample.dtype=None", "--config.train.learning_rate=None")
    before = ("--config.sample.dtype=bfloat16", "--config.sample.top_k=None")
    call("--mode=plan", *before, *flags, "--config.sample.top_k=7")
    assert (asked[0].sample.dtype, asked[0].train.learning_rate) == (None, None)
    assert asked[0].sample.top_k == 7  # what is said last counts


def test_none_where_a_value_is_needed(refused):
    refused("--config.seed=None", says="--config.seed: expected a value, found None")
    refused("--config.nonsense=None", says="the config has no field 'nonsense'")


@pytest.mark.parametrize(
    ("mode", "flag"),
    [("train", "workdir"), ("export", "output"), ("train", "config.data.path")],
)
def test_links_to_nothing(refused, tmp_path, mode, flag):
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    says = f"--{flag}: '{link}' is a link to 'nowhere', which is not there"
    refused(f"--mode={mode}", f"--{flag}={link}", says=says)
    assert not (tmp_path / "nowhere").exists()


def test_paths_that_are_no_utf8_are_refused(refused, tmp_path, monkeypatch):
    flag = f"--config.model.path={tmp_path}/" + "x\udcff"  # as the byte FF comes in
    refused(flag, says=["--config.model.path: expected a path in UTF-8", r"x\udcff'"])
    monkeypatch.setattr(os, "fsencode", lambda path: path.encode("latin-1"))  # another locale
    refused("--workdir=café", says="--workdir: expected a path in UTF-8")


def test_check_prints_its_page(call, tmp_path):
    code, page, _ = call("--mode=check", f"--output={tmp_path / 'found.json'}")
    assert code == 0
    assert page.startswith("split ")
    assert json.loads((tmp_path / "found.json").read_text())["splits"]["all"]["questions"] > 10


@pytest.mark.parametrize("mode", ["sample", "score", "verify", "export"])
def test_modes_name_the_flags_they_need(refused, mode):
    refused(f"--mode={mode}", says=f"--mode={mode} needs --")


def test_flags_of_many_processes_go_together(refused):
    says = "--coordinator, --processes and --process_id go together; found no --coordinator"
    refused("--processes=2", "--process_id=0", says=says)
    refused("--distributed", "--mode=export", "--output=out", says="--mode=export runs in one")
    refused("--processes=0", says="--processes=0")
    place = ("--coordinator=localhost", "--processes=2", "--process_id=2")
    refused(*place, says=["--coordinator: expected HOST:PORT", "'localhost'"])
    refused("--coordinator=localhost:1", *place[1:], says="--process_id: expected 0 to 1")
    faulty = ("--coordinator=localhost:1", "--processes=2", "--process_idd=1")
    refused(*faulty, says="Unknown command line flag 'process_idd'")


ABSENT = """
from hir_jax import cli
from hir_jax.devices import processes

processes.TELL_SECONDS, processes.START_SECONDS = 1, 2
cli.app.run(cli.main, flags_parser=cli.parse_flags)
"""


def test_processes_that_do_not_come_are_told_of_while_they_are_waited_for():
    place = ["--coordinator=localhost:1", "--processes=2", "--process_id=1"]
    done = subprocess.run(
        [sys.executable, "-c", ABSENT, *place], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "waiting for the other processes to join at localhost:1, for 1 s of 2" in done.stderr
    assert "found a fault: not all have come within 2 s." in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_that_do_not_go_together(refused):
    refused(
        "--config.train.batch_size=12", says=["train.batch_size: expected a multiple of 8", "12"]
    )
    refused("--config.mesh.data=3", says=["config.mesh", "the number of devices, 8", "data=3"])
    refused(
        "--config.loss.contrastive=in_batch",
        "--config.train.accumulation=2",
        "--config.train.batch_size=16",
        says="in_batch",
    )


# Model --------------------------------------------------------------------------------------------


def test_no_model_folder(refused):
    refused(model="./nowhere", says=["model.path", "'./nowhere'"])


def test_a_file_that_torch_never_wrote(refused, model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    refused(model=model, says=["pytorch_model.bin: expected a whole file of torch.save"])


def test_truncated_weights(refused, model):
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    refused(model=model, says=["model.safetensors: expected a whole safetensors file", "damaged"])


def test_weights_that_do_not_fit_are_all_listed(refused, model):
    weights = safetensors.numpy.load_file(model / "model.safetensors")
    del weights["encoder.final_layer_norm.weight"]
    del weights["decoder.final_layer_norm.weight"]
    weights["shared.weight"] = np.zeros((64, 8), np.float32)
    weights["extra.weight"] = np.zeros(1, np.float32)
    safetensors.numpy.save_file(weights, model / "model.safetensors")
    faults = [
        "4 faults",
        "misshapen: shared.weight: expected (64, 16), found (64, 8)",
        "missing: encoder.final_layer_norm.weight",
        "missing: decoder.final_layer_norm.weight",
        "unknown: extra.weight",
    ]
    refused(model=model, says=faults)


def test_a_fault_of_the_model_can_be_mended_in_the_same_workdir(refused, call):
    refused(model="./nowhere", says="model.path")
    assert call("--config.iterations=0")[0] == 0


# Data ---------------------------------------------------------------------------------------------

JSONL = ("--config.data.source=jsonl", "--config.data.task=")


def test_an_unknown_task(refused):
    refused("--config.data.task=chess", says=["'chess'", "boolean_expressions"])


def test_faulty_lines_of_questions(refused, tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "a", "answer": "b"}\n{"question":\n{"question": "a"}\n')
    faults = ["questions.jsonl: 2 faults", "line 2: malformed JSON", 'line 3: missing "answer"']
    refused(*JSONL, f"--config.data.path={file}", says=faults)


def test_a_question_whose_answer_is_no_option(refused, tmp_path):
    question = {"question": "a", "options": ["b", "c"], "answer": "d"}
    file = write(tmp_path / "questions.jsonl", question)
    says = "line 1: the answer 'd' is not among the options"
    refused(*JSONL, f"--config.data.path={file}", says=says)


def test_no_training_questions(refused, tmp_path):
    file = write(tmp_path / "test.jsonl", {"question": "a", "answer": "True"})
    refused(*JSONL, f"--config.data.test_path={file}", says=["to train on", "'train': 0"])
    (tmp_path / "empty.jsonl").touch()
    refused(*JSONL, f"--config.data.path={tmp_path / 'empty.jsonl'}", says="has no examples")


def test_a_field_that_is_set_but_not_read(refused, tmp_path):
    file = write(tmp_path / "questions.jsonl", {"question": "a", "answer": "True"})
    says = ["not read", "size: it is for source generated or reasoning_gym, not 'jsonl'"]
    refused(*JSONL, f"--config.data.path={file}", "--config.data.size=20", says=says)
    refused("--config.data.test_fraction=0.3", says="test_fraction=0.2")


def test_the_same_tokens_on_two_sides(refused, tmp_path):
    # The tokenizer knows neither word.
    train, test = (
        write(tmp_path / f"{w}.jsonl", {"question": w, "answer": "True"}) for w in ("猫", "犬")
    )
    paths = (f"--config.data.path={train}", f"--config.data.test_path={test}")
    says = ["1 prompts of one side are", "in train", "in test: '猫' and '犬'"]
    refused(*JSONL, *paths, "--config.data.dev_fraction=0", says=says)


def test_prompts_that_are_too_long(refused):
    report = ["10 of 20 prompts", "max_source_tokens=14", "the longest, 'boolean_expressions/"]
    refused("--config.data.max_source_tokens=14", says=report)
    drop = "--config.data.too_long=drop"
    refused("--config.data.max_source_tokens=5", drop, says="20 of 20 prompts")
    refused("--config.data.too_long=cut", says="data.too_long: expected one of error, drop")


def test_answers_that_sft_cannot_train_on_whole(refused):
    changes = ("--config.algorithm=sft", "--config.sample.max_new_tokens=1")
    refused(*changes, says=["12 of 12 training answers", "max_new_tokens=1"])


def test_verifiers(refused):
    refused("--config.verifier=taste", says=["Unknown verifier 'taste'", "exact"])
    refused("--config.verifier=no.module:f", says=["importing the module 'no.module' failed"])
    refused("--config.verifier=tests.tiny:nothing", says="has no function 'nothing'")
    refused("--config.verifier=choice", says="Verifier 'choice' expects options")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("verifier", "my_code:judge"),
        ("verifier", "exact,final:my_code:judge"),
        ("algorithm", "my_code:Method"),
    ],
)
def test_code_that_a_workdir_names_runs_only_where_a_flag_names_it(
    refused, tmp_path, monkeypatch, field, value
):
    (tmp_path / "my_code.py").write_text("raise SystemExit('the code ran')")
    monkeypatch.syspath_prepend(tmp_path)
    config = tiny.config().to_dict() | {field: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    file = write(tmp_path / "in.jsonl", {"question": "a", "answer": "b", "output": "b"})
    flags = [f"--workdir={tmp_path}", f"--input={file}", f"--output={tmp_path / 'out'}"]
    of_workdir = {"config": f"configs/workdir.py:{tmp_path}"}
    says = [f"{tmp_path}/config.json asks for code", f"add --config.{field}={value}"]
    for mode in ("verify", "eval", "sample", "diagnose"):
        refused(f"--mode={mode}", *flags, says=says, **of_workdir)
    named = f"--config.{field}={value}"
    refused("--mode=verify", named, *flags, says="SystemExit: the code ran", **of_workdir)


# Workdir, input and output ------------------------------------------------------------------------


def test_the_workdir_of_another_config(call, refused):
    assert call("--config.iterations=0")[0] == 0
    sentence = refused(
        "--config.iterations=0",
        "--config.seed=3",
        "--config.train.batch_size=16",
        says=["seed: 4 in the workdir, 3 now", "train.batch_size: 8 in the workdir, 16 now"],
    )
    assert len(sentence.splitlines()) == 4
    # But where the questions are put to use no other is computed.
    code, _, _ = call("--config.iterations=0", "--config.mesh.fsdp=2", "--config.checkpoint.keep=3")
    assert code == 0


def test_a_workdir_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").touch()
    refused(f"--workdir={tmp_path / 'file' / 'run'}", says="--workdir: cannot write to")


def test_a_file_of_a_workdir_that_cannot_be_opened(refused, tmp_path):
    """As where it is another user's, which does not stop root; a folder in its place does."""
    (tmp_path / "run" / "metrics.jsonl").mkdir(parents=True)
    refused(says=f"{tmp_path}/run/metrics.jsonl: cannot be opened or made: Is a directory.")


def test_a_workdir_that_a_run_is_at_work_in(call, refused, tmp_path):
    assert call("--config.iterations=0")[0] == 0
    with lock.held(str(tmp_path / "run")):
        says = [f"{tmp_path / 'run'} is held by process {os.getpid()} of", "another --workdir"]
        refused("--config.iterations=0", says=says)
        assert call("--mode=eval")[0] == 0  # which only reads it
    assert call("--config.iterations=0")[0] == 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--workdir=gs://bucket/run"],
        ["--mode=eval", "--workdir=gs://bucket/run"],
        ["--mode=export", "--workdir=", "--output=s3://bucket/out"],
        ["--workdir=run", "--config.data.tfds_dir=gs://bucket/tfds"],
    ],
)
def test_buckets(refused, flags, tmp_path):
    name, _, bucket = flags[-1].partition("=")
    refused(*flags, says=[f"{name}: expected a path of a file system, found {bucket!r}", "copy"])
    assert not list(ROOT.glob("gs:*")) + list(ROOT.glob("s3:*"))


def test_a_full_disk_is_one_sentence(refused, tmp_path):
    # Where all that is written is refused for want of room.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "timings.jsonl").symlink_to("/dev/full")
    sentence = refused("--config.iterations=1", says=[str(tmp_path / "run"), "No space left on"])
    assert len(sentence.splitlines()) == 1


def test_a_workdir_without_a_run(refused):
    for mode in (["--mode=eval"], ["--mode=export", "--output=out"]):
        refused(*mode, says="expected the workdir of a run, found no checkpoint in")


@pytest.fixture
def files(tmp_path):
    """Flags for an input of a good question or pair each, and an output not yet there."""
    record = {"prompt": "not True is", "output": "False"}
    write(tmp_path / "score.jsonl", record)
    write(tmp_path / "sample.jsonl", {"prompt": record["prompt"]})

    def flags(mode, **changes):
        names = {"input": tmp_path / f"{mode}.jsonl", "output": tmp_path / "out.jsonl"} | changes
        return [f"--mode={mode}", "--workdir=", *(f"--{k}={v}" for k, v in names.items())]

    return flags


@pytest.mark.parametrize("mode", ["sample", "score"])
def test_faulty_inputs(refused, files, tmp_path, mode):
    refused(*files(mode, input=tmp_path / "none"), says=["none", "No such file"])
    wanted = {"sample": "exactly one of question or prompt", "score": "prompt and output"}[mode]
    file = write(tmp_path / "faulty", {"text": "a"}, {"prompt": 3})
    lines = [f"line 1: expected {wanted}", f"line 2: expected {wanted}"]
    refused(*files(mode, input=file), says=["2 faults", *lines])
    too_long = "--config.data.max_source_tokens=3"
    refused(*files(mode), too_long, says=["1 of 1 prompts", f"{mode}.jsonl:1', has 4"])
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("mode", ["sample", "score", "export"])
def test_an_output_is_never_overwritten(refused, files, tmp_path, mode):
    kept = tmp_path / "kept"
    kept.write_text("precious")
    refused(*files(mode, output=kept), says=str(kept))
    assert kept.read_text() == "precious"


def test_an_output_that_cannot_be_made(refused, files, tmp_path):
    output = tmp_path / "none" / "out"
    refused(*files("sample", output=output), says=["--output: cannot write", "there is no folder"])


def test_a_home_is_meant_by_a_tilde_that_the_shell_has_left(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    record = {"question": "1 + 1?", "answer": "2", "output": "2"}
    (tmp_path / "in.jsonl").write_text(json.dumps(record))
    code, _, err = call("--mode=verify", "--input=~/in.jsonl", "--output=~/out.jsonl")
    assert code == 0, err
    assert json.loads((tmp_path / "out.jsonl").read_text())["correct"]


def test_a_terminal_that_is_not_of_utf_8_is_told_all_the_same(tmp_path):
    lines = [json.dumps({"question": f"w{i}", "answer": "größer"}) for i in range(4)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    fields = {"model.path": tiny.folder(), "data.path": tmp_path / "mine.jsonl"}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    done = subprocess.run(
        [sys.executable, "main.py", "--mode=check", "--config=configs/jsonl.py", *flags],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert r"'gr\xf6\xdfer' 100.0%" in done.stdout


def said_to(stdout, **how):
    """Exit code and stderr of a process that prints what is asked for to `stdout`."""
    program = [sys.executable, "-c", "from hir_jax import cli; cli.tell('a table')"]
    done = subprocess.run(
        program, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, **how
    )
    return done.returncode, done.stderr


def test_a_reader_that_has_gone_as_head_has():
    read, written = os.pipe()
    os.close(read)
    assert said_to(written) == (141, "")
    os.close(written)


def test_a_stdout_on_a_full_disk_is_one_sentence():
    with open("/dev/full", "w") as full:
        code, err = said_to(full)
    assert code == 2
    assert err.startswith("error: stdout: cannot be written to: No space left on device.")
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_the_caller_has_closed_is_no_error_and_no_number_of_a_file(number):
    program = (
        "import os, sys; from hir_jax import cli; sys.argv[1:] = ['--mode=none']\n"
        "try: cli.start()\n"
        "except SystemExit: sys.exit(os.open(os.devnull, os.O_RDONLY))"
    )
    words = f'exec "$@" {number}>&-'
    done = subprocess.run(["sh", "-c", words, "", sys.executable, "-c", program], cwd=ROOT)
    assert done.returncode == 3
