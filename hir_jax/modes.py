"""What the command line does besides training: eval, sample, score, export."""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import jax
import ml_collections
from absl import logging

from hir_jax import (
    batching,
    checkpoint,
    evaluate,
    hf,
    metrics,
    processes,
    prompts,
    runtime,
    scoring,
    settings,
    workdirs,
)
from hir_jax.data.example import Example, format_prompt
from hir_jax.data.files import raise_faults, read_text
from hir_jax.errors import UserError
from hir_jax.runtime import Model
from hir_jax.sampler import Prompt

# Prompts of --mode=sample between two writes of the output file. Rows stand idle at the end of each
# piece, so not too few.
PROMPTS_A_WRITE = 1024


def load_policy(config: ml_collections.ConfigDict, workdir: str | None) -> tuple[Model, str]:
    """The model at `config.model.path`, with the best parameters of a workdir if one is given.

    Returns:
        The model, and a name of it for people to read.

    Raises:
        UserError: the workdir has no checkpoint, or one of another model.
    """
    settings.check(config)
    model = runtime.load_model(config)
    if not workdir:
        return model, config.model.path
    folder = runtime.checkpoint_folder(workdir)
    wanted = runtime.abstract(model.params, model.mesh)
    best = checkpoint.Checkpoints(folder).restore_best(wanted)
    if best is None:
        raise UserError(
            f"--workdir: expected the workdir of a run, found no checkpoint in {folder}."
        )
    step, params, _ = best
    name = f"{workdir}, best checkpoint (step {step})"
    logging.info("parameters: %s", name)
    return dataclasses.replace(model, params=params), name


def evaluate_policy(
    config: ml_collections.ConfigDict, workdir: str | None
) -> dict[str, evaluate.Evaluation]:
    """Scores the policy on `config.evaluate.split`; writes eval_<split>.json into the workdir."""
    model, name = load_policy(config, workdir)
    questions = runtime.load_questions(config, model.codec)
    split = config.evaluate.split
    examples = getattr(questions.splits, split)
    if not examples:
        sizes = {key: len(value) for key, value in questions.splits._asdict().items()}
        raise UserError(
            f"config.evaluate.split: expected a split with questions, found {split!r}; sizes are "
            f"{sizes}."
        )
    sampler = runtime.make_sampler(config, model, questions.buckets.source)
    with metrics.progress(2 * len(examples), f"evaluating on {split}", "question") as bar:
        result = evaluate.evaluate(
            sampler,
            model.params,
            examples,
            questions.prompts,
            model.codec,
            questions.verifier,
            progress=bar.update,
        )
    folder = pathlib.Path(workdir or ".")
    record = {"model": name, "task": config.data.task, "split": split} | result.to_json()
    if processes.is_first():
        workdirs.write_json(folder / f"eval_{split}.json", record)
    return {f"{name}: {split}": result}


def sample_file(
    config: ml_collections.ConfigDict, workdir: str | None, source: str, output: str
) -> None:
    """Samples outputs for each line of `source`; one line each, in order, to `output`.

    A line has either "question" (put into the template under p_correct, with "options" if it has
    any) or "prompt" (used as it is). It comes back with "samples" (texts) and "logprobs" (of all
    tokens drawn, under the model's own distribution).
    """
    check_output(output)
    records = read_jsonl(source, one_of=("question", "prompt"))
    model, _ = load_policy(config, workdir)
    texts = [_prompt_text(config, record, source, line) for line, record in records]
    tokens = [(*ids, model.codec.eos_id) for ids in model.codec.encode(texts)]
    keep, buckets = _fit(config, source, [line for line, _ in records], tokens)
    sampler = runtime.make_sampler(config, model, buckets)
    params = sampler.prepare(model.params)
    key = jax.random.key(config.seed)
    count = 1 if config.sample.temperature == 0 else config.sample.samples
    with (
        open_output(output) as out,
        metrics.progress(len(keep) * count, "sampling", "sample") as bar,
    ):
        for indices in batching.chunks(keep, PROMPTS_A_WRITE):
            asked = [Prompt(tokens[i], prompts.uid(str(records[i][0]))) for i in indices]
            outputs = sampler(
                params, asked, key, config.sample.temperature, count, progress=bar.update
            )
            for i, drawn in zip(indices, outputs, strict=True):
                result = {
                    "samples": [model.codec.decode(o.tokens) for o in drawn],
                    "logprobs": [o.logprob for o in drawn],
                }
                out.write(json.dumps(records[i][1] | result, ensure_ascii=False) + "\n")
            out.flush()


