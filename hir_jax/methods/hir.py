"""HIR: Hindsight Instruction Relabeling (Zhang, Liu, Wong, Abbeel, Gonzalez, 2302.05206).

All samples are imitated, right ones under "answer correctly" and wrong ones under "answer wrongly",
each also told from the opposite instruction:

    L = L_supervised + α L_contrastive - β H        (the entropy is the frame's)

With more than one fact (ours) instructions also say which of those that the verifier names hold of
the output; the opposite one asks against one of them, or all. Compare 2509.22638, 2512.23457.

When: a right output is rare, or both instructions are to be followed, so that the policy can be
asked either way, judge its own outputs and be guided. When not: nearly every question has a right
sample; imitating those alone (`farl`) is then as good at half the work.
"""

import dataclasses
from typing import Any, ClassVar, Self

from hir_jax.hindsight.relabel import Facts
from hir_jax.methods.imitation import Imitation
from hir_jax.methods.method import OPPOSITE
from hir_jax.training import losses
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Statistics

FORMS = ("pairwise", "in_batch")


@dataclasses.dataclass(frozen=True)
class Hir(Imitation):
    """The whole method.

    Attributes:
        contrastive: one of `FORMS`: the reference code's, or the paper's Eq. 4.
        contrastive_weight: α.
        contrastive_smoothing: ε_c of the pairwise form.
    """

    contrastive: str = "pairwise"
    contrastive_weight: float = 0.0
    contrastive_smoothing: float = 0.0

    reads: ClassVar[tuple[str, ...]] = (
        *Imitation.reads,
        "loss.contrastive",
        "instruction.facts",
        "hir.",
    )
    relabels: ClassVar[bool] = True

    @classmethod
    def make(cls, config: Any) -> Self:
        """By `config.loss` and `config.hir` as well; what is not said of ε_c is said of ε."""
        loss, smoothing = config.loss, config.loss.contrastive_smoothing
        facts = Facts(tuple(config.instruction.facts), config.hir.shown, config.hir.flip)
        return dataclasses.replace(
            super().make(config),
            contrastive=loss.contrastive,
            contrastive_weight=loss.contrastive_weight,
            contrastive_smoothing=loss.smoothing if smoothing is None else smoothing,
            facts=facts,
        )

    @property
    def needs(self) -> frozenset[str]:
        """Of the pairwise form the opposite prompt."""
        pairwise = self.contrastive_weight != 0 and self.contrastive == "pairwise"
        return frozenset({OPPOSITE} if pairwise else ())

    @property
    def crossed(self) -> bool:
        """Of the in-batch form."""
        return self.contrastive_weight != 0 and self.contrastive == "in_batch"

    def terms(self, statistics: Statistics) -> Terms:
        """L_supervised and α L_contrastive."""
        terms, s, weight = super().terms(statistics), statistics, self.contrastive_weight
        if OPPOSITE in self.needs:
            own, other = (losses.mean_logprob(x.logprob, s.mask_BxT) for x in (s.own, s.opposite))
            terms["contrastive"] = losses.pairwise_contrastive(
                own, other, s.weight_B, self.contrastive_smoothing, weight
            )
        elif self.crossed:
            terms["contrastive"] = losses.in_batch_contrastive(s.crossed(), s.weight_B, weight)
        return terms
