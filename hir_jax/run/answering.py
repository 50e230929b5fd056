"""How outputs are found: among given ones, and by beam search; see docs/decoding.md."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import ml_collections

from hir_jax.data.example import Example, letter
from hir_jax.data.files import raise_faults, read_text
from hir_jax.decoding import beam
from hir_jax.decoding.beam import Beams
from hir_jax.decoding.prompt import Among, Output, Prompt, Receive
from hir_jax.decoding.sampler import Sampler
from hir_jax.decoding.trie import Trie
from hir_jax.devices import keys, processes
from hir_jax.errors import UserError
from hir_jax.model.codec import Codec, Tokens
from hir_jax.model.config import Params

OPTIONS = "options"  # of `among`: what else there is, is a file's name


@dataclasses.dataclass(frozen=True)
class Allowed:
    """The outputs that there may be.

    Attributes:
        trie: of them.
        roots: by the number of a question's options; empty where all have a file's outputs.
        digest: of what is allowed.
    """

    trie: Trie
    roots: Mapping[int, int]
    digest: str

    def among(self, options: Sequence[int]) -> Among:
        """For questions with so many options each."""
        return Among(self.trie, [self.roots[n] if self.roots else 0 for n in options])


def load(
    config: ml_collections.ConfigDict,
    section: str,
    codec: Codec,
    options: Sequence[tuple[str, int]],
) -> Allowed | None:
    """What `config.sample.among` or `config.evaluate.among` allows; None where that is anything.

    Args:
        config: of a run.
        section: "sample" or "evaluate".
        codec: the tokenizer.
        options: a name of each question for people, and how many options it has.

    Raises:
        UserError: a question has no options; the file cannot be read or is empty; an output cannot
            be written by the tokenizer, or has more than `config.sample.max_new_tokens`; or
            processes have read other outputs.
    """
    how, field = config[section].among, f"config.{section}.among"
    if not how:
        return None
    limit = config.sample.max_new_tokens
    if how == OPTIONS:
        without = [name for name, count in options if not count]
        if without:
            raise UserError(
                f"{field}: expected options with every question, found {len(without)} of "
                f"{len(options)} without, first {without[0]}. Leave these out, or give a file with "
                "an output a line."
            )
        counts = sorted({count for _, count in options})
        sets, faults = _tokens(codec, [letter(i) for i in range(counts[-1])], "option", limit)
        if faults:
            raise UserError(f"{field}: {'; '.join(faults[:3])}.")
        roots = {count: root for root, count in enumerate(counts)}
        made = [sets[:count] for count in counts]
    else:
        path, roots = pathlib.Path(how).expanduser(), {}
        lines = [line.strip() for line in read_text(path).split("\n")]
        if not any(lines):
            raise UserError(f"{field}: expected an output a line in {how}, found an empty file.")
        only, faults = _tokens(codec, lines, "line", limit)
        raise_faults(path, faults)
        made = [only]
    digest = hashlib.sha256(repr((roots, [sorted({*own}) for own in made])).encode()).hexdigest()
    processes.check_same({field: digest})
    return Allowed(Trie.make(made), roots, digest)


def _tokens(
    codec: Codec, texts: Sequence[str], what: str, limit: int
) -> tuple[list[Tokens], list[str]]:
    """The tokens of texts that are not blank, EOS included; and what is wrong with which."""
    numbered = [(number, text) for number, text in enumerate(texts, 1) if text]
    encoded = codec.encode_outputs([text for _, text in numbered])
    outputs, faults = [(*tokens, codec.eos_id) for tokens in encoded], []
    for (number, text), output in zip(numbered, outputs, strict=True):
        if codec.lacks(output):
            faults.append(f"{what} {number}: {text!r} has characters that the tokenizer has not")
        elif len(output) > limit:
            faults.append(
                f"{what} {number}: {len(output)} tokens, more than "
                f"config.sample.max_new_tokens={limit}"
            )
    return outputs, faults


def counted(examples: Sequence[Example]) -> list[tuple[str, int]]:
    """How many options each question has, for `load`."""
    return [(e.where or e.id, len(e.options)) for e in examples]


def beams(config: ml_collections.ConfigDict, section: str) -> Beams | None:
    """The search of `config.sample.beams` or `config.evaluate.beams`; None where there is none."""
    width = config[section].beams
    return Beams(width, **config.beam.to_dict()) if width > 1 else None


def best(
    sampler: Sampler,
    params: Params,
    prompts: Sequence[Prompt],
    beams: Beams | None,
    among: Among | None,
    receive: Receive = lambda outputs: None,
) -> list[Output]:
    """One output to each prompt: of the likeliest tokens, or the best of a search."""
    if beams is None:
        options = {"receive": receive, "among": among}
        outputs = sampler(params, prompts, keys.make(0), temperature=0.0, **options)
    else:

        def first(found: Mapping[int, list[Output]]) -> None:
            receive({(i, 0): own[0] for i, own in found.items()})

        outputs = beam.search(sampler, params, prompts, beams, first, among)
    return [own[0] for own in outputs]


def said(among: str, beams: int) -> str:
    """What is unusual about the answers of an evaluation, for people: ", 4 beams"."""
    return (f", among {among}" if among else "") + (f", {beams} beams" if beams > 1 else "")
