"""What can be checked of scripts for machines that are not here: syntax, and flags that exist."""

import pathlib
import re
import subprocess

import pytest
import yaml

from hir_jax import arguments

ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = sorted(p for p in (ROOT / "scripts").iterdir() if p.suffix in (".sh", ".yaml"))


def kubernetes():
    text = (ROOT / "scripts" / "kubernetes.yaml").read_text()
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


@pytest.mark.parametrize("path", [p for p in SCRIPTS if p.suffix == ".sh"], ids=lambda p: p.name)
def test_shell_scripts_parse_and_can_be_executed(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert path.stat().st_mode & 0o111


def test_slurm_passes_its_arguments_on_and_queues_a_stopped_job_again(tmp_path):
    for name, body in {
        "srun": 'echo "srun $*"; exit $CODE',
        "scontrol": 'echo "scontrol $*"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()

    def run(code, **more):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CODE": str(code), "SLURM_JOB_ID": "7"}
        environment |= {"SLURM_SUBMIT_DIR": str(tmp_path), **more}
        command = ["bash", ROOT / "scripts" / "slurm.sh", "--workdir=a b", "--mode=eval"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout.splitlines()

    started = "srun python main.py --distributed --workdir=a b --mode=eval"
    assert run(0) == [started]
    assert run(2) == [started]
    assert run(75) == run(143) == [started, "scontrol requeue 7"]
    assert run(75, SLURM_RESTART_COUNT="20") == [started]


@pytest.mark.parametrize(
    ("flags", "quoted"),
    [(["--workdir=a b", "--config=c.py:xl"], r" --workdir=a\ b --config=c.py:xl"), ([], "")],
)
def test_tpu_pod_quotes_its_arguments(tmp_path, flags, quoted):
    (tmp_path / "gcloud").write_text('#!/bin/sh\nfor a in "$@"; do echo "$a"; done\n')
    (tmp_path / "gcloud").chmod(0o755)
    command = ["bash", ROOT / "scripts" / "tpu_pod.sh", *flags]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TPU": "t", "ZONE": "z"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *start, last = done.stdout.splitlines()
    assert start == ["compute", "tpus", "tpu-vm", "ssh", "t", "--zone=z", "--worker=all"]
    start = "--command=cd hir_jax && .venv/bin/python main.py --distributed"
    assert last == start + quoted


def test_the_kubernetes_job_and_its_service_belong_together():
    service, job = kubernetes()["Service"], kubernetes()["Job"]
    spec, name = job["spec"], job["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    assert spec["completionMode"] == "Indexed"
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    (container,) = spec["template"]["spec"]["containers"]
    (command,) = container["args"]
    assert f"--coordinator={name}-0.{service['metadata']['name']}:" in command
    assert f"--processes={spec['parallelism']} " in command
    assert spec["parallelism"] == spec["completions"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]


WITH_FLAGS = [p for p in SCRIPTS if p.name != "cpu.sh"]


@pytest.mark.parametrize("path", [*WITH_FLAGS, ROOT / "docs" / "running.md"], ids=lambda p: p.name)
def test_flags_given_to_main_exist(path):
    text = path.read_text().replace("\\\n", " ")
    commands = re.findall(r"(?:main\.py|tpu_pod\.sh|slurm\.sh)((?:[^\n`]|\n {14}--)*)", text)
    given = {flag for command in commands for flag in re.findall(r"--(\w+)", command)}
    assert given, path
    assert given <= set(arguments.FLAGS), given - set(arguments.FLAGS)
