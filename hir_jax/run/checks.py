"""What a run is refused for once its model, its questions and its checkpoint are read."""

from typing import Any

from hir_jax.data import Splits
from hir_jax.errors import UserError
from hir_jax.run import checksums, finite
from hir_jax.run.evaluation import Evaluation
from hir_jax.run.progress import Progress


def check_splits(splits: Splits) -> None:
    """Raises UserError where there is nothing to train on, or nothing to test on."""
    if not splits.train or not splits.test:
        raise UserError(
            f"Expected questions to train on and to test on; the splits' sizes are {splits.sizes}. "
            "Look at config.data: its paths, test_fraction, max_source_tokens with too_long."
        )


def check_progress(progress: Progress, iterations: int, workdir: str) -> None:
    """Raises UserError where a run has begun more iterations than it is to have, or another version
    wrote what it is to be compared with at its end."""
    Evaluation.from_json(progress.before)
    begun = progress.iteration - (not progress.sampled)
    if begun > iterations:
        raise UserError(
            f"config.iterations: expected at least {begun}, since the run in {workdir} has begun "
            f"so many; found {iterations}."
        )


def check_weights(state: Any, where: str) -> None:
    """Raises UserError where an array of the state is not finite."""
    if not finite.is_finite(state):
        leaves = checksums.flatten(state)
        faulty = [name for name, leaf in leaves.items() if not finite.is_finite(leaf)]
        raise UserError(
            f"Expected finite weights, found NaN or infinity in {where}, in {len(faulty)} arrays "
            f"of {len(leaves)}, first {faulty[0]}. Give others: another config.model.path or "
            "config.lora.path or, for a run that was saved so, another --workdir."
        )
