"""The metrics of training steps on their way to the log, and a stop where they are not finite.

Nothing is added to a step. Its loss and gradient norm are scalars on the device as they are; those
of all steps since the last reading are read together, when a line of the log is due and before
anything is saved. The state is looked through only where it is about to be saved. So training goes
on for `train.log_every` steps at most, and what is not finite never reaches a checkpoint.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

WATCHED = {"loss": "a loss", "grad_norm": "a gradient of norm"}


class Fault(NamedTuple):
    """The first step that gave what is not finite, and what, for people to read."""

    step: int
    what: str


class StepMetrics:
    """Metrics of steps, left on the device until one is to be logged and the next step runs."""

    def __init__(
        self,
        every: int,
        write: Callable[[int, dict[str, float]], object],
        stop: Callable[[Fault], object],
        first: int = 0,
    ) -> None:
        """The metrics of `first` and of every `every`th step go to `write`; `stop` is to raise."""
        self._every, self._write, self._stop, self._first = every, write, stop, first
        self._unread: list[tuple[int, dict[str, jax.Array]]] = []

    def add(self, step: int, values: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that was just begun."""
        if self._unread and self._is_logged(self._unread[-1][0]):
            self._read()
        self._unread.append((step, values))

    def settle(self, state: Any) -> None:
        """Waits for all steps and the state that they made, which then is fit to be saved.

        Among many processes all must call it.
        """
        last = self._unread[-1][0] if self._unread else 0
        self._read()
        if not is_finite(state):
            self._stop(Fault(last, "parameters or moments that are not"))

    def _read(self) -> None:
        steps = [step for step, _ in self._unread]
        # Of steps that are not logged, only what is watched leaves the device.
        wanted = [
            values if self._is_logged(step) else {name: values[name] for name in WATCHED}
            for step, values in self._unread
        ]
        self._unread.clear()
        for step, values in zip(steps, jax.device_get(wanted), strict=True):
            if self._is_logged(step):
                self._write(step, {name: float(value) for name, value in values.items()})
            if (what := not_finite(values)) is not None:
                self._stop(Fault(step, what))

    def _is_logged(self, step: int) -> bool:
        return step % self._every == 0 or step == self._first


def not_finite(values: Mapping[str, Any]) -> str | None:
    """Which of a step's `WATCHED` metrics is not finite, for people to read; None where all are."""
    for name, what in WATCHED.items():
        if not math.isfinite(values[name]):
            return f"{what} {float(values[name])}"
    return None


def is_finite(tree: Any) -> bool:
    """Whether all arrays are finite. Among many processes all must call it."""
    return bool(jax.device_get(_is_finite(tree)))


@jax.jit
def _is_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))
