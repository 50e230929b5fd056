"""A policy, and what it says: of its own, and of given outputs."""

import dataclasses
import numbers
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from hir_jax import shipped
from hir_jax.commands import policy as policies
from hir_jax.commands import sample as sampling
from hir_jax.commands import score as scoring
from hir_jax.commands.lines import check_finite
from hir_jax.data.example import Example, format_prompt
from hir_jax.decoding.prompt import uid
from hir_jax.errors import UserError
from hir_jax.library import inputs
from hir_jax.model import batching
from hir_jax.model.codec import Tokens
from hir_jax.run import answering, configs, models, prompts, settings, workdirs, writing
from hir_jax.run.models import Model


@dataclasses.dataclass(frozen=True)
class Policy:
    """A model, and how it is asked.

    Attributes:
        name: for people to read.
        model: its shape, parameters, tokenizer and mesh.
        config: its instructions, and what `sample`, `score` and `relabel` are not told.
    """

    name: str
    model: Model = dataclasses.field(repr=False)
    config: ml_collections.ConfigDict = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Output:
    """One output of a policy.

    Attributes:
        text: what it says.
        tokens: the ids that were drawn, with the closing EOS where one was.
        logprob: of all tokens under the model's own (untempered, untruncated) distribution, in
            nats.
        readable: whether all tokens have a text; a verifier cannot read it otherwise.
        margin: with "sample.rerank" log π(o | p_correct) - log π(o | p_wrong), in nats.
    """

    text: str
    tokens: Tokens
    logprob: float
    readable: bool = True
    margin: float | None = None


