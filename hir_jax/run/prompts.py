"""Between text and tokens: what the encoder reads for each question, and what an output says."""

import dataclasses
from collections.abc import Iterable, Sequence

from absl import logging

from hir_jax.data.example import Example, format_prompt
from hir_jax.data.splits import Splits
from hir_jax.decoding.prompt import Prompt, uid
from hir_jax.errors import UserError
from hir_jax.hindsight.relabel import Instructions
from hir_jax.model.codec import Codec

Tokens = tuple[int, ...]

_SHOWN = 5  # leaks in a message


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


def check_sides(splits: Splits, prompts: dict[str, Tokens], protocol: str) -> None:
    """Checks that no two sides have the same prompt, token by token: the last check of all data.

    It sees what the texts do not show: questions that differ in what the tokenizer leaves out.

    Args:
        splits: train, dev and test.
        prompts: the tokens of every example's prompt, by id.
        protocol: 'paper' lets them pass with a warning, since its split leaks by design.

    Raises:
        UserError: there are such prompts, and the protocol is another.
    """
    first: dict[Tokens, tuple[str, Example]] = {}
    leaks = []
    for side, examples in splits._asdict().items():
        for example in examples:
            other_side, other = first.setdefault(prompts[example.id], (side, example))
            if other_side != side:
                leaks.append((other_side, other, side, example))
    if not leaks:
        return
    shown = [
        f"{one.id} in {one_side}, {other.id} in {other_side}: {one.question!r}"
        + (f" and {other.question!r}" if other.question != one.question else "")
        for one_side, one, other_side, other in leaks[:_SHOWN]
    ]
    more = [f"... and {len(leaks) - _SHOWN} more"] if len(leaks) > _SHOWN else []
    report = f"{len(leaks)} prompts of one side are, token by token, prompts of another:\n  "
    report += "\n  ".join([*shown, *more])
    if protocol != "paper":
        raise UserError(
            f"{report}\nThe score would not be of unseen questions. Remove them from one side, or "
            "give them the same premise, or take a model whose tokenizer can tell them apart."
        )
    logging.warning("%s\nThe score is not of unseen questions alone.", report)


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
