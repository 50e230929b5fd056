"""The samples of an online phase: outputs of the policy to given questions, with their verdicts."""

import functools
from collections.abc import Callable

import jax

from hir_jax.devices import keys
from hir_jax.hindsight.sample import Sample
from hir_jax.run import judging, terminal
from hir_jax.run.asking import Asking


def draw(
    asking: Asking,
    key: jax.Array,
    *,
    samples: int,
    iteration: int,
    progress: Callable[[int], object],
) -> list[Sample]:
    """So many samples of each example, drawn as `config.sample` says; in the examples' order."""
    drawn_as = asking.config.sample
    draws = functools.partial(
        asking.sampler,
        asking.params,
        asking.prompts(asking.questions.instructions.wanted),
        key,
        drawn_as.temperature,
        samples,
        guide=asking.guide(drawn_as.guidance),
        among=asking.among("sample"),
    )
    return judging.as_samples(asking.examples, asking.judged(draws, progress), iteration)


def draw_from(asking: Asking, *, samples: int, iteration: int, title: str) -> list[Sample]:
    """`draw` outside of a run: by the config's seed, with a progress bar."""
    with terminal.progress(len(asking.examples) * samples, title, "sample") as bar:
        return draw(
            asking,
            keys.make(asking.config.seed),
            samples=samples,
            iteration=iteration,
            progress=bar.update,
        )
