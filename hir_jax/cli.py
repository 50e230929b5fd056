"""hir_jax: align a T5 with instructions by Hindsight Instruction Relabeling.

python main.py                                            # the embedded default
python main.py --config=configs/flan_t5.py:base --workdir=runs/mine --config.data.task=...
python main.py --mode=check|diagnose|eval|sample|score|verify|report|export|pretrain|... ...

Installed, `hir-jax` stands for `python main.py`. A config or model that is not found from the
folder it is called in is looked for among those that come with hir_jax.
"""

import logging as std_logging
import os
import pathlib
import signal
import sys
from typing import Any

# Before they are imported: their start-up lines, of a missing PyTorch and the like, are noise.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from absl import app, logging
from ml_collections import config_flags

from hir_jax import arguments, shipped
from hir_jax.arguments import ALONE, CONFIG, DEFAULT_WORKDIR, FLAGS, NEEDED, given, parse_flags
from hir_jax.errors import UserError

std_logging.getLogger("jax").setLevel(std_logging.WARNING)  # it tells of backends it cannot find


def main(fault: UserError | None) -> None:
    """Does what the flags say, if they are not at fault.

    Exits 0, 2 (the user can mend it) or 128 + a signal's number.
    """
    from hir_jax.devices import leaving, processes
    from hir_jax.devices.interrupts import Interrupted
    from hir_jax.run import disk

    try:
        join(fault)
        if fault:
            raise fault
        text = run(FLAGS.mode)
    except UserError as e:
        leaving.leave(f"error: {e}", 2)
    except Interrupted as e:
        leaving.leave(f"{e}; give the same command to go on", e.exit_code)
    except KeyboardInterrupt:
        leaving.leave("", 130)
    except Exception as e:
        if full := disk.fault(e, pathlib.Path(FLAGS.output or FLAGS.workdir or DEFAULT_WORKDIR)):
            leaving.leave(f"error: {full}", 2)
        if processes.many():
            leaving.fail(e)
        raise
    if text and processes.is_first():
        tell(text)
    leaving.finish()


def tell(text: str) -> None:
    """Prints it. Where the reader has gone, as `head` has, the exit code is that of SIGPIPE."""
    from hir_jax.devices import leaving

    try:
        print(text, flush=True)
    except OSError as e:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still has to write
        if isinstance(e, BrokenPipeError):
            leaving.leave("", 128 + signal.SIGPIPE)
        leaving.leave(
            f"error: stdout: cannot be written to: {e.strerror}. All else is done; give the same "
            "command with its stdout elsewhere to see what is missing.",
            2,
        )


