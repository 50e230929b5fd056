"""What an iteration trains on: pairs made of samples or answers, and batches of them."""

from collections.abc import Iterator, Sequence

import ml_collections
import numpy as np

from hir_jax.hindsight import relabel, replay
from hir_jax.hindsight.relabel import Pair
from hir_jax.hindsight.sample import Sample
from hir_jax.model.codec import Codec
from hir_jax.run.questions import Questions
from hir_jax.training.batch import Batch, TrainingExample, make_batch, plan_batches


def epochs(
    config: ml_collections.ConfigDict,
    questions: Questions,
    codec: Codec,
    buffer: Sequence[Sample],
    iteration: int,
) -> list[list[Pair]]:
    """The pairs of each epoch of an iteration, by `config.algorithm`."""
    if config.algorithm == "sft":
        answers = relabel.answer_pairs(
            questions.splits.train, lambda text: codec.encode([text])[0], codec.eos_id
        )
        return [answers] * config.train.epochs
    counted = config.replay.dedup == "count"
    samples = replay.view(
        replay.distinct(buffer) if counted else buffer,
        max_size=config.replay.max_size,
        seed=config.seed,
        hold_out=config.replay.hold_out,
    )
    if config.algorithm == "farl":
        samples = relabel.correct_only(samples)
    times = replay.times_drawn(samples, buffer) if counted else None
    answers = {name: example.targets[0] for name, example in questions.by_id.items()}
    return [
        replay.weigh(
            relabel.hindsight_pairs(
                samples,
                mode=config.sub_output.mode,
                prob=config.sub_output.prob,
                seed=config.seed,
                iteration=iteration,
                epoch=epoch,
                eos_id=codec.eos_id,
                decode=codec.decode,
                answers=answers,
            ),
            times,
            config.replay.share_right,
        )
        for epoch in range(config.train.epochs)
    ]


def batches(
    config: ml_collections.ConfigDict,
    questions: Questions,
    epochs: Sequence[Sequence[Pair]],
    key: Sequence[int],
) -> Iterator[Batch]:
    """The batches of all epochs, in order; `key`, with the epoch's number, decides their order."""
    prompts = questions.prompts
    for epoch, pairs in enumerate(epochs):
        examples = [
            TrainingExample(
                positive=prompts.source(pair.example_id, pair.correct, pair.prefix),
                negative=prompts.source(pair.example_id, not pair.correct, pair.prefix),
                target=pair.target,
                correct=pair.correct,
                weight=pair.weight,
            )
            for pair in pairs
        ]
        lengths = [(max(len(e.positive), len(e.negative)), len(e.target)) for e in examples]
        rng = np.random.default_rng([*key, epoch])
        plan = plan_batches(lengths, config.train.batch_size, questions.buckets, rng)
        for indices, shape in plan:
            yield make_batch([examples[i] for i in indices], config.train.batch_size, shape)
