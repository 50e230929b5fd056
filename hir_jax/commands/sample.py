"""--mode=sample: outputs of a policy for given questions or prompts."""

import json
from typing import Any

import jax
import ml_collections

from hir_jax.commands.lines import check_output, fit, open_output, read_jsonl
from hir_jax.commands.policy import load_policy
from hir_jax.data.example import Example, format_prompt
from hir_jax.decoding.prompt import Prompt, uid
from hir_jax.errors import UserError
from hir_jax.model import batching
from hir_jax.run import metrics, models
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
    """
    check_output(output)
    records = read_jsonl(source, one_of=("question", "prompt"))
    model, _ = load_policy(config, workdir)
    texts = [_prompt_text(config, record, source, line) for line, record in records]
    tokens = [(*ids, model.codec.eos_id) for ids in model.codec.encode(texts)]
    keep, buckets = fit(config, source, [line for line, _ in records], tokens)
    sampler = models.make_sampler(config, model, buckets)
    params = sampler.prepare(model.params)
    key = jax.random.key(config.seed)
    count = 1 if config.sample.temperature == 0 else config.sample.samples
    with (
        open_output(output) as out,
        metrics.progress(len(keep) * count, "sampling", "sample") as bar,
    ):
        for indices in batching.chunks(keep, PROMPTS_A_WRITE):
            asked = [Prompt(tokens[i], uid(str(records[i][0]))) for i in indices]
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


def _prompt_text(
    config: ml_collections.ConfigDict, record: dict[str, Any], source: str, line: int
) -> str:
    if "prompt" in record:
        return record["prompt"]
    options = record.get("options", [])
    if not isinstance(options, list) or not all(isinstance(o, str) for o in options):
        raise UserError(f"{source}: line {line}: expected options as a list of texts.")
    example = Example("", record["question"], tuple(options), (), "", "")
    instructions = instructions_of(config)
    return format_prompt(instructions.text(instructions.wanted), example)
