"""How fast this machine does the work of an iteration, measured on a little of it."""

import collections
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import ml_collections

from hir_jax.devices import keys, processes, sharding
from hir_jax.hindsight import replay
from hir_jax.hindsight.sample import Sample
from hir_jax.run import annotate, pairs, settings, trainers
from hir_jax.run.models import Model
from hir_jax.run.questions import Questions
from hir_jax.run.trainers import Training
from hir_jax.training.batch import Batch

ITERATION = 1  # what is measured is the first one's work
STEPS = 3  # that are timed, after the one that compiles

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Timed:
    """Seconds that something takes once it is compiled, and how many more the first time."""

    seconds: float = 0.0
    compiling: float = 0.0


@dataclasses.dataclass(frozen=True)
class Pace:
    """What was measured.

    Attributes:
        sampling: of a sample, its verdict included.
        scoring: of a sample, by further passes that the method or the log asks for.
        step: of training, at the commonest lengths of a batch.
        rows: that an epoch has of a question.
        lengths: these source and target lengths, in tokens.
    """

    sampling: Timed
    scoring: Timed
    step: Timed
    rows: float
    lengths: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Iteration:
    """The work of a run's first iteration.

    Attributes:
        samples: drawn.
        steps: of training.
        answers: to development questions under all instructions, a mean over iterations.
        seconds: expected, of each part.
    """

    samples: int
    steps: int
    answers: float
    seconds: Mapping[str, float]


def measure(
    config: ml_collections.ConfigDict,
    model: Model,
    questions: Questions,
    training: Training,
    samples: Sequence[Sample],
    sampling: Timed,
) -> Pace:
    """Times what a run does besides sampling, on samples of all of `questions.splits.train`.

    The train state takes the model's parameters over, and is thrown away.
    """
    drawn = max(sample.index for sample in samples) + 1
    wanted = config.sample.samples
    samples = [sample for sample in samples if sample.index < wanted]
    if not training.method.draws_samples:
        samples = []
    samples, scoring = _score(config, model, questions, training, samples)
    step, rows, lengths = _train(config, model, questions, training, samples)
    more = max(1.0, wanted / drawn) if samples else 1.0
    return Pace(sampling, scoring, step, more * rows / len(questions.splits.train), lengths)


def expected(
    config: ml_collections.ConfigDict, pace: Pace, train: int, dev: int, asked: int
) -> Iteration:
    """What the first iteration takes at that pace.

    Args:
        config: of the run.
        pace: measured.
        train: training questions.
        dev: development questions.
        asked: instructions that each of these is answered under.
    """
    method = settings.method_of(config)
    samples = train * config.sample.samples if method.draws_samples else 0
    steps = pairs.steps(config, method, round(train * pace.rows))
    answers = asked * dev / config.evaluate.every
    seconds = {
        "sampling": samples * pace.sampling.seconds,
        "scoring": samples * pace.scoring.seconds,
        "training": steps * pace.step.seconds,
        "evaluating": answers * pace.sampling.seconds,
    }
    return Iteration(samples, steps, answers, seconds)


def timed(work: Callable[[], T], units: int) -> tuple[T, Timed]:
    """What `work` gives the second time, and its seconds a unit; the first time compiles."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    first, second = seconds
    return result, Timed(second / units, max(0.0, first - second))


def _score(
    config: ml_collections.ConfigDict,
    model: Model,
    questions: Questions,
    training: Training,
    samples: Sequence[Sample],
) -> tuple[Sequence[Sample], Timed]:
    """The samples as a run annotates them."""
    passes, params = annotate.passes(config, training.method), model.params
    if not samples or not passes:
        return samples, Timed()
    parts = (questions, model.config, model.mesh, params, params, config.train.batch_size)
    return timed(lambda: annotate.annotate(samples, passes, *parts), len(samples))


def _train(
    config: ml_collections.ConfigDict,
    model: Model,
    questions: Questions,
    training: Training,
    samples: Sequence[Sample],
) -> tuple[Timed, int, tuple[int, int]]:
    """A step, the rows of an epoch, and the lengths at which the step was taken."""
    method = training.method
    buffer, state = replay.add((), samples, **method.replay), method.after_sampling(samples, {})
    view = pairs.view(config, questions, buffer, ITERATION, 0, state)
    rows = pairs.made(method, view)
    order = (config.seed,)
    batches = [*pairs.batches(config, questions, [rows], training.layout, order)]
    if not batches:
        return Timed(), 0, (0, 0)

    def lengths(batch: Batch) -> tuple[int, int]:
        return batch.sources_BxPxS.shape[-1], batch.targets_BxT.shape[-1]

    ((commonest, _),) = collections.Counter(map(lengths, batches)).most_common(1)
    batch = next(batch for batch in batches if lengths(batch) == commonest)
    batch = processes.place(batch, sharding.batch_sharding(model.mesh))
    (train_state, reference), seconds = trainers.begin(config, model, training), []
    for _ in range(1 + STEPS):
        started = time.perf_counter()
        stepped = training.step(train_state, batch, keys.make(config.seed), reference)
        train_state, _ = jax.block_until_ready(stepped)
        seconds.append(time.perf_counter() - started)
    usual = statistics.median(seconds[1:])
    return Timed(usual, max(0.0, seconds[0] - usual)), len(rows), commonest
