"""The questions that a config asks for, as the model reads them."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import ml_collections
from absl import logging

from hir_jax import data
from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.hindsight.relabel import Instructions
from hir_jax.methods.method import ANSWERS
from hir_jax.model import batching
from hir_jax.model.codec import Codec
from hir_jax.run import answering, judging, prompts, settings, writing
from hir_jax.run.answering import Allowed
from hir_jax.run.prompts import PromptTable


@dataclasses.dataclass(frozen=True)
class Questions:
    """The questions of all splits as the model reads them.

    Attributes:
        splits: train, dev and test, without prompts that are too long.
        prompts: their tokens under every instruction, with the tokenizer.
        buckets: lengths to pad to.
        verifier: what judges outputs.
        allowed: what outputs there may be, by the values of `config.sample.among` and
            `config.evaluate.among`.
    """

    splits: data.Splits
    prompts: PromptTable
    buckets: batching.Buckets
    verifier: verify.Verifier
    allowed: Mapping[str, Allowed | None]

    @property
    def by_id(self) -> dict[str, data.Example]:
        """Every example, those that were left out as well."""
        return {example.id: example for example in self.prompts.examples}

    @property
    def instructions(self) -> Instructions:
        """p_correct, p_wrong and the phrases for facts."""
        return self.prompts.instructions

    @property
    def evaluated(self) -> int:
        """Prompts of the largest evaluation in a run."""
        splits = self.splits
        return max(len(splits.dev), len(splits.test)) * len(self.instructions.asked)


def load_questions(config: ml_collections.ConfigDict, codec: Codec, only: str = "") -> Questions:
    """The questions of `config.data`, checked and encoded; or those of one split only, by its name.

    Raises:
        UserError: the data is at fault, two sides have a prompt in common, a prompt or (for sft) an
            answer is too long, or an answer cannot be written; the split of `only` is empty.
    """
    verifier = judging.verifier_of(config)
    splits = data.load(config.data)
    if only:
        splits = data.Splits((), (), ())._replace(**{only: expect(splits, only)})
    instructions = prompts.instructions_of(config)
    every = [example for split in splits for example in split]
    verify.check_suits(config.verifier, every)
    table = PromptTable(codec, every, instructions)
    lengths = {example.id: table.length(example.id) for example in every}
    dropped = prompts.check_lengths(lengths, config.data.max_source_tokens, config.data.too_long)
    dropped |= writing.check_answers(codec, every, verifier, config.data.unwritable)
    wanted = table.under(instructions.wanted)
    writing.tell_unknown(codec, "prompts", wanted)
    splits = _without(dropped, splits)
    alike = prompts.check_sides(splits, wanted, config.data.protocol, config.data.alike)
    splits = _without(alike, splits)
    _check_answers(config, codec, splits.train)
    _check_facts(config, verifier, every)
    buckets = batching.make_buckets(
        [length for name, length in lengths.items() if name not in dropped | alike],
        config.sample.max_new_tokens,
        config.buckets.source,
        config.buckets.target,
    )
    _check_same(splits, table)
    sections = {config[section].among: section for section in ("evaluate", "sample")}
    allowed = {
        how: answering.load(config, section, codec, answering.counted(every))
        for how, section in sections.items()
    }
    return Questions(splits, table, buckets, verifier, allowed)


def _without(dropped: set[str], splits: data.Splits) -> data.Splits:
    return data.Splits(*(tuple(e for e in split if e.id not in dropped) for split in splits))


def expect(splits: data.Splits, name: str) -> tuple[data.Example, ...]:
    """The questions of a split. Raises UserError where there are none."""
    examples = getattr(splits, name)
    if not examples:
        raise UserError(
            f"config.evaluate.split: expected a split with questions, found {name!r}; sizes are "
            f"{splits.sizes}."
        )
    return examples


def _check_same(splits: data.Splits, table: PromptTable) -> None:
    """Processes that read other questions would train on other batches, each on its own."""
    if processes.many():
        wanted = table.instructions.wanted
        tokens = [[table.source(e.id, wanted, ()) for e in split] for split in splits]
        processes.check_same({"questions": zlib.crc32(repr((splits, tokens)).encode())})


def _check_facts(
    config: ml_collections.ConfigDict, verifier: verify.Verifier, examples: Sequence[data.Example]
) -> None:
    """Refuses facts that the verifier names for none of the true answers."""
    wanted, named = set(config.instruction.facts), set()
    for example in examples:
        if wanted <= named:
            return
        named.update(verifier(example.targets[0], example).facts)
    if missing := sorted(wanted - named):
        raise UserError(
            f"config.instruction.facts: expected facts that the verifier {config.verifier!r} names "
            f"for every output, whether they hold of it or not; found {', '.join(missing)}. Of the "
            f"true answers it names {', '.join(sorted(named)) or 'none'}: take these, or another "
            "config.verifier."
        )


def _check_answers(
    config: ml_collections.ConfigDict, codec: Codec, examples: Sequence[data.Example]
) -> None:
    limit = config.sample.max_new_tokens
    lengths = [len(tokens) + 1 for tokens in codec.encode_outputs([e.targets[0] for e in examples])]
    over = [length for length in lengths if length > limit]
    if not over:
        return
    report = (
        f"{len(over)} of {len(lengths)} training answers are longer than "
        f"config.sample.max_new_tokens={limit}, the longest {max(over)} tokens"
    )
    if ANSWERS in settings.method_of(config).needs:
        raise UserError(f"{report}; raise it, since {config.algorithm} trains on whole answers.")
    logging.warning("%s: the model cannot give them in full.", report)
