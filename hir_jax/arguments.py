"""The arguments of a command: which flags there are, what they may say, and how they are read.

What is wrong with them, or with the config file that they name, is said in a sentence.
"""

import operator
import os
import re
import sys
import traceback
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from hir_jax import shipped
from hir_jax.errors import UserError

MODES = (
    *("train", "check", "diagnose", "eval", "sample", "score", "verify"),
    *("report", "export", "pretrain", "experiment", "plan"),
)
NEEDED = {
    "sample": ("input", "output"),
    "score": ("input", "output"),
    "verify": ("input", "output"),
    "report": ("workdir",),
    "export": ("output",),
    "pretrain": ("output",),
    "experiment": ("workdir",),
}
# Those that begin with the config of the --workdir, and those of one process.
OF_A_RUN = ("check", "diagnose", "eval", "sample", "score", "verify", "export")
ALONE = ("check", "verify", "report", "export", "pretrain", "experiment", "plan")
DEFAULT_CONFIG = "configs/tiny.py"
DEFAULT_WORKDIR = "runs/tiny"

flags.DEFINE_enum("mode", "train", MODES, "What to do.")
flags.DEFINE_string(
    "workdir",
    None,
    f"train: where the run lives, and is resumed from (default: {DEFAULT_WORKDIR}). Other modes: a "
    "run whose best checkpoint is used (default: the model at config.model.path); experiment: the "
    "folder of all runs; report: one run, or several with commas between.",
)
flags.DEFINE_string("input", None, "sample, score, verify: a JSONL file to read.")
flags.DEFINE_string(
    "output",
    None,
    "sample, score, verify: a JSONL file to write. check, diagnose, eval: a JSON file, beside what "
    "is printed (eval: default: eval_SPLIT.json in the workdir, if one is given). "
    "report: an HTML file (default: report.html in the workdir). export, pretrain: a folder.",
)
flags.DEFINE_bool(
    "distributed",
    False,
    "One of many processes, each with the same command: JAX finds the others by itself on a TPU "
    "pod, under Slurm or Open MPI, and in Kubernetes. Elsewhere give the next three flags instead.",
)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, reachable from all processes.")
flags.DEFINE_integer("processes", None, "How many processes there are.", lower_bound=1)
flags.DEFINE_integer("process_id", None, "This process's number, from 0.", lower_bound=0)
flags.DEFINE_string(
    "topology",
    None,
    "plan: a TPU slice to compile for, such as v5e:4x4, or GPUs, such as h100:8; needs their "
    "compiler (default: the devices here).",
)
flags.DEFINE_bool(
    "transfer",
    False,
    "eval: judge a run by other questions, instructions or another verifier than its own.",
)
flags.DEFINE_bool(
    "adapters", False, "export: the adapters of a run alone, as a folder for Hugging Face's PEFT."
)
flags.DEFINE_bool("quiet", False, "Tell only errors, alarms and the closing table.")
flags.DEFINE_list("programs", ["training", "sampling"], "plan: what to compile.")
flags.DEFINE_integer(
    "questions",
    None,
    "plan: questions of an iteration (default: those of the data where it is at hand, else 1,000).",
    lower_bound=1,
)
flags.DEFINE_float("price", None, "plan: dollars an hour of a chip.", lower_bound=0)
flags.DEFINE_bool("confirm", True, "plan: compile the best that is found in full.")
flags.DEFINE_string(
    "compilation_cache",
    "~/.cache/hir_jax",
    "Folder where compiled programs are kept between runs; empty for none.",
)
# Without a default of its own, which would have to have every field that a flag changes.
CONFIG = config_flags.DEFINE_config_file(
    "config", None, f"Which config to run (default: {DEFAULT_CONFIG})."
)
FLAGS = flags.FLAGS


def given(section: str) -> list[str]:
    """The fields of a section of the config that flags set."""
    given = [name for name in FLAGS if name.startswith(section) and FLAGS[name].present]
    return [name.removeprefix(section) for name in given]


def parse_flags(argv: Sequence[str]) -> UserError | None:
    """absl's own parser; a faulty flag or config is a sentence and exit code 2, as in `main`.

    Where other processes would wait for this one, the sentence is given instead, for `main` to tell
    them; what the flags say of them has been read then, and nothing else.
    """
    names = [_name_of(argument) for argument in argv]
    argv, reset = _without_none(argv)
    default = [] if "config" in names else [f"--config={_default_config(argv)}"]
    try:
        rest = FLAGS([argv[0], *_shipped_configs([*default, *argv[1:]])])
        CONFIG.value.keys()  # a file that cannot be read says so at the first access only
        _reset(reset)
        if not rest[1:]:
            return None
        message = f"Expected flags only, found {rest[1:]}. Flags begin with two dashes."
    except OSError as e:
        message = f"--config: {e}"
    except flags.Error as e:
        message = _of_file(str(e)) or str(e)
    except (Exception, SystemExit) as e:  # a config file is code, which may raise anything
        message = _fault(e, names)
    try:
        FLAGS([argv[0], *_place(argv)])
        if FLAGS.distributed or FLAGS.coordinator:
            return UserError(message)
    except flags.Error:
        pass  # no one can be told
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _place(argv: Sequence[str]) -> list[str]:
    """The arguments that say where other processes are, and whether this mode has any."""
    names = "mode|coordinator|processes|process_id"
    said = rf"^--?(?:(?:no)?distributed(?:=.*)?|(?:{names})[=\n].*)$"
    found = re.findall(said, "\n".join(argv[1:]), re.M)
    return [part for each in found for part in each.split("\n")]


