"""--mode=sample: outputs of a policy for given questions or prompts."""

import pathlib
from typing import Any

import ml_collections

from hir_jax.commands import continued
from hir_jax.commands.lines import check_finite, fit, read_jsonl
from hir_jax.commands.policy import load_policy
from hir_jax.data import jsonl
from hir_jax.data.example import Example, format_prompt
from hir_jax.data.files import raise_faults, read_text
from hir_jax.decoding import beam
from hir_jax.decoding.beam import Beams
from hir_jax.decoding.prompt import Guide, Output, Prompt, uid
from hir_jax.devices import keys
from hir_jax.model import batching
from hir_jax.model.codec import Codec
from hir_jax.run import answering, choosing, models, terminal
from hir_jax.run.prompts import instructions_of

# Prompts between two writes of the output file. Rows stand idle at the end of each piece, so not
# too few.
PROMPTS_A_WRITE = 1024


def sample_file(
    config: ml_collections.ConfigDict, workdir: str | None, source: str, output: str
) -> None:
    """Samples outputs for each line of `source`; one line each, in order, to `output`.

    A line has either "question" (put into the template under what training samples under:
    p_correct and the phrases for all facts; with "options" if it has any) or "prompt" (used as it
    is). It comes back with "samples" (texts) and "logprobs" (of all tokens drawn, under the model's
    own distribution).

    With `config.sample.guidance` outputs are drawn away from p_wrong. With `config.sample.rerank`
    they come with their "margins", the largest first; see `run.choosing`. Both need questions: a
    prompt as it is has no opposite. With `config.sample.among` they are among given outputs, and
    "logprobs_among" are of the distribution among these. With `config.sample.beams` they are the
    best of a search, by their "scores". Cut short, the same call goes on with the lines that are
    missing.

    Raises:
        UserError: files or lines are at fault, or a log-probability is not finite.
    """
    continued.check_continued(output)
    sample = config.sample
    by_two = bool(sample.guidance or sample.rerank)
    records = read_jsonl(source, one_of=("question",) if by_two else ("question", "prompt"))
    options = _options(source, [line for line, record in records if "question" in record])
    model, _ = load_policy(config, workdir)
    counts = [len(options.get(line, ())) for line, _ in records]
    named = [(f"{source}, line {line}", n) for (line, _), n in zip(records, counts, strict=True)]
    allowed = answering.load(config, "sample", model.codec, named)
    beams = answering.beams(config, "sample")
    instructions = instructions_of(config)
    goals = [instructions.wanted, instructions.wanted.against(0)]
    sides = [
        [
            (*ids, model.codec.eos_id)
            for ids in model.codec.encode(
                [
                    _prompt_text(instructions.text(goal), record, options.get(line, ()))
                    for line, record in records
                ]
            )
        ]
        for goal in goals[: 1 + by_two]
    ]
    tokens = sides[0]
    longest = [max(both, key=len) for both in zip(*sides, strict=True)]
    keep, buckets = fit(config, source, [line for line, _ in records], longest)
    sampler = models.make_sampler(config, model, buckets)
    params = sampler.prepare(model.params)
    key = keys.make(config.seed)
    count = 1 if sample.temperature == 0 and not beams else sample.samples
    digested = [("input", records), ("tokens", sides)]
    digested += [("allowed", allowed.digest)] if allowed else []
    made_of = continued.made_of("sample", config, model, *digested)
    given = [records[i][1] for i in keep]
    may_come = {"logprobs_among": allowed, "scores": beams, "margins": sample.rerank}
    given_back = ("samples", "logprobs", *(name for name, comes in may_come.items() if comes))
    with (
        continued.lines(output, made_of, given, given_back) as lines,
        terminal.progress(len(keep) * count, "sampling", "sample") as bar,
    ):
        for piece in lines.pieces(PROMPTS_A_WRITE):
            bar.update(piece.start * count - bar.done)
            indices = [keep[i] for i in piece]
            asked = [Prompt(tokens[i], uid(str(records[i][0]))) for i in indices]
            guide = None
            if sample.guidance:
                away = [sides[1][i] for i in indices]
                guide = Guide(away, sample.guidance, sample.guidance_cutoff)
            among = allowed and allowed.among([counts[i] for i in indices])
            if beams:
                told = lambda n: bar.update(n * count)  # noqa: E731
                outputs = beam.search(sampler, params, asked, beams, told, among)
                outputs = [own[:count] for own in outputs]
            else:
                how = (key, sample.temperature, count, bar.update, guide, among)
                outputs = sampler(params, asked, *how)
            margins = [None] * len(indices)
            if sample.rerank:
                both = [(tokens[i], sides[1][i]) for i in indices]
                lengths = batching.make_buckets([1], sample.max_new_tokens, 1, 1).target
                margins = choosing.margins(
                    model.params,
                    sampler,
                    both,
                    outputs,
                    config.train.batch_size,
                    batching.Buckets(buckets, lengths),
                )
            for i, drawn in zip(indices, outputs, strict=True):
                check_finite([each.logprob for each in drawn], f"{source}, line {records[i][0]}")
            results = [
                given[i] | _result(model.codec, drawn, margin, beams)
                for i, drawn, margin in zip(piece, outputs, margins, strict=True)
            ]
            lines.write(piece, results)


def _result(
    codec: Codec, drawn: list[Output], margins: list[float] | None, beams: Beams | None
) -> dict[str, Any]:
    """What is written of a prompt's outputs, those of the largest margin first."""
    order = range(len(drawn))
    if margins is not None:
        order = sorted(order, key=lambda i: -margins[i])
    result = {
        "samples": [codec.decode(drawn[i].tokens) for i in order],
        "logprobs": [drawn[i].logprob for i in order],
    }
    if drawn[0].logprob_among is not None:
        result["logprobs_among"] = [drawn[i].logprob_among for i in order]
    if beams is not None:
        result["scores"] = [beams.score(drawn[i]) for i in order]
    return result if margins is None else result | {"margins": [margins[i] for i in order]}


def _options(source: str, numbers: list[int]) -> dict[int, tuple[str, ...]]:
    """The options of these lines, as training reads them."""
    lines = read_text(pathlib.Path(source)).split("\n")
    read = {n: jsonl.read_options(lines[n - 1]) for n in numbers}
    found = [f"line {n}: {'; '.join(faults)}" for n, (_, faults) in read.items() if faults]
    raise_faults(pathlib.Path(source), found)
    return {n: options for n, (options, _) in read.items()}


def _prompt_text(instruction: str, record: dict[str, Any], options: tuple[str, ...]) -> str:
    if "prompt" in record:
        return record["prompt"]
    return format_prompt(instruction, Example("", record["question"], options, (), "", ""))
