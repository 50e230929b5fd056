"""--mode=score: log-probabilities of given outputs."""

import dataclasses
from collections.abc import Callable, Sequence

import ml_collections

from hir_jax.commands import continued
from hir_jax.commands.lines import check_finite, fit, read_jsonl
from hir_jax.commands.policy import load_policy
from hir_jax.decoding.sampler import Sampler
from hir_jax.model import batching
from hir_jax.model.codec import Tokens
from hir_jax.run import models, terminal, writing
from hir_jax.run.models import Model
from hir_jax.training import scoring

# Lines between two writes of the output file.
LINES_A_WRITE = 1024
# Target tokens of a batch, padding included: longer targets are scored fewer at a time.
TOKENS = 2**14
POSITIONS = 256  # beyond so many tokens, targets have lengths of their own to be padded to


def score_file(
    config: ml_collections.ConfigDict, workdir: str | None, source: str, output: str
) -> None:
    """Scores each line {"prompt", "output"} of `source`; one line each, in order, to `output`.

    A line comes back with "logprob" (summed over the output's tokens and its EOS, in nats) and
    "tokens" (their number). Scores are in the precision of decoding. Cut short, the same call goes
    on with the lines that are missing.

    Raises:
        UserError: files or lines are at fault, or a log-probability is not finite.
    """
    continued.check_continued(output)
    records, _ = read_jsonl(source, all_of=("prompt", "output"))
    model, _ = load_policy(config, workdir)
    codec = model.codec
    tokens = [(*i, codec.eos_id) for i in codec.encode([r["prompt"] for _, r in records])]
    outputs = codec.encode_outputs([r["output"] for _, r in records])
    targets = [(*i, codec.eos_id) for i in outputs]
    named = {f"line {line}": own for (line, _), own in zip(records, targets, strict=True)}
    writing.tell_unknown(codec, "outputs", named)
    keep, sources = fit(config, source, [line for line, _ in records], tokens)
    made_of = continued.made_of(
        "score", config, model, ("input", records), ("tokens", (tokens, targets))
    )
    sampler = models.make_sampler(config, model, sources)
    model = as_decoded(model, sampler)
    given = [records[i][1] for i in keep]
    longest = max(len(targets[i]) for i in keep)
    buckets = batching.Buckets(sources, target_lengths(longest, config.buckets.target))
    with (
        continued.lines(output, made_of, given, ("logprob", "tokens")) as lines,
        terminal.progress(len(keep), "scoring", "output") as bar,
    ):
        for piece in lines.pieces(LINES_A_WRITE):
            bar.update(piece.start - bar.done)
            pairs = [(tokens[keep[i]], targets[keep[i]]) for i in piece]
            found = score_pairs(config, model, sampler, pairs, buckets, bar.update)
            for i, logprob in zip(piece, found, strict=True):
                check_finite([logprob], f"{source}, line {records[keep[i]][0]}")
            results = [
                given[i] | {"logprob": logprob, "tokens": len(targets[keep[i]])}
                for i, logprob in zip(piece, found, strict=True)
            ]
            lines.write(piece, results)


def as_decoded(model: Model, sampler: Sampler) -> Model:
    """The model with the sampler's copy of its parameters; those that were read are let go of."""
    return dataclasses.replace(model, params=sampler.prepare(model.params))


def score_pairs(
    config: ml_collections.ConfigDict,
    model: Model,
    sampler: Sampler,
    pairs: Sequence[tuple[Tokens, Tokens]],
    buckets: batching.Buckets,
    progress: Callable[[int], object],
) -> list[float]:
    """The log-probability of each (source, target) in the precision of decoding, in nats.

    Args:
        config: of it `train.batch_size` is read.
        model: of `as_decoded`.
        sampler: of `models.make_sampler`.
        pairs: tokens, EOS included.
        buckets: that hold all of them.
        progress: told of the number of pairs that have been scored since.
    """
    found: dict[int, float] = {}
    for length in buckets.target:
        own = [
            i
            for i, (_, target) in enumerate(pairs)
            if batching.bucket_of(len(target), buckets.target) == length
        ]
        logprobs = scoring.score(
            model.params,
            sampler.config,
            model.mesh,
            [pairs[i] for i in own],
            max(1, min(config.train.batch_size, TOKENS // length)),
            batching.Buckets(buckets.source, (length,)),
            progress,
        )
        found |= zip(own, logprobs, strict=True)
    return [found[i] for i in range(len(pairs))]


def target_lengths(longest: int, count: int) -> tuple[int, ...]:
    """What targets are padded to: `count` lengths, each half the next, or more for long ones."""
    halvings = (longest // POSITIONS).bit_length() + 1
    return batching.make_buckets([1], longest, 1, max(count, halvings)).target
