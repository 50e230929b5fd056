"""--mode=sample: outputs of a policy for given questions or prompts."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections

from hir_jax.commands import continued
from hir_jax.commands.lines import check_finite, fit, read_jsonl
from hir_jax.commands.policy import load_policy
from hir_jax.data import jsonl
from hir_jax.data.example import Example, format_prompt
from hir_jax.data.files import raise_faults
from hir_jax.decoding import beam
from hir_jax.decoding.beam import Beams
from hir_jax.decoding.prompt import Among, Guide, Output, Prompt, uid
from hir_jax.decoding.sampler import Sampler
from hir_jax.devices import keys
from hir_jax.model import batching
from hir_jax.model.codec import Codec, Tokens
from hir_jax.model.config import Params
from hir_jax.run import answering, choosing, models, terminal
from hir_jax.run.models import Model
from hir_jax.run.prompts import instructions_of

# Prompts between two writes of the output file. Rows stand idle at the end of each piece, so not
# too few.
PROMPTS_A_WRITE = 1024


class Drawn(NamedTuple):
    """An output, and its margin (see `run.choosing`) where samples are reranked."""

    output: Output
    margin: float | None = None


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
    fields = ("question",) if by_two(config) else ("question", "prompt")
    records, texts = read_jsonl(source, one_of=fields)
    options = _options(source, {n: texts[n] for n, record in records if "question" in record})
    model, _ = load_policy(config, workdir)
    counts = [len(options.get(line, ())) for line, _ in records]
    named = [(f"{source}, line {line}", n) for (line, _), n in zip(records, counts, strict=True)]
    allowed = answering.load(config, "sample", model.codec, named)
    beams = answering.beams(config, "sample")
    sides = encode_sides(
        config,
        model.codec,
        lambda p: [_prompt_text(p, record, options.get(line, ())) for line, record in records],
    )
    longest = [max(both, key=len) for both in zip(*sides, strict=True)]
    keep, buckets = fit(config, source, [line for line, _ in records], longest)
    sampler = models.make_sampler(config, model, buckets)
    params = sampler.prepare(model.params)
    count = samples_of(config)
    digested = [("input", records), ("tokens", sides)]
    digested += [("allowed", allowed.digest)] if allowed else []
    made_of = continued.made_of("sample", config, model, *digested)
    given = [records[i][1] for i in keep]
    may_come = {"logprobs_among": allowed, "scores": beams, "margins": config.sample.rerank}
    given_back = ("samples", "logprobs", *(name for name, comes in may_come.items() if comes))
    with (
        continued.lines(output, made_of, given, given_back) as lines,
        terminal.progress(len(keep) * count, "sampling", "sample") as bar,
    ):
        for piece in lines.pieces(PROMPTS_A_WRITE):
            bar.update(piece.start * count - bar.done)
            indices = [keep[i] for i in piece]
            asked = [[side[i] for i in indices] for side in sides]
            uids = [uid(str(records[i][0])) for i in indices]
            among = allowed and allowed.among([counts[i] for i in indices])
            drawn = draw(config, model, sampler, params, asked, uids, bar.update, among)
            for i, own in zip(indices, drawn, strict=True):
                where = f"{source}, line {records[i][0]}"
                check_finite([each.output.logprob for each in own], where)
            results = [
                given[i] | _result(model.codec, own, beams)
                for i, own in zip(piece, drawn, strict=True)
            ]
            lines.write(piece, results)


def by_two(config: ml_collections.ConfigDict) -> bool:
    """Whether samples are drawn or sorted by both instructions."""
    return bool(config.sample.guidance or config.sample.rerank)


def samples_of(config: ml_collections.ConfigDict) -> int:
    """Outputs of each prompt: greedy there is one, unless a search finds several."""
    greedy = config.sample.temperature == 0 and config.sample.beams == 1
    return 1 if greedy else config.sample.samples


def encode_sides(
    config: ml_collections.ConfigDict, codec: Codec, texts: Callable[[str], Sequence[str]]
) -> list[list[Tokens]]:
    """The tokens of all prompts under what training samples under, and where they are asked for
    (`by_two`) under p_wrong; `texts` gives the prompts under an instruction."""
    instructions = instructions_of(config)
    goals = [instructions.wanted, instructions.opposite]
    return [
        [(*ids, codec.eos_id) for ids in codec.encode(texts(instructions.text(goal)))]
        for goal in goals[: 1 + by_two(config)]
    ]


def draw(
    config: ml_collections.ConfigDict,
    model: Model,
    sampler: Sampler,
    params: Params,
    sides: Sequence[Sequence[Tokens]],
    uids: Sequence[int],
    progress: Callable[[int], object] = lambda n: None,
    among: Among | None = None,
) -> list[list[Drawn]]:
    """The outputs of each prompt, as `config.sample` has them; reranked, best first.

    Args:
        config: of it `seed` and `sample` are read, and the batch size to score margins in.
        model: the policy.
        sampler: of `models.make_sampler`.
        params: the model's, prepared by the sampler.
        sides: of `encode_sides`.
        uids: what keys the draws of each prompt.
        progress: told of the number of outputs that have ended since.
        among: the outputs that there may be.
    """
    sample, key = config.sample, keys.make(config.seed)
    asked = [Prompt(*each) for each in zip(sides[0], uids, strict=True)]
    guide = None
    if sample.guidance:
        guide = Guide(sides[1], sample.guidance, sample.guidance_cutoff)
    count = samples_of(config)
    if beams := answering.beams(config, "sample"):
        found = beam.search(
            sampler, params, asked, beams, lambda found: progress(len(found) * count), among
        )
        outputs = [own[:count] for own in found]
    else:
        options = {"receive": lambda ended: progress(len(ended)), "guide": guide, "among": among}
        outputs = sampler(params, asked, key, sample.temperature, count, **options)
    if not sample.rerank:
        return [[Drawn(output) for output in own] for own in outputs]
    lengths = batching.make_buckets([1], sample.max_new_tokens, 1, 1).target
    margins = choosing.margins(
        model.params,
        sampler,
        list(zip(*sides, strict=True)),
        outputs,
        config.train.batch_size,
        batching.Buckets(sampler.buckets, lengths),
    )
    return [
        sorted(map(Drawn, own, margin), key=lambda drawn: -drawn.margin)
        for own, margin in zip(outputs, margins, strict=True)
    ]


def _result(codec: Codec, drawn: Sequence[Drawn], beams: Beams | None) -> dict[str, Any]:
    """What is written of a prompt's outputs."""
    result = {
        "samples": [codec.decode(each.output.tokens) for each in drawn],
        "logprobs": [each.output.logprob for each in drawn],
    }
    among = [each.output.logprob_among for each in drawn]
    if any(logprob is not None for logprob in among):
        result["logprobs_among"] = among
    if beams is not None:
        result["scores"] = [beams.score(each.output) for each in drawn]
    margins = [each.margin for each in drawn if each.margin is not None]
    return result | ({"margins": margins} if margins else {})


def _options(source: str, lines: dict[int, str]) -> dict[int, tuple[str, ...]]:
    """The options of these lines, as training reads them."""
    read = {n: jsonl.read_options(line) for n, line in lines.items()}
    found = [f"line {n}: {'; '.join(faults)}" for n, (_, faults) in read.items() if faults]
    raise_faults(pathlib.Path(source), found)
    return {n: options for n, (options, _) in read.items()}


def _prompt_text(instruction: str, record: dict[str, Any], options: tuple[str, ...]) -> str:
    if "prompt" in record:
        return record["prompt"]
    return format_prompt(instruction, Example("", record["question"], options, (), "", ""))