def _of_file(text: str) -> str:
    """What a ValueError or TypeError of a config file says, whose traceback absl gives as text."""
    raised = re.search(r"^(ValueError|TypeError): (.*)", text, re.MULTILINE | re.DOTALL)
    places = re.findall(r'File "(.*)", line (\d+), in (?:get_config|<module>)', text)
    if not raised or not places:
        return ""
    # With a ValueError config files refuse an argument; the place would say nothing more.
    where = "" if raised[1] == "ValueError" else "--config: {}:{}: ".format(*places[-1])
    return where + raised[2].strip()


def _fault(e: Exception | SystemExit, names: Sequence[str]) -> str:
    """What is wrong with the flags of these names, or with the config file."""
    frames = traceback.extract_tb(e.__traceback__)
    if own := [frame for frame in frames if frame.name in ("get_config", "<module>")]:
        return f"--config: {own[-1].filename}:{own[-1].lineno}: {type(e).__name__}: {e}"
    if isinstance(e, SyntaxError):
        return f"--config: {e}"
    if isinstance(e, TypeError | ValueError):  # ml_collections: no place in any config
        asked = ", ".join(f"--{name}" for name in names if name.startswith("config."))
        return f"{asked}: expected fields as in --config.data.seed, found one that is none ({e})"
    if isinstance(e, SystemExit):  # of --help, where absl exits with 1
        sys.exit(0)
    if not isinstance(e, AttributeError | KeyError):
        raise e
    # ml_collections: no such field
    field, *nearest = re.findall(r"""["'](\w+)\\?["']""", str(e))
    from configs import common

    name = next((name for name in names if field in name.split(".")), field)
    is_lacking = field in common.get_config() and name.startswith(f"config.{field}")
    if nearest == ["get_config"] or is_lacking or field == "NoneType":
        return "--config: expected a file whose get_config returns a config, found another"
    hint = f"Did you mean {nearest[0]!r}?" if nearest else "configs/common.py lists them all."
    return f"--{name}: the config has no field {field!r}. {hint}"


def _without_none(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments but those for fields that are set to None at last; and these fields.

    The parsers of numbers know no None, and that of texts would take it for a text.
    """
    last = {_name_of(argument): argument.partition("=")[2] for argument in argv}
    reset = [name for name in last if name.startswith("config.") and last[name] == "None"]
    rest = [a for a in argv if _name_of(a) not in reset and not _is_none(a)]
    return rest, [name.removeprefix("config.") for name in reset]


def _is_none(argument: str) -> bool:
    name, _, value = argument.partition("=")
    return _name_of(name).startswith("config.") and value == "None"


def _reset(fields: Sequence[str]) -> None:
    """Sets fields of the config to None, where that is the default or may stand for one."""
    if not fields:
        return
    from configs import common

    defaults = common.get_config()
    for field in fields:
        if operator.attrgetter(field)(defaults) is not None:
            raise flags.Error(f"--config.{field}: expected a value, found None")
        CONFIG.value.update_from_flattened_dict({field: None})


def _default_config(argv: Sequence[str]) -> str:
    """What stands for --config where it is not given: the run's own, where there is a run."""
    said = "\n".join(argv)  # before absl reads it: "--mode=eval", or "--mode" and then "eval"
    mode, workdir = (
        re.search(rf"^--?{name}[=\n](.+)$", said, re.MULTILINE) for name in ("mode", "workdir")
    )
    if mode and workdir and mode[1] in OF_A_RUN and "://" not in workdir[1]:  # refused later
        return f"{shipped.OF_A_WORKDIR}:{os.path.abspath(os.path.expanduser(workdir[1]))}"
    return DEFAULT_CONFIG


def _shipped_configs(argv: Sequence[str]) -> list[str]:
    """The arguments, with the file that comes with hir_jax where --config names no other.

    It is said as --config=FILE[:ARGUMENT], or as --config and then that.
    """
    found = []
    for before, argument in zip(["", *argv], argv, strict=False):
        flag, equals, value = argument.partition("=")
        if before in ("--config", "-config"):
            flag, equals, value = "", "", argument
        elif not equals or _name_of(flag) != "config":
            found.append(argument)
            continue
        file, colon, rest = value.partition(":")
        found.append(f"{flag}{equals}{shipped.find(file)}{colon}{rest}")
    return found


def _name_of(argument: str) -> str:
    return argument.lstrip("-").partition("=")[0]
