"""Questions that are put to a policy, and verdicts on what it says."""

import dataclasses
from collections.abc import Callable, Sequence

import ml_collections

from hir_jax.data.example import Example
from hir_jax.decoding.prompt import Among, Guide, Prompt
from hir_jax.decoding.sampler import Sampler
from hir_jax.hindsight.relabel import Goal
from hir_jax.model.config import Params
from hir_jax.run import judging
from hir_jax.run.judging import Judged
from hir_jax.run.questions import Questions


@dataclasses.dataclass(frozen=True)
class Asking:
    """Some questions, the policy that is asked them, and how.

    Attributes:
        config: of the run.
        sampler: what the policy answers by.
        params: the policy's.
        questions: those of the config.
        examples: of these the ones that are asked.
    """

    config: ml_collections.ConfigDict
    sampler: Sampler
    params: Params
    questions: Questions
    examples: Sequence[Example]

    def prompts(self, goal: Goal) -> list[Prompt]:
        """What is asked, under an instruction for this goal."""
        return self.questions.prompts.prompts(self.examples, goal)

    def guide(self, guidance: float) -> Guide | None:
        """What leads away from p_wrong; None without guidance."""
        if not guidance:
            return None
        away = self.prompts(self.questions.instructions.opposite)
        cutoff = self.config.sample.guidance_cutoff
        return Guide([prompt.tokens for prompt in away], guidance, cutoff)

    def among(self, section: str) -> Among | None:
        """What outputs may be, by `among` of "sample" or "evaluate"; None for any."""
        allowed = self.questions.allowed[self.config[section].among]
        return allowed and allowed.among([len(example.options) for example in self.examples])

    def judged(
        self, draw: Callable[..., object], progress: Callable[[int], object]
    ) -> list[list[Judged]]:
        """What `draw` gives of each example, with verdicts; see `judging.judged_as_drawn`."""
        asked = self.questions
        return judging.judged_as_drawn(
            draw, asked.verifier, self.examples, asked.prompts.codec, progress
        )
