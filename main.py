"""hir_jax: align a T5 with instructions by Hindsight Instruction Relabeling.

python main.py                                            # the embedded default
python main.py --config=configs/flan_t5.py:base --workdir=runs/mine --config.data.task=...
python main.py --mode=eval|sample|score|export ...
"""

import os
import sys
from collections.abc import Sequence

# Before JAX is imported: its own start-up lines are noise here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from absl import app, flags, logging
from ml_collections import config_flags

MODES = ("train", "eval", "sample", "score", "export", "pretrain")
DEFAULT_WORKDIR = "runs/tiny"

flags.DEFINE_enum("mode", "train", MODES, "What to do.")
flags.DEFINE_string(
    "workdir",
    None,
    f"train: where the run lives, and is resumed from (default: {DEFAULT_WORKDIR}). Other modes: a "
    "run whose best checkpoint is used (default: the model at config.model.path).",
)
flags.DEFINE_string("input", None, "sample, score: a JSONL file to read.")
flags.DEFINE_string("output", None, "sample, score: a JSONL file to write. export: a folder.")
flags.DEFINE_string(
    "compilation_cache",
    "~/.cache/hir_jax",
    "Folder where compiled programs are kept between runs; empty for none.",
)
CONFIG = config_flags.DEFINE_config_file("config", "configs/tiny.py", "Which config to run.")
FLAGS = flags.FLAGS


def main(argv: Sequence[str]) -> None:
    """Does what the flags say; exits 0, 2 (the user can mend it) or 128 + a signal's number."""
    from hir_jax import evaluate
    from hir_jax.errors import UserError
    from hir_jax.interrupts import Interrupted

    try:
        if len(argv) > 1:
            raise UserError(f"Expected flags only, found {argv[1:]}. Flags begin with two dashes.")
        results = run(FLAGS.mode)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as e:
        print(f"{e}; give the same command to go on", file=sys.stderr)
        sys.exit(e.exit_code)
    if results:
        print(evaluate.table(results))


def run(mode: str) -> dict | None:
    """Calls the mode's function; evaluations to print, if it gives any."""
    from hir_jax.errors import UserError

    needed = {"sample": ("input", "output"), "score": ("input", "output"), "export": ("output",)}
    needed["pretrain"] = ("output",)
    missing = [f"--{name}" for name in needed.get(mode, ()) if not FLAGS[name].value]
    if missing:
        raise UserError(f"--mode={mode} needs {' and '.join(missing)}.")

    import jax

    if FLAGS.compilation_cache:
        cache = os.path.expanduser(FLAGS.compilation_cache)
        jax.config.update("jax_compilation_cache_dir", cache)

    from hir_jax import loop, modes, pretrain

    config = CONFIG.value
    logging.info("devices: %s", jax.devices())
    match mode:
        case "train":
            return loop.run(config, FLAGS.workdir or DEFAULT_WORKDIR)
        case "eval":
            return modes.evaluate_policy(config, FLAGS.workdir)
        case "sample":
            modes.sample_file(config, FLAGS.workdir, FLAGS.input, FLAGS.output)
        case "score":
            modes.score_file(config, FLAGS.workdir, FLAGS.input, FLAGS.output)
        case "pretrain":
            pretrain.pretrain(config, FLAGS.output)
        case "export":
            modes.export_policy(config, FLAGS.workdir, FLAGS.output)
    return None


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    app.run(main)
