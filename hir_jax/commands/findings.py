"""What there is to say of a data set before a run: each kind of fault, with its questions."""

import collections
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import ml_collections

from hir_jax.data.canonical import canonical, question_key
from hir_jax.data.example import Example, letter
from hir_jax.data.options import movable
from hir_jax.data.splits import Splits
from hir_jax.data.stories import likenesses, with_premises
from hir_jax.hindsight.verify import Verifier
from hir_jax.model.codec import Codec
from hir_jax.run import metrics, prompts, writing
from hir_jax.run.prompts import PromptTable

ALIKE = 0.8  # from here on, of 1, two questions are nearly the same
_NO_CHANCE = 4.0  # standard deviations that are no chance any more
_SHOWN = 3  # questions of a group, and groups, on the page
_CHARACTERS = 20  # on the page
_TEXT = 60  # characters of an answer

Groups = Sequence[tuple[Example, ...]]


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set as a run would read it.

    Attributes:
        config: of the run.
        given: the questions of each side, options in the order of the file.
        asked: the same, options in the order that they are asked in.
        codec: the tokenizer.
        table: the prompts of all.
        verifier: the run's.
    """

    config: ml_collections.ConfigDict
    given: Splits
    asked: Splits
    codec: Codec
    table: PromptTable
    verifier: Verifier

    @functools.cached_property
    def all(self) -> list[Example]:
        """The questions of all sides, in the order that they were read in."""
        return sorted(itertools.chain(*self.asked), key=_place)

    @functools.cached_property
    def side(self) -> dict[str, str]:
        """The side of each question, by its id."""
        return {e.id: name for name, side in self.asked._asdict().items() for e in side}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of fault.

    Attributes:
        name: of the kind, for programs.
        says: what it is, behind the number of groups.
        groups: the questions, each by itself or those that belong together.
        refused: a run does not begin with it.
    """

    name: str
    says: str
    groups: Groups
    refused: bool = False

    def page(self) -> str:
        """For people to read."""
        where = _shown([_shown([e.where or e.id for e in g], " = ") for g in self.groups], ", ")
        return f"{len(self.groups):7,}  {self.says}\n         {where}"

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        where = [[{"id": e.id, "where": e.where} for e in group] for group in self.groups]
        about = {"name": self.name, "says": self.says, "refused": self.refused}
        return about | {"count": len(self.groups), "where": where}


def _place(example: Example) -> list[str | int]:
    """To sort by: "a.jsonl:9" stands before "a.jsonl:10"."""
    parts = re.split(r"(\d+)", example.where)
    return [int(part) if part.isdecimal() else part for part in parts]


def shown(text: str) -> str:
    """A text in quotes, on one line, cut where it is long."""
    return repr(metrics.shorten(text, _TEXT))


def _shown(items: Sequence[str], between: str) -> str:
    more = [f"... and {len(items) - _SHOWN:,} more"] if len(items) > _SHOWN else []
    return between.join([*items[:_SHOWN], *more])


def find(data: Data) -> list[Finding]:
    """All that is to be said, what a run refuses first."""
    found = [finding for look in _LOOKS for finding in look(data) if finding.groups]
    return sorted(found, key=lambda finding: not finding.refused)


def _on_two_sides(data: Data) -> Iterator[Finding]:
    """What a run refuses, since the score would not be of unseen questions."""
    refused = data.config.data.protocol != "paper"
    for name, key_of in (("premise", lambda e: e.premise), ("question", question_key)):
        groups = [g for g in _grouped(data.all, key_of) if _crosses(data, g)]
        yield Finding(f"{name}_on_two_sides", f"{name}s that stand on two sides", groups, refused)
    pairs = prompts.shared(data.asked, data.table.under(data.table.instructions.wanted))
    same = [(one, other) for _, one, _, other in pairs if question_key(one) != question_key(other)]
    says = "prompts of two sides that are the same, token by token, though their texts differ"
    dropped = refused and data.config.data.alike == "drop"
    says += "; those of the side that comes first are left out" * dropped
    yield Finding("prompt_on_two_sides", says, same, refused and not dropped)


def _lengths(data: Data) -> Iterator[Finding]:
    limit = data.config.data.max_source_tokens
    long = [e for e in data.all if data.table.length(e.id) > limit]
    says = f"prompts longer than config.data.max_source_tokens={limit}"
    yield Finding("long_prompt", *_refused_or_left_out(says, data.config.data.too_long, long))
    limit = data.config.sample.max_new_tokens
    written = data.codec.encode_outputs([e.targets[0] for e in data.all])
    long = [e for e, tokens in zip(data.all, written, strict=True) if len(tokens) >= limit]
    says = f"answers longer than config.sample.max_new_tokens={limit}, EOS included"
    yield Finding("long_answer", says, _each(long))


def _writing(data: Data) -> Iterator[Finding]:
    lost = writing.lost_answers(data.codec, data.all, data.verifier)
    first = [each for each in lost if each[1] == each[0].targets[0]]
    says = "answers that the tokenizer cannot write: {} comes back as {}"
    if first:
        says_first = says.format(*map(shown, first[0][1:]))
        examples = [example for example, _, _ in first]
        unwritable = data.config.data.unwritable
        yield Finding("unwritable_answer", *_refused_or_left_out(says_first, unwritable, examples))
    if further := [each for each in lost if each[1] != each[0].targets[0]]:
        examples = [example for example, _, _ in further]
        says = "further accepted " + says.format(*map(shown, further[0][1:]))
        yield Finding("unwritable_spelling", says, _each(examples))
    tokens = data.table.under(data.table.instructions.wanted)
    lacking = [e for e in data.all if data.codec.lacks(tokens[e.id])]
    used = sorted({c for e in lacking for text in (e.question, *e.options) for c in text})
    encoded = zip(used, data.codec.encode(used), strict=True)
    absent = [c for c, ids in encoded if data.codec.lacks(ids)]
    named = " ".join(c if c.isprintable() else repr(c)[1:-1] for c in absent[:_CHARACTERS])
    says = f"prompts with characters that the model sees as <unk>: {named}"
    yield Finding("unknown_characters", says, _each(lacking))