def load(source: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Policy:
    """A policy, on the devices that there are.

    Args:
        source: a folder or a name on the Hugging Face hub of a T5, or the workdir of a run, whose
            best checkpoint is taken.
        changes: to the run's config, or to the defaults for a model that is no run's:
            {"model.dtype": "bfloat16", "mesh.tensor": 4} and the like.

    Raises:
        UserError: there is no such model or it is at fault, or changes are.
    """
    source, changes, workdir = inputs.path(source, "source"), inputs.changes(changes), None
    workdirs.check_local({"source": source})
    if workdirs.is_begun(pathlib.Path(source)):
        workdir = source
        made = configs.make(f"{shipped.OF_A_WORKDIR}:{source}", changes)
    else:
        made = configs.make(configs.DEFAULTS, {"model.path": source} | changes)
    model, name = policies.load_policy(made, workdir)
    return Policy(name, model, made)


def check_policy(policy: Any) -> None:
    """Raises UserError where it is another thing than a policy, such as a model's name."""
    if not isinstance(policy, Policy):
        raise UserError(f"Expected a policy, of `hir_jax.load`, found {policy!r:.200}.")


def sample(
    policy: Policy,
    asked: Sequence[Example | str],
    *,
    samples: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    max_new_tokens: int | None = None,
    seed: int | None = None,
    progress: Callable[[int], object] = lambda n: None,
) -> list[list[Output]]:
    """Outputs of a policy; `--mode=sample`.

    What is None is as `policy.config` has it. Draws are keyed by the seed and the place in `asked`:
    what else is asked does not change them.

    Args:
        policy: of `load`.
        asked: questions, which are put into the template under the instruction that asks for a
            right answer; or prompts, used as they are.
        samples: outputs of each.
        temperature: 0 gives the likeliest tokens, and one output.
        top_k: likeliest tokens kept; 0 keeps all.
        top_p: probability kept.
        max_new_tokens: longest output, EOS included.
        seed: of the draws.
        progress: told of the number of outputs that have ended since it was told last.

    Returns:
        The outputs of each question or prompt, in their order.

    Raises:
        UserError: a value is at fault, a prompt is too long, or the model overflows.
    """
    check_policy(policy)
    asked, progress = inputs.listed(asked), inputs.function(progress, "progress")
    if not isinstance(asked, list) or not all(isinstance(each, str | Example) for each in asked):
        raise UserError(
            f"Expected a list of questions, of `hir_jax.examples` or `questions`, or of prompts, "
            f"found {asked!r:.200}."
        )
    given = {
        "seed": seed,
        "sample.samples": samples,
        "sample.temperature": temperature,
        "sample.top_k": top_k,
        "sample.top_p": top_p,
        "sample.max_new_tokens": max_new_tokens,
    }
    config = configs.changed(policy.config, {k: v for k, v in given.items() if v is not None})
    settings.check(config)
    raw = [i for i, each in enumerate(asked) if isinstance(each, str)]
    if raw and sampling.by_two(config):
        raise UserError(
            f"Expected questions with sample.guidance and sample.rerank, found a prompt at {raw[0]}"
            ": a prompt as it is has no opposite."
        )
    if not asked:
        return []
    model, codec = policy.model, policy.model.codec

    def texts(instruction: str) -> list[str]:
        return [a if isinstance(a, str) else format_prompt(instruction, a) for a in asked]

    sides = sampling.encode_sides(config, codec, texts)
    lengths = [max(map(len, both)) for both in zip(*sides, strict=True)]
    sampler = models.make_sampler(config, model, _source_buckets(config, lengths))
    uids = [uid(str(line)) for line in range(1, len(asked) + 1)]  # as the lines of a file
    params = sampler.prepare(model.params)
    counts = [0 if isinstance(each, str) else len(each.options) for each in asked]
    named = [(f"prompt {i}", count) for i, count in enumerate(counts)]
    allowed = answering.load(config, "sample", codec, named)
    among = allowed and allowed.among(counts)
    drawn = sampling.draw(config, model, sampler, params, sides, uids, progress, among)
    for i, own in enumerate(drawn):
        check_finite([each.output.logprob for each in own], f"prompt {i}")
    return [
        [
            Output(
                codec.decode(output.tokens),
                output.tokens,
                output.logprob,
                codec.is_readable(output.tokens),
                margin,
            )
            for output, margin in own
        ]
        for own in drawn
    ]


def score(
    policy: Policy,
    pairs: Sequence[tuple[str | Tokens, str | Tokens]],
    *,
    progress: Callable[[int], object] = lambda n: None,
) -> list[float]:
    """The log-probability of each output given its prompt, in nats; `--mode=score`.

    Args:
        policy: of `load`.
        pairs: of a prompt, used as it is, and an output; either as text, which an EOS is put
            behind, or as tokens, such as `Output.tokens` and `Pair.source_tokens`.
        progress: told of the number of outputs that have been scored since it was told last.

    Raises:
        UserError: there are no such tokens, a prompt is too long, or the model overflows.
    """
    check_policy(policy)
    pairs, progress = inputs.listed(pairs), inputs.function(progress, "progress")
    given = pairs if isinstance(pairs, list) else [pairs]
    if odd := [each for each in given if not isinstance(each, list | tuple) or len(each) != 2]:
        raise UserError(f"Expected pairs of a prompt and an output, found {odd[0]!r:.200}.")
    if not pairs:
        return []
    config, model = policy.config, policy.model
    sources = _tokens(model, "prompt", [prompt for prompt, _ in pairs], model.codec.encode)
    targets = _tokens(model, "output", [output for _, output in pairs], model.codec.encode_outputs)
    named = {f"pair {i}": target for i, target in enumerate(targets)}
    writing.tell_unknown(model.codec, "outputs", named)
    source_buckets = _source_buckets(config, list(map(len, sources)))
    longest = max(map(len, targets))
    target_buckets = scoring.target_lengths(longest, config.buckets.target)
    sampler = models.make_sampler(config, model, source_buckets)
    found = scoring.score_pairs(
        config,
        scoring.as_decoded(model, sampler),
        sampler,
        list(zip(sources, targets, strict=True)),
        batching.Buckets(source_buckets, target_buckets),
        progress,
    )
    for i, logprob in enumerate(found):
        check_finite([logprob], f"pair {i}")
    return found


def _tokens(
    model: Model,
    what: str,
    given: Sequence[str | Tokens],
    encode: Callable[[Sequence[str]], list[Tokens]],
) -> list[Tokens]:
    """Texts as tokens, with an EOS; tokens as they are, checked."""
    size = model.config.vocab_size
    encoded = iter(encode([each for each in given if isinstance(each, str)]))
    tokens = []
    for i, each in enumerate(given):
        own = (*next(encoded), model.codec.eos_id) if isinstance(each, str) else inputs.listed(each)
        whole = isinstance(own, list | tuple) and len(own) > 0
        if not whole or not all(isinstance(t, numbers.Integral) and 0 <= t < size for t in own):
            raise UserError(
                f"{what} {i}: expected a text, or one token or more from 0 to {size - 1}; found "
                f"{each!r:.200}."
            )
        tokens.append(tuple(own))
    return tokens


def _source_buckets(config: ml_collections.ConfigDict, lengths: Sequence[int]) -> tuple[int, ...]:
    """What prompts are padded to. Raises UserError where one is too long."""
    named = {f"prompt {i}": length for i, length in enumerate(lengths)}
    prompts.check_lengths(named, config.data.max_source_tokens, "error")
    return batching.best_lengths(lengths, config.buckets.source)
