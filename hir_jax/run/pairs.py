"""What an iteration trains on: a method's pairs, and batches of them."""

from collections.abc import Iterator, Mapping, Sequence

import ml_collections
import numpy as np

from hir_jax.errors import UserError
from hir_jax.hindsight.relabel import Pair
from hir_jax.hindsight.sample import Sample
from hir_jax.methods.method import Method, View
from hir_jax.model.codec import Tokens
from hir_jax.run.questions import Questions
from hir_jax.training.batch import Batch, Layout, TrainingExample, make_batch, plan_batches


def view(
    config: ml_collections.ConfigDict,
    questions: Questions,
    buffer: Sequence[Sample],
    iteration: int,
    epoch: int,
    state: Mapping[str, float],
) -> View:
    """What the method makes the rows of an epoch of."""
    codec = questions.prompts.codec
    return View(
        samples=buffer,
        examples=questions.splits.train,
        iteration=iteration,
        epoch=epoch,
        seed=config.seed,
        encode=lambda text: codec.encode_outputs([text])[0],
        decode=codec.decode,
        eos_id=codec.eos_id,
        other_eos_ids=codec.other_eos_ids,
        opening_ids=codec.opening_ids,
        state=state,
    )


def made(method: Method, view: View) -> list[Pair]:
    """The rows of an epoch. Raises UserError where a method of the user's gives something else."""
    rows = method.pairs(view)
    if not isinstance(rows, list) or not all(isinstance(row, Pair) for row in rows):
        raise UserError(
            f"config.algorithm: expected `pairs` of {type(method).__name__} to give a list of "
            f"rows, as hir_jax.methods.method.whole makes them; found {rows!r:.200}."
        )
    scalars = {*method.of_rows, *method.of_tokens}
    if lacking := [row for row in rows if not scalars <= row.scalars.keys()]:
        raise UserError(
            f"config.algorithm: expected each row of {type(method).__name__} to have "
            f"{', '.join(sorted(scalars))}, as its `of_rows` and `of_tokens` say; found one with "
            f"{', '.join(sorted(lacking[0].scalars))}."
        )
    return rows


def epochs(config: ml_collections.ConfigDict, method: Method) -> int:
    """Passes over an iteration's rows; some methods learn from each once."""
    return 1 if method.one_pass else config.train.epochs


def steps(config: ml_collections.ConfigDict, method: Method, rows: int) -> int:
    """Training steps of an iteration with so many rows, of which some methods take a number."""
    most = getattr(method, "max_size", 0)  # of those with a buffer; 0 is all
    return epochs(config, method) * -(-min(rows, most or rows) // config.train.batch_size)


def advantages(method: Method, view: View) -> dict[tuple[str, Tokens], float]:
    """By question and output, what a method that weighs outputs by an advantage gives each.

    Of tokens' advantages the mean. Nothing of a method without.
    """
    if "advantage" not in (*method.of_rows, *method.of_tokens):
        return {}
    return {
        (pair.example_id, pair.target): float(np.mean(pair.scalars["advantage"]))
        for pair in made(method, view)
    }


def batches(
    config: ml_collections.ConfigDict,
    questions: Questions,
    epochs: Sequence[Sequence[Pair]],
    layout: Layout,
    key: Sequence[int],
) -> Iterator[Batch]:
    """The batches of all epochs, in order; `key`, with the epoch's number, decides their order."""
    prompts = questions.prompts
    for epoch, pairs in enumerate(epochs):
        examples = [
            TrainingExample(
                positive=prompts.source(pair.example_id, pair.goal, pair.prefix),
                negative=prompts.source(pair.example_id, pair.opposite, pair.prefix),
                target=pair.target,
                correct=pair.correct,
                weight=pair.weight,
                scalars=pair.scalars,
            )
            for pair in pairs
        ]
        lengths = [(max(len(e.positive), len(e.negative)), len(e.target)) for e in examples]
        rng = np.random.default_rng([*key, epoch])
        plan = plan_batches(lengths, config.train.batch_size, questions.buckets, rng)
        for indices, shape in plan:
            rows = [examples[i] for i in indices]
            yield make_batch(rows, config.train.batch_size, shape, layout)
