"""Hindsight: samples, their instructions rewritten by what they achieved, and their sub-outputs.

Source: Zhang, Liu, Wong, Abbeel, Gonzalez, "The Wisdom of Hindsight Makes Language Models Better
Instruction Followers", arXiv 2302.05206. In all drawings below a token is a letter and the closing
EOS a dollar sign.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample
from hir_jax.hindsight.verifiers.texts import reference_form
from hir_jax.model.codec import Tokens

MODES = ("full", "suffix", "window")
FLIPS = ("one", "all")


@dataclasses.dataclass(frozen=True)
class Goal:
    """What an instruction asks of an output.

    Attributes:
        correct: to be a right answer, else a wrong one.
        facts: by name what is to hold of it, and what is not.
    """

    correct: bool
    facts: tuple[tuple[str, bool], ...] = ()

    def against(self, *places: int) -> "Goal":
        """The goal with the opposite at these places: 0 is correctness, 1 the first fact."""
        names = [name for name, _ in self.facts]
        asked = [self.correct, *(holds for _, holds in self.facts)]
        correct, *holds = (one != (place in places) for place, one in enumerate(asked))
        return Goal(correct, tuple(zip(names, holds, strict=True)))


@dataclasses.dataclass(frozen=True)
class Instructions:
    """What instructions are composed of.

    Attributes:
        correct: asks for a right answer.
        wrong: asks for a wrong one.
        facts: by name what asks for one of which the fact holds, and of which it does not.
    """

    correct: str
    wrong: str
    facts: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict, hash=False)

    def text(self, goal: Goal) -> str:
        """The instruction that asks for a goal."""
        phrases = [self.facts[name][0 if holds else 1] for name, holds in goal.facts]
        return " ".join([self.correct if goal.correct else self.wrong, *phrases])

    @property
    def wanted(self) -> Goal:
        """What samples are drawn under: a right answer of which every fact holds."""
        return Goal(True, tuple((name, True) for name in self.facts))

    @property
    def opposite(self) -> Goal:
        """What asks for a wrong answer, and else for the same."""
        return self.wanted.against(0)

    @property
    def asked(self) -> list[Goal]:
        """What a policy is evaluated under: the wanted goal, then each part of it asked against."""
        return [self.wanted, *(self.wanted.against(i) for i in range(1 + len(self.facts)))]


def achieved(sample: Sample, facts: Iterable[str]) -> Goal:
    """φ of the paper: the goal that an output has achieved, as far as these facts go."""
    return Goal(sample.correct, tuple((name, sample.facts.get(name, False)) for name in facts))


@dataclasses.dataclass(frozen=True)
class Pair:
    """One training pair, relabeled.

    Attributes:
        example_id: the question.
        prefix: tokens appended to the encoder input, the part of the output before `target`.
        target: tokens for the decoder to predict.
        goal: what it achieved; its instruction is p*.
        opposite: the goal of p⁻; where it is not said, right is wrong in it and wrong is right.
        weight: what it counts for; 1 on average over an epoch.
        scalars: what a method's loss reads besides, one a pair or one a token of `target`.
    """

    example_id: str
    prefix: Tokens
    target: Tokens
    goal: Goal
    opposite: Goal | None = None
    weight: float = 1.0
    scalars: Mapping[str, float | Sequence[float]] = dataclasses.field(
        default_factory=dict, hash=False
    )

    def __post_init__(self) -> None:
        if self.opposite is None:
            object.__setattr__(self, "opposite", self.goal.against(0))

    @property
    def correct(self) -> bool:
        """Whether it is trained on as a right answer, or as a wrong one."""
        return self.goal.correct


@dataclasses.dataclass(frozen=True)
class Facts:
    """How facts go into training instructions; none: of right and wrong alone.

    Attributes:
        names: of the facts, in the order in which instructions speak of them.
        shown: how likely an instruction speaks of each of them.
        flip: what p⁻ asks against: "one" part of the goal, drawn, or "all".
    """

    names: tuple[str, ...] = ()
    shown: float = 1.0
    flip: str = "one"

    def add(self, pair: Pair, sample: Sample, rng: np.random.Generator) -> Pair:
        """The pair, of a sample, with some of the sample's facts in its two goals.

        An output that is right and short, but not polite::

            p*              right, short, not polite
            p⁻ flips one    wrong, short, not polite    or right, long, not polite
                                                        or right, short, polite
            p⁻ flips all    wrong, long, polite

        The facts are those of the finished output, the verdict is the pair's own.
        """
        if not self.names:
            return pair
        shown = [name for name in self.names if rng.random() < self.shown]
        goal = Goal(pair.correct, achieved(sample, shown).facts)
        parts = 1 + len(shown)
        flipped = range(parts) if self.flip == "all" else [rng.integers(parts)]
        return dataclasses.replace(pair, goal=goal, opposite=goal.against(*flipped))


NO_FACTS = Facts()


def full(sample: Sample) -> Pair:
    """The whole output under its own verdict."""
    return Pair(sample.example_id, (), sample.tokens, Goal(sample.correct))


def suffix(sample: Sample, rng: np.random.Generator, prob: float, eos_ids: Sequence[int]) -> Pair:
    """The output from a random start on, under the verdict of the finished output.

    With probability `prob` the start is uniform over the tokens before the EOS, else 0::

        tokens  a b c $      start 0, 1 or 2
        start   0            prefix -      target a b c $
        start   1            prefix a      target b c $
        start   2            prefix a b    target c $
    """
    length = len(sample.tokens) - _is_closed(sample, eos_ids)
    start = int(rng.integers(length)) if length and rng.random() < prob else 0
    tokens = sample.tokens
    return Pair(sample.example_id, tokens[:start], tokens[start:], Goal(sample.correct))


def window(
    sample: Sample,
    rng: np.random.Generator,
    eos_ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    answer: str,
) -> Pair:
    """The sub-output of the reference code (tianjunz/HIR), kept for comparison with it.

    Of L tokens, the EOS counted, the start is even in [0, L-3) and the end odd in (start, L]; with
    three tokens or fewer the whole is used. The prefix is o[:start] and the target o[start:end].
    A window that ends early is judged by the text of o[:end], in `reference_form`:

    - part of the answer, anywhere in it: correct, and the target stays open;
    - equal to the answer: correct, and the target is closed with an EOS;
    - neither: the verdict of the finished output, and the target is closed with an EOS.

    So the wrong output "(B)" to a question whose answer is "(A)" gives, each half the time::

        tokens  ( B ) $      start 0; end 1 or 3
        end     1            target (          correct
        end     3            target ( B ) $    wrong

    The reference code closes a target by decoding and encoding it again, which can change the first
    token of one that starts inside a word; here the sampled tokens are kept.
    """
    tokens, length = sample.tokens, len(sample.tokens)
    if length <= 3:
        return full(sample)
    start = int(rng.choice(np.arange(0, length - 3, 2)))
    end = int(rng.choice(np.arange(start + 1, length + 1, 2)))
    prefix, target = tokens[:start], tokens[start:end]
    if end == length:
        return Pair(sample.example_id, prefix, target, Goal(sample.correct))
    text, answer = reference_form(decode(tokens[:end])), reference_form(answer)
    is_open = text in answer and text != answer
    closing = tokens[-1:] if _is_closed(sample, eos_ids) and not is_open else ()
    correct = sample.correct or text in answer
    return Pair(sample.example_id, prefix, target + closing, Goal(correct))


def _is_closed(sample: Sample, eos_ids: Sequence[int]) -> bool:
    return sample.tokens != () and sample.tokens[-1] in eos_ids


def hindsight_pairs(
    samples: Iterable[Sample],
    *,
    mode: str,
    prob: float,
    seed: int,
    iteration: int,
    epoch: int,
    eos_ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    answers: Mapping[str, str],
    facts: Facts = NO_FACTS,
    opening_ids: Sequence[int] = (),
) -> list[Pair]:
    """The training pairs of one epoch: a sub-output of each sample, in the order of the samples.

    The draw for a sample depends on (seed, iteration, epoch) and on which sample it is, never on
    where it stands among the others.

    A token that only opens outputs (such as a BOS) is no part of what is drawn from. It opens each
    target, since a decoder never says anything else without having said it::

        tokens  O a b c $    start 0, 1 or 2, of a b c $
        start   1            prefix a      target O b c $

    Args:
        samples: the view of the replay buffer.
        mode: one of `MODES`.
        prob: how likely `suffix` draws a start; the other modes do not read it.
        seed: of the run, from 0 on like `iteration` and `epoch`.
        iteration: the iteration that trains now, which may be later than the sample's own.
        epoch: of this iteration.
        eos_ids: the ids that close an output.
        decode: tokens to text, special tokens left out; read by `window` alone.
        answers: for each example id its first target; read by `window` alone.
        facts: that instructions speak of.
        opening_ids: the ids that open an output.

    Raises:
        UserError: `mode` is unknown.
    """

    def rng(sample: Sample) -> np.random.Generator:
        question = zlib.crc32(sample.example_id.encode())
        key = [seed, iteration, epoch, question, sample.iteration, sample.index]
        return np.random.default_rng(key)

    def part(sample: Sample, rng: np.random.Generator) -> Pair:
        opens = tuple(token for token in sample.tokens[:1] if token in opening_ids)
        body = dataclasses.replace(sample, tokens=sample.tokens[len(opens) :])
        pair = of_body(body, rng)
        return dataclasses.replace(pair, target=opens + pair.target)

    def of_body(sample: Sample, rng: np.random.Generator) -> Pair:
        match mode:
            case "full":
                return full(sample)
            case "suffix":
                return suffix(sample, rng, prob, eos_ids)
            case "window":
                return window(sample, rng, eos_ids, decode, answers[sample.example_id])
        raise UserError(f"Unknown sub-output mode {mode!r}. Expected one of {', '.join(MODES)}.")

    drawn = ((sample, rng(sample)) for sample in samples)
    return [facts.add(part(sample, draws), sample, draws) for sample, draws in drawn]
