"""Which examples tell one story: they may not part in a split.

What the published files hold is found by one rule for all tasks, without a list of their names:

1. The story is the question without its last sentence, where that asks something or is left open
   ("At the end of the game, Alice has the"). Examples with the same story, the same question or the
   same question and options are one. A text that more than `_MOST` examples have is no story, but
   an instruction ("Which statement is sarcastic?"); then the next longer one counts.
2. So are those that a family of ours reads as the same: a syntax tree, a list, a set of words.
3. Stories that are much alike, that begin alike ("The nurse was running from the laborer because
   he / because she smelled awful") or have the same words in another order (a list of films) are
   one. How alike that is depends on the task: where one story after the other would hang together,
   they are one template filled in, and the bar rises.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Collection, Hashable, Iterator, Sequence

from hir_jax.data.canonical import canonical, question_key
from hir_jax.data.example import Example
from hir_jax.data.generators import FAMILIES

_MOST = 20  # examples of one story
_RUN = 3  # words in a row that likeness is measured by
_BARS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of likeness
_MOST_ALIKE = 0.1  # of a task's stories; beyond, they are a template's

_OPTIONS = re.compile(r"\n\s*options:\s*\n.*", re.DOTALL | re.IGNORECASE)
# After ".", "?" or "!", but not after initials and titles, nor before a small letter.
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Za-z]\.)(?<!\b[DJMS][rst]\.)(?<!\bMrs\.)(?<!\bvs\.)"
    r"(?<=[.?!؟])[\"'”’)\]]*\s+(?=[^\sa-z])|\n+"
)
_ASKS = re.compile(r"[?؟][\"'”’)\]]*$")
_TELLS = re.compile(r"[.!][\"'”’)\]]*$")


def unite(examples: Sequence[Example]) -> list[Example]:
    """One premise for those that share a premise or ask the same, each directly or through others.

    It is the first of theirs in alphabetical order.
    """
    groups = _united([(example.premise, question_key(example)) for example in examples])
    return _named(examples, [example.premise for example in examples], groups)


def with_premises(examples: Sequence[Example]) -> list[Example]:
    """The examples of one task of BIG-bench or BIG-Bench Hard, with the stories they tell."""
    texts = [_texts(example) for example in examples]
    sharing = collections.Counter(text for own in texts for text in set(own))
    keys = [[text for text in own if sharing[text] <= _MOST] or [own[-1]] for own in texts]
    stories = sorted({own[0] for own in keys})
    alike = dict(zip(stories, _alike(stories), strict=True))
    groups = _united(
        [
            {*own, alike[own[0]], *_of_family(example)}
            for own, example in zip(keys, examples, strict=True)
        ]
    )
    return _named(examples, [own[0] for own in keys], groups)


def story_of(question: str) -> str:
    """The canonical question, less a last sentence that asks something or is left open."""
    *told, last = [s for s in _SENTENCE_END.split(question.strip()) if s] or [""]
    # "Which is sarcastic? (a) Sure (b) No" is open at its end, but asks before.
    is_open = not _TELLS.search(last) and not any(map(_ASKS.search, told))
    return canonical(" ".join(told) if told and (_ASKS.search(last) or is_open) else question)


def _texts(example: Example) -> tuple[str, str, str]:
    """What may be the story: without the last sentence, without the options, all of it."""
    question = _OPTIONS.sub("", example.question)
    whole = canonical("\n".join((example.question, *sorted(example.options))))
    return story_of(question), canonical(question), whole


def _in_any_order(story: str) -> tuple[str, ...]:
    return tuple(sorted(re.findall(r"\w+|[^\w\s]", story)))


def _of_family(example: Example) -> Iterator[Hashable]:
    family = FAMILIES.get(example.task)
    if family and family.read and (premise := family.read(example.question)):
        yield family, premise


def _alike(stories: Sequence[str]) -> list[int]:
    """The number of each story's group; alike stories are in one group, if through others."""
    likeness_of = likenesses(stories)
    for bar in _BARS:
        pairs: list[list[Hashable]] = [[_in_any_order(story)] for story in stories]
        for pair, likeness in likeness_of.items():
            if likeness >= bar:
                for i in pair:
                    pairs[i].append(pair)
        groups = _united(pairs)
        most = max(collections.Counter(groups).values(), default=0)
        if most <= max(_MOST / 2, _MOST_ALIKE * len(stories)):
            return groups
    return list(range(len(stories)))


def likenesses(stories: Sequence[str]) -> dict[tuple[int, int], float]:
    """Pairs (i < j) of texts -> how alike they are, 0 to 1, where that reaches the lowest bar.

    The runs of words that two share, of all that either has; or the runs of their common beginning,
    of all that the longer has. A run weighs log(stories / stories that have it): what all share
    says nothing.
    """
    runs = [_runs(story) for story in stories]
    sets = [set(own) for own in runs]
    having = collections.defaultdict(list)
    for i, own in enumerate(sets):
        for run in own:
            having[run].append(i)
    weight = {run: math.log(len(stories) / len(those)) for run, those in having.items()}
    total = [sum(map(weight.__getitem__, own)) for own in sets]
    found = {}
    for i, own in enumerate(sets):
        # Stories that share common runs alone are not alike.
        rare = (having[run] for run in own if len(having[run]) <= _MOST)
        for j in {j for those in rare for j in those if j > i}:
            shared = sum(map(weight.__getitem__, own & sets[j]))
            begun = sum(map(weight.__getitem__, _common_beginning(runs[i], runs[j])))
            either, longer = total[i] + total[j] - shared, max(total[i], total[j])
            if longer and (likeness := max(shared / either, begun / longer)) >= _BARS[0]:
                found[i, j] = likeness
    return found


def _runs(story: str) -> list[tuple[str, ...]]:
    words = re.findall(r"\w+", story)
    return [tuple(words[i : i + _RUN]) for i in range(max(1, len(words) - _RUN + 1))]


def _common_beginning(one: list, other: list) -> list:
    same = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        same += 1
    return list(dict.fromkeys(one[:same]))


def _united(keys_of: Sequence[Collection[Hashable]]) -> list[int]:
    """The group of each item: items that share a key, directly or through others, have the same."""
    parent = list(range(len(keys_of)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Hashable, int] = {}
    for i, keys in enumerate(keys_of):
        for key in keys:
            parent[root(i)] = root(first.setdefault(key, i))
    return [root(i) for i in range(len(keys_of))]


def _named(
    examples: Sequence[Example], stories: Sequence[str], groups: Sequence[int]
) -> list[Example]:
    """The examples, the premise of each the first story of its group in alphabetical order."""
    premise: dict[int, str] = {}
    for story, group in zip(stories, groups, strict=True):
        premise[group] = min(story, premise.get(group, story))
    return [
        dataclasses.replace(example, premise=premise[group])
        for example, group in zip(examples, groups, strict=True)
    ]