def run(mode: str) -> str | None:
    """Calls the mode's function; what to print, if there is anything."""
    paths = ("workdir", "input", "output")
    for name in paths:
        if FLAGS[name].value == "":  # of a variable that is not set, and no one means the default
            raise UserError(f"--{name}: expected a path, found nothing behind the equals sign.")
    missing = [f"--{name}" for name in NEEDED.get(mode, ()) if not FLAGS[name].value]
    if missing:
        raise UserError(f"--mode={mode} needs {' and '.join(missing)}.")

    import jax

    from hir_jax.devices import compiling
    from hir_jax.run import terminal

    if FLAGS.quiet:
        terminal.hush()

    cache = os.path.expanduser(FLAGS.compilation_cache)
    if cache.startswith("~"):
        logging.warning("there is no home for --compilation_cache=%s; programs are not kept", cache)
    elif cache:
        if not FLAGS.topology:  # programs for devices that are not here cannot be loaded
            jax.config.update("jax_compilation_cache_dir", cache)
        compiling.keep(cache)

    from hir_jax import data, library
    from hir_jax.commands import experiment, pretrain
    from hir_jax.commands.check import check
    from hir_jax.commands.diagnose import diagnose
    from hir_jax.commands.eval import evaluate_policy
    from hir_jax.commands.export import export_adapters, export_policy
    from hir_jax.commands.sample import sample_file
    from hir_jax.commands.score import score_file
    from hir_jax.commands.verify import verify_file
    from hir_jax.data import sources
    from hir_jax.planning import plan
    from hir_jax.report import report
    from hir_jax.run import evaluation, settings, workdirs

    config = CONFIG.value
    check_config(config)
    for name in paths:  # a shell leaves the "~" of --workdir=~/run
        FLAGS[name].value = FLAGS[name].value and os.path.expanduser(FLAGS[name].value)
    workdirs.check_local(
        {f"--{name}": FLAGS[name].value for name in paths}
        | {"--config.model.path": config.model.path, "--config.lora.path": config.lora.path}
        | {f"--config.data.{name}": config.data[name] for name in sources.PATHS}
    )
    if mode == "verify":  # asks no device
        verify_file(config, FLAGS.input, FLAGS.output)
        return None
    if mode == "report":  # nor does this
        return report.run(config, FLAGS.workdir, FLAGS.output)
    if mode in ("train", "check", "diagnose", "eval"):
        data.check_given(config.data, given("config.data."))
    if mode == "check":  # nor this
        return check(config, FLAGS.output)
    logging.info("devices: %s", jax.devices())
    if mode == "train":
        settings.check_given(config, given("config."))
    match mode:
        case "train":
            return library.train(config, FLAGS.workdir or DEFAULT_WORKDIR).table()
        case "diagnose":
            return diagnose(config, FLAGS.workdir, FLAGS.output)
        case "eval":
            done = evaluate_policy(config, FLAGS.workdir, FLAGS.transfer, FLAGS.output)
            return evaluation.table(done)
        case "sample":
            sample_file(config, FLAGS.workdir, FLAGS.input, FLAGS.output)
        case "score":
            score_file(config, FLAGS.workdir, FLAGS.input, FLAGS.output)
        case "experiment":
            return experiment.run(config, FLAGS.workdir)
        case "plan":
            # Where a flag sets an axis of the mesh, that mesh is planned, and none is looked for.
            asked = FLAGS.programs, FLAGS.questions, FLAGS.price, FLAGS.confirm
            return plan.run(config, FLAGS.topology, not given("config.mesh."), *asked)
        case "pretrain":
            pretrain.pretrain(config, FLAGS.output)
        case "export":
            write = export_adapters if FLAGS.adapters else export_policy
            write(config, FLAGS.workdir, FLAGS.output)
    return None


def check_config(config: Any) -> None:
    """Raises UserError where the config file gives another thing than a config, or where code would
    run that a workdir's config names and no flag does."""
    from hir_jax.run import configs

    name = config_flags.get_config_filename(FLAGS["config"])
    configs.check_fields(config, name)
    file, _, argument = name.partition(":")
    configs.check_named(config, file, argument, given("config."), "--config.{}={}")


def join(fault: UserError | None) -> None:
    """Joins the other processes, if the flags speak of any; with a fault of the flags, to tell them
    of it."""
    from hir_jax.devices import leaving, processes

    place = {name: FLAGS[name].value for name in ("coordinator", "processes", "process_id")}
    if not FLAGS.distributed and set(place.values()) == {None}:
        return
    if not FLAGS.distributed and None in place.values():
        missing = [f"--{name}" for name, value in place.items() if value is None]
        raise fault or UserError(
            f"--coordinator, --processes and --process_id go together; found no "
            f"{' and no '.join(missing)}. Where JAX can find the processes by itself, give "
            "--distributed."
        )
    if FLAGS.mode in ALONE:
        raise fault or UserError(
            f"--mode={FLAGS.mode} runs in one process; found flags of many. Give it without them, "
            "on any machine that sees the files (JAX_PLATFORMS=cpu leaves its devices alone)."
        )
    if fault:
        logging.error("%s", fault)
    leaving.explain_abort(
        "error: JAX cannot join this process to the others, as it says above. Does each have a "
        "--process_id of its own, and is no older run of theirs left?",
        2,
    )
    processes.start(*place.values())
    if processes.many():
        leaving.watch()
        processes.check_same({"--mode": FLAGS.mode} | processes.versions())
    if not processes.is_first():
        logging.set_verbosity(logging.ERROR)


def open_what_is_closed() -> None:
    """Puts nothing in place of stdin, stdout and stderr that the caller has closed.

    Else the next files opened, a run's own, had the numbers that libraries in C++ write to.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    logging.get_absl_handler().python_handler.setStream(sys.stderr)


def start() -> None:
    """What `python main.py` and `hir-jax` do."""
    open_what_is_closed()
    sys.modules["__main__"].__doc__ = __doc__  # which --help shows, and the flags of `arguments`
    for flag in FLAGS.flags_by_module_dict()[arguments.__name__]:
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    shipped.let_configs_be_imported()
    logging.set_verbosity(logging.INFO)
    sys.stdout.reconfigure(errors="backslashreplace")  # the table of a run is worth any terminal
    app.run(main, flags_parser=parse_flags)
