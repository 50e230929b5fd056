"""Final-Answer RL, a baseline of the HIR paper (2302.05206); the same as RAFT (2304.06767).

The right outputs alone are imitated, under "answer correctly":

    L = -log π(o | q)    of right o

When: most questions have a right sample, and only correct answers are wanted. When not: right
samples are rare, since nothing is learned from wrong ones.
"""

import dataclasses
from collections.abc import Sequence

from hir_jax.hindsight.sample import Sample
from hir_jax.methods.imitation import Imitation


@dataclasses.dataclass(frozen=True)
class Farl(Imitation):
    """Cross-entropy on right outputs."""

    def chosen(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """The right ones."""
        return [sample for sample in samples if sample.correct]
