"""What the encoder reads for each question, and which of these prompts a run refuses."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import ml_collections
from absl import logging

from hir_jax.data.example import Example, format_prompt
from hir_jax.data.splits import Splits
from hir_jax.decoding.prompt import Prompt, uid
from hir_jax.errors import UserError
from hir_jax.hindsight.relabel import Goal, Instructions
from hir_jax.model.codec import Codec, Tokens

_SHOWN = 5  # leaks in a message


def instructions_of(config: ml_collections.ConfigDict) -> Instructions:
    """What `config.instruction` composes instructions of."""
    given = config.instruction
    facts = {name: tuple(phrases) for name, phrases in given.facts.items()}
    return Instructions(given.correct, given.wrong, facts)


@dataclasses.dataclass(frozen=True)
class PromptTable:
    """The prompts of all questions under every goal, encoded when one is first asked for.

    Attributes:
        codec: the tokenizer.
        examples: the questions.
        instructions: what the goals' instructions are composed of.
    """

    codec: Codec
    examples: Sequence[Example]
    instructions: Instructions
    _encoded: dict[Goal, dict[str, Tokens]] = dataclasses.field(default_factory=dict, init=False)

    def under(self, goal: Goal) -> dict[str, Tokens]:
        """Example id -> the tokens of its prompt, without an EOS."""
        if goal not in self._encoded:
            instruction = self.instructions.text(goal)
            texts = [format_prompt(instruction, example) for example in self.examples]
            tokens = zip(self.examples, self.codec.encode(texts), strict=True)
            self._encoded[goal] = {example.id: ids for example, ids in tokens}
        return self._encoded[goal]

    def prompts(self, examples: Iterable[Example], goal: Goal) -> list[Prompt]:
        """What is sampled from."""
        table = self.under(goal)
        return [Prompt((*table[e.id], self.codec.eos_id), uid(e.id)) for e in examples]

    def source(self, example_id: str, goal: Goal, prefix: Tokens) -> Tokens:
        """What is trained on: the prompt, the part of the output already given, EOS."""
        return (*self.under(goal)[example_id], *prefix, self.codec.eos_id)

    def length(self, example_id: str) -> int:
        """Tokens of the longest of a question's prompts, EOS included."""
        return max(len(self.under(goal)[example_id]) for goal in self._longest) + 1

    @functools.cached_property
    def _longest(self) -> list[Goal]:
        """Asking for a right and for a wrong answer, with the longer phrase for every fact."""
        facts = []
        for name, phrases in self.instructions.facts.items():
            holds, fails = map(len, self.codec.encode(list(phrases)))
            facts.append((name, holds >= fails))
        return [Goal(correct, tuple(facts)) for correct in (True, False)]


def check_sides(
    splits: Splits, prompts: dict[str, Tokens], protocol: str, alike: str = "error"
) -> set[str]:
    """The ids of examples whose prompt is, token by token, that of a later side.

    The last check of all data. It sees what the texts do not show: questions that differ in what
    the tokenizer leaves out.

    Args:
        splits: train, dev and test.
        prompts: the tokens of every example's prompt, by id.
        protocol: 'paper' lets them pass with a warning, since its split leaks by design.
        alike: 'error' refuses all, 'drop' leaves them out and logs how many.

    Raises:
        UserError: there are such prompts, the protocol is another and `alike` is 'error', or no
            others on a side.
    """
    leaks = shared(splits, prompts)
    if not leaks:
        return set()
    shown = [
        f"{one.id} in {one_side}, {other.id} in {other_side}: {one.question!r}"
        + (f" and {other.question!r}" if other.question != one.question else "")
        for one_side, one, other_side, other in leaks[:_SHOWN]
    ]
    more = [f"... and {len(leaks) - _SHOWN} more"] if len(leaks) > _SHOWN else []
    report = f"{len(leaks)} prompts of one side are, token by token, prompts of another:\n  "
    report += "\n  ".join([*shown, *more])
    if protocol == "paper":
        logging.warning("%s\nThe score is not of unseen questions alone.", report)
        return set()
    held = {prompts[e.id] for e in splits.test}
    dropped = {e.id for e in splits.dev if prompts[e.id] in held}
    held |= {prompts[e.id] for e in splits.dev}
    dropped |= {e.id for e in splits.train if prompts[e.id] in held}
    emptied = any(side and dropped.issuperset(e.id for e in side) for side in splits)
    if alike == "error" or emptied:
        raise UserError(
            f"{report}\nThe score would not be of unseen questions. Remove them from one side, or "
            "give them the same premise, or take a model whose tokenizer can tell them apart, or "
            "leave them out of the side that comes first with --config.data.alike=drop."
        )
    logging.warning("%s\n%d are left out of the side that comes first.", report, len(dropped))
    return dropped


def shared(splits: Splits, prompts: dict[str, Tokens]) -> list[tuple[str, Example, str, Example]]:
    """Two sides and an example of each, with the same prompt token by token."""
    first: dict[Tokens, tuple[str, Example]] = {}
    leaks = []
    for side, examples in splits._asdict().items():
        for example in examples:
            other_side, other = first.setdefault(prompts[example.id], (side, example))
            if other_side != side:
                leaks.append((other_side, other, side, example))
    return leaks


def check_lengths(lengths: dict[str, int], limit: int, too_long: str) -> set[str]:
    """The ids of prompts longer than the limit; never cut, only refused or left out.

    Args:
        lengths: tokens of each prompt by id.
        limit: the longest allowed, `config.data.max_source_tokens`.
        too_long: 'error' refuses all, 'drop' leaves those out and logs how many.

    Raises:
        UserError: there are such prompts and `too_long` is 'error', or no others.
    """
    over = {name for name, length in lengths.items() if length > limit}
    if not over:
        return over
    longest = max(over, key=lambda name: (lengths[name], name))
    report = (
        f"{len(over)} of {len(lengths)} prompts are longer than config.data.max_source_tokens="
        f"{limit} tokens; the longest, {longest!r}, has {lengths[longest]}."
    )
    if too_long == "error" or len(over) == len(lengths):
        raise UserError(
            f"{report} Raise the limit, or leave them out with --config.data.too_long=drop; "
            "prompts are never cut."
        )
    logging.warning("%s They are left out.", report)
    return over
