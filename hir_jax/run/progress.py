"""Where a run is: what a checkpoint holds besides arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample

After = Callable[[int], object]  # takes the number of an iteration that has ended


def ignore(iteration: int) -> None:
    """An `After` that does nothing."""


@dataclasses.dataclass
class Progress:
    """Where a run is, besides the arrays of its train state; part of every checkpoint.

    Attributes:
        iteration: the one at work, from 1; 0 before the first.
        sampled: this iteration's samples are in the buffer.
        batches: batches of this iteration trained on.
        steps: optimizer steps in all.
        buffer: the replay buffer.
        method: what the method keeps from one iteration to the next.
        drawn: samples drawn in all.
        before: the test evaluation of the starting model.
        best: of the best checkpoint on the development questions: its `Evaluation.quality`, as
            "quality", and the "iteration" and the "step" that it is of.
        accuracies: of all evaluations that choose the best checkpoint, the start's first.
        alarms: how often each kind of trouble was seen.
        metrics_bytes: length of metrics.jsonl.
        saves: how often progress was saved.
        memory: what the sampler chooses its rows by, which adds to it; see `Sampler`.
        parts: of a batch, chosen where `train.accumulation` is 0; see `fitting.make_training`.
        machine: what the run was on; see `start.machine`.
    """

    iteration: int = 0
    sampled: bool = False
    batches: int = 0
    steps: int = 0
    buffer: tuple[Sample, ...] = ()
    method: dict[str, float] = dataclasses.field(default_factory=dict)
    drawn: int = 0
    before: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    accuracies: list[float] = dataclasses.field(default_factory=list)
    alarms: dict[str, int] = dataclasses.field(default_factory=dict)
    metrics_bytes: int = 0
    saves: int = 0
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    parts: dict[str, int] = dataclasses.field(default_factory=dict)
    machine: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the checkpoint."""
        return vars(self) | {"buffer": [sample.to_json() for sample in self.buffer]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The inverse of `to_json`; absent fields have their defaults.

        Raises:
            UserError: there are fields that this hir_jax does not know, or not so.
        """
        if not isinstance(fields, dict):
            raise UserError(f"Expected the run's progress, found {fields!r}. Give another workdir.")
        unknown = fields.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UserError(
                f"The run's progress has fields unknown to this hir_jax: {sorted(unknown)}. A "
                "later one wrote it; go on with that, or give another workdir."
            )
        known = vars(cls())
        faults = [
            f"{name}: expected {type(known[name]).__name__}, found {value!r}"
            for name, value in fields.items()
            if name not in ("buffer", "before", "best") and type(value) is not type(known[name])
        ]
        if type(fields.get("buffer", [])) is not list:
            faults.append(f"buffer: expected list, found {fields['buffer']!r}")
        if faults:
            raise UserError(
                f"The run's progress is not as this hir_jax writes it: {'; '.join(faults)}. "
                "Another one wrote it; go on with that, or give another workdir."
            )
        buffer = tuple(Sample.from_json(record) for record in fields.get("buffer", ()))
        return cls(**fields | {"buffer": buffer})
