"""Between text and tokens: what the encoder reads for each question, and what an output says."""

import dataclasses
from collections.abc import Iterable, Sequence

from absl import logging

from hir_jax.data.example import Example, format_prompt
from hir_jax.decoding.prompt import Prompt, uid
from hir_jax.errors import UserError
from hir_jax.hindsight.relabel import Instructions
from hir_jax.model.codec import Codec

Tokens = tuple[int, ...]


def encode_prompts(
    codec: Codec, examples: Sequence[Example], instruction: str
) -> dict[str, Tokens]:
    """Example id -> the tokens of its prompt under an instruction, without an EOS."""
    tokens = codec.encode([format_prompt(instruction, example) for example in examples])
    return {example.id: ids for example, ids in zip(examples, tokens, strict=True)}


@dataclasses.dataclass(frozen=True)
class PromptTable:
    """The prompts of all questions under both instructions; tokens end before the EOS."""

    correct: dict[str, Tokens]
    wrong: dict[str, Tokens]
    eos_id: int

    @classmethod
    def build(
        cls, codec: Codec, examples: Sequence[Example], instructions: Instructions
    ) -> "PromptTable":
        """Encodes all questions once."""
        correct = encode_prompts(codec, examples, instructions.correct)
        wrong = encode_prompts(codec, examples, instructions.wrong)
        return cls(correct, wrong, codec.eos_id)

    def prompts(self, examples: Iterable[Example], correct: bool) -> list[Prompt]:
        """What is sampled from, under one instruction."""
        table = self.correct if correct else self.wrong
        return [Prompt((*table[e.id], self.eos_id), uid(e.id)) for e in examples]

    def source(self, example_id: str, correct: bool, prefix: Tokens) -> Tokens:
        """What is trained on: the prompt, the part of the output already given, EOS."""
        table = self.correct if correct else self.wrong
        return (*table[example_id], *prefix, self.eos_id)

    def length(self, example_id: str) -> int:
        """Tokens of the longer of a question's two prompts, EOS included."""
        return max(len(self.correct[example_id]), len(self.wrong[example_id])) + 1


def check_lengths(
    lengths: dict[str, int], limit: int, too_long: str, where: str = "config.data.max_source_tokens"
) -> set[str]:
    """The ids of prompts longer than the limit; never cut, only refused or left out.

    Args:
        lengths: tokens of each prompt by id.
        limit: the longest allowed.
        too_long: 'error' refuses all, 'drop' leaves those out and logs how many.
        where: names the limit in the message.

    Raises:
        UserError: there are such prompts and `too_long` is 'error', or no others.
    """
    if too_long not in ("error", "drop"):
        raise UserError(f"config.data.too_long: expected 'error' or 'drop', found {too_long!r}.")
    over = {name for name, length in lengths.items() if length > limit}
    if not over:
        return over
    longest = max(over, key=lambda name: (lengths[name], name))
    report = (
        f"{len(over)} of {len(lengths)} prompts are longer than {where}={limit} tokens; the "
        f"longest, {longest!r}, has {lengths[longest]}."
    )
    if too_long == "error" or len(over) == len(lengths):
        raise UserError(
            f"{report} Raise the limit, or leave them out with --config.data.too_long=drop; "
            "prompts are never cut."
        )
    logging.warning("%s They are left out.", report)
    return over