def _judging(data: Data) -> Iterator[Finding]:
    refused = [e for e in data.all if not data.verifier(e.targets[0], e).correct]
    says = f"answers that the verifier {data.config.verifier!r} does not take for right"
    yield Finding("answer_not_right", says, _each(refused))


def _repeats(data: Data) -> Iterator[Finding]:
    same = list(_grouped(data.all, question_key))
    differing = [group for group in same if _differ(group)]
    says = "questions that are asked again, with other answers"
    yield Finding("contradiction", says, differing)
    agreeing = [group for group in same if not _differ(group)]
    yield Finding("duplicate", "questions that are asked again", agreeing)
    texts = [canonical("\n".join((e.question, *sorted(e.options)))) for e in data.all]
    alike = sorted(likenesses(texts).items(), key=lambda item: -item[1])
    pairs = [(data.all[i], data.all[j]) for (i, j), likeness in alike if likeness >= ALIKE]
    apart = [pair for pair in pairs if len({e.premise for e in pair}) > 1]
    crossing = [pair for pair in apart if _crosses(data, pair)]
    rest = [pair for pair in apart if not _crosses(data, pair)]
    says = "pairs of questions that are nearly the same"
    yield Finding("near_duplicate_on_two_sides", f"{says}, on two sides", crossing)
    yield Finding("near_duplicate", f"{says}, on one side", rest)


def _stories(data: Data) -> Iterator[Finding]:
    groups = list(_grouped(data.all, lambda e: e.premise))
    says = "stories that several questions tell; they do not part, and intervals know them"
    yield Finding("story", says, sorted(groups, key=len, reverse=True))
    if data.config.data.source != "jsonl":  # premises are by this rule, or a stricter one
        return
    told = {example.id: example.premise for example in with_premises(data.all)}
    found = _grouped(data.all, lambda e: told[e.id])
    apart = [group for group in found if len({e.premise for e in group}) > 1]
    says = (
        "stories on two sides, as they are found in published files: questions that tell one "
        'should have the same "premise" (--config.data.fields.premise)'
    )
    yield Finding("story_on_two_sides", says, [group for group in apart if _crosses(data, group)])


def _options(data: Data) -> Iterator[Finding]:
    given = sorted((e for e in itertools.chain(*data.given) if e.options), key=_place)
    index, right, expected = option_bias(given)
    if right:
        shuffled = data.config.data.shuffle_options and data.config.data.protocol != "paper"
        says = (
            f"of {len(given):,} right options that stand at {letter(index)} in the file, where "
            f"chance would put {expected:,.0f}; they are "
            + ("shuffled (config.data.shuffle_options)" if shuffled else "not shuffled")
        )
        yield Finding("option_position", says, _each(right))
    kept = [e for e in given if movable(e.options) < len(e.options)]
    says = "questions whose options speak of letters or places: these are not shuffled"
    yield Finding("options_that_stay", says, _each(kept))
    same = [e for e in given if len({*map(canonical, e.options)}) < len(e.options)]
    yield Finding("option_twice", "questions with an option that stands there twice", _each(same))
    without = [e for e in data.all if not e.options]
    says = "questions without options, where most have some"
    few = without if len(without) < len(given) else []
    yield Finding("without_options", says, _each(few))


_LOOKS: tuple[Callable[[Data], Iterable[Finding]], ...] = (
    _on_two_sides,
    _lengths,
    _writing,
    _judging,
    _repeats,
    _stories,
    _options,
)


def option_bias(examples: Sequence[Example]) -> tuple[int, list[Example], float]:
    """The place where right options stand more often than chance would have it, the most so.

    Returns:
        Its number from 0, the questions whose right option stands there, none where chance may well
        have put all places so; and how many chance would put there.
    """
    worst, found = _NO_CHANCE, (0, [], 0.0)
    for i in range(max((len(e.options) for e in examples), default=0)):
        those = [e for e in examples if i < len(e.options)]
        right = [e for e in those if e.options[i] in e.answers]
        chances = [sum(o in e.answers for o in e.options) / len(e.options) for e in those]
        spread = math.sqrt(sum(p * (1 - p) for p in chances))
        if spread and (len(right) - sum(chances)) / spread > worst:
            worst = (len(right) - sum(chances)) / spread
            found = i, right, sum(chances)
    return found


def _differ(group: Sequence[Example]) -> bool:
    """Whether no answer is right for all of these."""
    return not frozenset.intersection(*(frozenset(map(canonical, e.answers)) for e in group))


def _refused_or_left_out(
    says: str, setting: str, examples: Sequence[Example]
) -> tuple[str, Groups, bool]:
    dropped = setting == "drop"
    return says + "; they are left out" * dropped, _each(examples), not dropped


def _each(examples: Iterable[Example]) -> Groups:
    return [(example,) for example in examples]


def _grouped(
    examples: Iterable[Example], key_of: Callable[[Example], Hashable]
) -> Iterator[tuple[Example, ...]]:
    """Those of the same key, where there are several."""
    groups = collections.defaultdict(list)
    for example in examples:
        groups[key_of(example)].append(example)
    return (tuple(group) for group in groups.values() if len(group) > 1)


def _crosses(data: Data, group: Sequence[Example]) -> bool:
    return len({data.side[example.id] for example in group}) > 1
