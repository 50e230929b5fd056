"""--mode=score: log-probabilities of given outputs."""

import json

import ml_collections

from hir_jax.commands.lines import check_output, fit, open_output, read_jsonl
from hir_jax.commands.policy import load_policy
from hir_jax.model import batching
from hir_jax.run import metrics
from hir_jax.training import scoring


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
    keep, sources = fit(config, source, [line for line, _ in records], tokens)
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
