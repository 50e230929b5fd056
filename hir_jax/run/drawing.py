"""The samples of an online phase: outputs of the policy to given questions, with their verdicts."""

import functools
from collections.abc import Callable, Sequence

import jax
import ml_collections

from hir_jax.data.example import Example
from hir_jax.decoding.sampler import Sampler
from hir_jax.devices import keys
from hir_jax.hindsight.sample import Sample
from hir_jax.model.codec import Codec
from hir_jax.model.config import Params
from hir_jax.run import choosing, judging, terminal
from hir_jax.run.models import Model
from hir_jax.run.questions import Questions


def draw(
    config: ml_collections.ConfigDict,
    sampler: Sampler,
    params: Params,
    examples: Sequence[Example],
    questions: Questions,
    codec: Codec,
    key: jax.Array,
    *,
    samples: int,
    iteration: int,
    progress: Callable[[int], object],
) -> list[Sample]:
    """So many samples of each example, drawn as `config.sample` says; in the examples' order."""
    drawn_as = config.sample
    draws = functools.partial(
        sampler,
        params,
        questions.prompts.prompts(examples, questions.instructions.wanted),
        key,
        drawn_as.temperature,
        samples,
        guide=choosing.guide_of(questions, examples, drawn_as.guidance, drawn_as.guidance_cutoff),
        among=questions.among(drawn_as.among, examples),
    )
    found = judging.judged_as_drawn(draws, questions.verifier, examples, codec, progress)
    return judging.as_samples(examples, found, iteration)


def draw_from(
    config: ml_collections.ConfigDict,
    sampler: Sampler,
    model: Model,
    examples: Sequence[Example],
    questions: Questions,
    *,
    samples: int,
    iteration: int,
    title: str,
) -> list[Sample]:
    """`draw` outside of a run: of a model, by the config's seed, with a progress bar."""
    with terminal.progress(len(examples) * samples, title, "sample") as bar:
        return draw(
            config,
            sampler,
            model.params,
            examples,
            questions,
            model.codec,
            keys.make(config.seed),
            samples=samples,
            iteration=iteration,
            progress=bar.update,
        )
