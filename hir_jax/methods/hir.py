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

from hir_jax.hindsight import replay
from hir_jax.hindsight.relabel import Facts, Pair
from hir_jax.methods.imitation import Imitation
from hir_jax.methods.method import OPPOSITE, View
from hir_jax.training import losses
from hir_jax.training.losses import Terms
from hir_jax.training.objective import Statistics

FORMS = ("pairwise", "in_batch")
SCORES = ("mean", "sum")
IMITATED = "imitated"  # the scalar of a row that weighs it in L_supervised


@dataclasses.dataclass(frozen=True)
class Hir(Imitation):
    """The whole method.

    Attributes:
        contrastive: one of `FORMS`: the reference code's, or the paper's Eq. 4.
        contrastive_weight: α.
        contrastive_smoothing: ε_c of the pairwise form.
        score: what it compares of an output: the mean of its tokens' log-probabilities, or the sum.
        share_right: of all weight, that of right outputs; 0 leaves it as it comes (the paper).
        wrong_weight: of wrong outputs in L_supervised; 1 in the paper. L_contrastive has all alike.
    """

    contrastive: str = "pairwise"
    contrastive_weight: float = 0.0
    contrastive_smoothing: float = 0.0
    score: str = "mean"
    share_right: float = 0.0
    wrong_weight: float = 1.0

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
            score=loss.contrastive_score,
            share_right=config.hir.share_right,
            wrong_weight=config.hir.wrong_weight,
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

    @property
    def of_rows(self) -> tuple[str, ...]:
        """What an output counts for in L_supervised, where that is not the same for all."""
        return () if self.wrong_weight == 1 else (IMITATED,)

    def pairs(self, view: View) -> list[Pair]:
        """A part of each sample, relabeled."""
        pairs = replay.shared(super().pairs(view), self.share_right)
        if not self.of_rows:
            return pairs
        weight = {True: 1.0, False: self.wrong_weight}
        return [dataclasses.replace(p, scalars={IMITATED: weight[p.correct]}) for p in pairs]

    def terms(self, statistics: Statistics) -> Terms:
        """L_supervised and α L_contrastive."""
        s, weight = statistics, self.contrastive_weight
        imitated = s
        if self.of_rows:
            imitated = s._replace(weight_BxT=s.weight_BxT * s.scalars[IMITATED][:, None])
        terms = super().terms(imitated)
        if OPPOSITE in self.needs:
            score = losses.mean_logprob if self.score == "mean" else losses.sum_logprob
            own, other = (score(x.logprob, s.mask_BxT) for x in (s.own, s.opposite))
            terms["contrastive"] = losses.pairwise_contrastive(
                own, other, s.weight_B, self.contrastive_smoothing, weight
            )
        elif self.crossed:
            terms["contrastive"] = losses.in_batch_contrastive(s.crossed(), s.weight_B, weight)
        return terms
