"""What a method says of itself. Loop, step, buffer and checkpoint know nothing else of it.

A method makes rows of the samples in view, with the scalars that its loss reads, and its loss of
the statistics that the shared step computes. What it does not say that it needs is not computed,
not stored and not sent to the device.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from hir_jax.data.example import Example
from hir_jax.hindsight.relabel import Goal, Pair
from hir_jax.hindsight.sample import Sample
from hir_jax.training.batch import Layout
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Objective, Statistics

OPPOSITE = "opposite prompt"  # targets are scored under p⁻ as well
LOGPROBS = "behaviour log-probs"  # samples come with each token's log-probability when drawn
REFERENCE = "reference"  # and with those under the starting model
VALUES = "value head"  # and with what the value head expected; it is trained
GROUPS = "groups"  # several samples of a question are compared
ANSWERS = "answers"  # true answers, and no samples

BEHAVIOUR = "behaviour"  # the scalars of tokens that have log μ
EPOCHS = "train.epochs"  # read by those that may learn from a sample more than once
# Read by all that draw samples.
SAMPLING = (
    "sample.samples",
    "sample.temperature",
    "sample.top_",
    "sample.kl_to_start",
    "sample.opposite",
    "sample.guid",
    "sample.among",
)


@dataclasses.dataclass(frozen=True)
class View:
    """What rows are made of.

    Attributes:
        samples: the buffer, sorted by iteration, question and index.
        examples: the training questions.
        iteration: the one that trains now.
        epoch: of this iteration.
        seed: of the run.
        encode: text to tokens, without an EOS.
        decode: tokens to text.
        eos_id: what closes an output.
        other_eos_ids: what the model may close its own with besides.
        opening_ids: what may open an output, and is no part of what it says.
        state: what `Method.after_sampling` gave.
    """

    samples: Sequence[Sample]
    examples: Sequence[Example]
    iteration: int
    epoch: int
    seed: int
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str]
    eos_id: int
    state: Mapping[str, float] = dataclasses.field(default_factory=dict)
    other_eos_ids: Sequence[int] = ()
    opening_ids: Sequence[int] = ()

    @property
    def newest(self) -> list[Sample]:
        """The samples of the iteration that trains now, all that were drawn."""
        return [sample for sample in self.samples if sample.iteration == self.iteration]


@dataclasses.dataclass(frozen=True)
class Method:
    """Base of all methods, and what holds for one that says nothing else.

    A method's own settings are its fields: `make` reads them from a config. Instances are equal
    that compute the same.

    Attributes:
        reads: fields of the config, or beginnings of their names, that not all methods read.
        defaults: of fields that a config leaves to the method, as its paper or its kind has them.
        relabels: rows may stand under another instruction than their output was drawn under.
    """

    reads: ClassVar[tuple[str, ...]] = (*SAMPLING, EPOCHS)
    defaults: ClassVar[Mapping[str, Any]] = {
        "loss.average": "tokens",
        "loss.entropy_weight": 0.0,  # it would outweigh a gradient that fades as all becomes right
        "train.learning_rate": 3e-5,  # with 5e-4 ratios are past their clips within ten steps
    }
    relabels: ClassVar[bool] = False

    @classmethod
    def make(cls, config: Any) -> Self:
        """The method as a config (an `ml_collections.ConfigDict`) has it."""
        return cls()

    @classmethod
    def faults(cls, config: Any) -> list[str]:
        """Why a config cannot be; each names a field, what is expected and what was found."""
        return []

    def pairs(self, view: View) -> list[Pair]:
        """The rows of an epoch, each with the scalars of `of_rows` and `of_tokens`."""
        raise NotImplementedError

    def terms(self, statistics: Statistics) -> Terms:
        """The loss of a batch, or of a part of it; traced by JAX."""
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[str]:
        """Of the constants above."""
        return frozenset()

    @property
    def one_pass(self) -> bool:
        """Whether it learns from each sample once, as the plain gradient does: after a few steps
        the samples are no longer the policy's, and without a ratio nothing says so."""
        return False

    @property
    def draws_samples(self) -> bool:
        """Whether there is an online phase: not for one that learns from true answers."""
        return ANSWERS not in self.needs

    @property
    def of_rows(self) -> tuple[str, ...]:
        """Scalars that its loss reads, one a row."""
        return ()

    @property
    def of_tokens(self) -> tuple[str, ...]:
        """Scalars that its loss reads, one a target token."""
        return ()

    @property
    def crossed(self) -> bool:
        """Whether it compares every output with every prompt of its batch."""
        return False

    @property
    def replay(self) -> dict[str, Any]:
        """How `hindsight.replay.add` keeps samples: by default the newest iteration's, all."""
        return {"keep_iterations": 1, "dedup": "none"}

    def after_sampling(
        self, samples: Sequence[Sample], state: Mapping[str, float]
    ) -> dict[str, float]:
        """What the method keeps from one iteration to the next, a part of every checkpoint.

        Args:
            samples: freshly drawn.
            state: what it gave an iteration ago; empty at first.
        """
        return dict(state)

    def figures(self, view: View) -> dict[str, float]:
        """What the log says of freshly drawn samples, besides what it says for all methods."""
        return {}

    def objective(self, **shared: Any) -> Objective:
        """Its loss, with settings that all methods share."""
        # The divergence from the start is measured under the instruction that was sampled under.
        opposite = OPPOSITE in self.needs or (self.relabels and bool(shared.get("kl_weight")))
        return Objective(
            terms=self.terms,
            opposite=opposite,
            values=VALUES in self.needs,
            crossed=self.crossed,
            **shared,
        )

    def layout(self, objective: Objective) -> Layout:
        """What its batches hold."""
        return Layout(objective.opposite, self.of_rows, self.of_tokens)


def whole(sample: Sample, **scalars: float | Sequence[float]) -> Pair:
    """The row of an output as it was drawn, under the instruction that it was drawn under.

    Its scalars have log μ of each token, where that was stored, besides those given.
    """
    scalars = {BEHAVIOUR: sample.logprobs} | scalars
    return Pair(sample.example_id, (), sample.tokens, Goal(True), scalars=scalars)


# `Method.defaults` of those that imitate: the HIR paper's, for a model of the size of FLAN-T5.
SUPERVISED = {**Method.defaults, "loss.entropy_weight": 1e-3, "train.learning_rate": 5e-4}