def score_file(
    config: ml_collections.ConfigDict, workdir: str | None, source: str, output: str
) -> None:
    """Scores each line {"prompt", "output"} of `source`; one line each, in order, to `output`.

    A line comes back with "logprob" (summed over the output's tokens and its EOS, in nats) and
    "tokens" (their number).
    """
    check_output(output)
    records = read_jsonl(source, all_of=("prompt", "output"))
    model, _ = load_policy(config, workdir)
    codec = model.codec
    tokens = [(*i, codec.eos_id) for i in codec.encode([r["prompt"] for _, r in records])]
    targets = [(*i, codec.eos_id) for i in codec.encode([r["output"] for _, r in records])]
    keep, sources = _fit(config, source, [line for line, _ in records], tokens)
    longest = max(len(targets[i]) for i in keep)
    halved = batching.make_buckets([1], longest, 1, config.buckets.target).target
    with open_output(output) as out, metrics.progress(len(keep), "scoring", "output") as bar:
        logprobs = scoring.score(
            model.params,
            model.config,
            model.mesh,
            [(tokens[i], targets[i]) for i in keep],
            config.train.batch_size,
            batching.Buckets(sources, halved),
            progress=bar.update,
        )
        for i, logprob in zip(keep, logprobs, strict=True):
            result = {"logprob": logprob, "tokens": len(targets[i])}
            out.write(json.dumps(records[i][1] | result, ensure_ascii=False) + "\n")


def export_policy(config: ml_collections.ConfigDict, workdir: str | None, output: str) -> None:
    """Writes the policy as a Hugging Face folder."""
    hf.check_new(pathlib.Path(output))
    model, name = load_policy(config, workdir)
    hf.export(
        pathlib.Path(output), model.params, model.config, model.codec.tokenizer, model.raw_config
    )
    logging.info("exported %s to %s", name, output)


def read_jsonl(
    path: str, all_of: Sequence[str] = (), one_of: Sequence[str] = ()
) -> list[tuple[int, dict[str, Any]]]:
    """(line number, record) of each line that is not blank.

    Raises:
        UserError: no such file, or faulty lines; the first ten are listed.
    """
    records, faults = [], []
    # Not splitlines: a JSON text may hold other ends of line, such as U+2028, as they are.
    for number, line in enumerate(read_text(pathlib.Path(path)).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            json.dumps(record, ensure_ascii=False).encode()  # refuses halves of surrogate pairs
        except (ValueError, RecursionError) as e:
            faults.append(f"line {number}: not JSON: {e}")
            continue
        if not isinstance(record, dict):
            faults.append(f"line {number}: expected an object, found {type(record).__name__}")
            continue
        texts = [field for field in (*all_of, *one_of) if isinstance(record.get(field), str)]
        if not set(all_of) <= set(texts) or (one_of and len(texts) != 1):
            wanted = " and ".join(all_of) or f"exactly one of {' or '.join(one_of)}"
            faults.append(f"line {number}: expected {wanted}, as text; found {sorted(record)}")
        records.append((number, record))
    raise_faults(pathlib.Path(path), faults)
    if not records:
        raise UserError(f"{path}: expected a JSON object a line, found an empty file.")
    return records


def check_output(path: str) -> None:
    """Raises UserError if the file is there already, or its folder is not; before long work."""

    def check() -> None:
        if os.path.lexists(path):
            raise UserError(f"--output: {path!r} is there already; give another name.")
        folder = pathlib.Path(path).parent
        if not folder.is_dir():
            raise UserError(f"--output: cannot write {path!r}: there is no folder {str(folder)!r}.")

    processes.on_first(check)


@contextlib.contextmanager
def open_output(path: str) -> Iterator[TextIO]:
    """A new file to write lines to; what is written stays if the work is cut short.

    Of many processes only the first writes it.

    Raises:
        UserError: it cannot be made.
    """
    path, mode = (path, "x") if processes.is_first() else (os.devnull, "w")
    try:
        out = open(path, mode, encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as e:
        raise UserError(f"--output: cannot write {path!r}: {e.strerror}.") from e
    with out:
        yield out


def _prompt_text(
    config: ml_collections.ConfigDict, record: dict[str, Any], source: str, line: int
) -> str:
    if "prompt" in record:
        return record["prompt"]
    options = record.get("options", [])
    if not isinstance(options, list) or not all(isinstance(o, str) for o in options):
        raise UserError(f"{source}: line {line}: expected options as a list of texts.")
    example = Example("", record["question"], tuple(options), (), "", "")
    return format_prompt(config.instruction.correct, example)


def _fit(
    config: ml_collections.ConfigDict, source: str, lines: Sequence[int], tokens: Sequence[Any]
) -> tuple[list[int], tuple[int, ...]]:
    """The indices of prompts within the limit, and source buckets for them."""
    lengths = {f"{source}:{n}": len(ids) for n, ids in zip(lines, tokens, strict=True)}
    over = prompts.check_lengths(lengths, config.data.max_source_tokens, config.data.too_long)
    keep = [i for i, n in enumerate(lines) if f"{source}:{n}" not in over]
    return keep, batching.best_lengths([len(tokens[i]) for i in keep], config.buckets.source)
