"""Hindsight: samples, their instructions rewritten by what they achieved, and their sub-outputs.

Source: Zhang, Liu, Wong, Abbeel, Gonzalez, "The Wisdom of Hindsight Makes Language Models Better
Instruction Followers", arXiv 2302.05206. In all drawings below a token is a letter and the closing
EOS a dollar sign.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample
from hir_jax.hindsight.verifiers.texts import reference_form

Tokens = tuple[int, ...]
MODES = ("full", "suffix", "window")


@dataclasses.dataclass(frozen=True)
class Instructions:
    """The two goals: ask for a correct answer, ask for a wrong one."""

    correct: str
    wrong: str


def relabel(instructions: Instructions, correct: bool) -> tuple[str, str]:
    """φ of the paper: (p*, p⁻), the instruction that an output fulfils and the opposite one."""
    if correct:
        return instructions.correct, instructions.wrong
    return instructions.wrong, instructions.correct


@dataclasses.dataclass(frozen=True)
class Pair:
    """One training pair, relabeled.

    Attributes:
        example_id: the question.
        prefix: tokens appended to the encoder input, the part of the output before `target`.
        target: tokens for the decoder to predict.
        correct: train under the correct-answer instruction, else under the wrong-answer one.
        weight: what it counts for; 1 on average over an epoch.
        scalars: what a method's loss reads besides, one a pair or one a token of `target`.
    """

    example_id: str
    prefix: Tokens
    target: Tokens
    correct: bool
    weight: float = 1.0
    scalars: Mapping[str, float | Sequence[float]] = dataclasses.field(default_factory=dict)


def full(sample: Sample) -> Pair:
    """The whole output under its own verdict."""
    return Pair(sample.example_id, (), sample.tokens, sample.correct)


def suffix(sample: Sample, rng: np.random.Generator, prob: float, eos_id: int) -> Pair:
    """The output from a random start on, under the verdict of the finished output.

    With probability `prob` the start is uniform over the tokens before the EOS, else 0::

        tokens  a b c $      start 0, 1 or 2
        start   0            prefix -      target a b c $
        start   1            prefix a      target b c $
        start   2            prefix a b    target c $
    """
    length = len(sample.tokens) - _is_closed(sample, eos_id)
    start = int(rng.integers(length)) if length and rng.random() < prob else 0
    tokens = sample.tokens
    return Pair(sample.example_id, tokens[:start], tokens[start:], sample.correct)


def window(
    sample: Sample,
    rng: np.random.Generator,
    eos_id: int,
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
        return Pair(sample.example_id, prefix, target, sample.correct)
    text, answer = reference_form(decode(tokens[:end])), reference_form(answer)
    is_open = text in answer and text != answer
    closing = (eos_id,) if _is_closed(sample, eos_id) and not is_open else ()
    return Pair(sample.example_id, prefix, target + closing, sample.correct or text in answer)


def _is_closed(sample: Sample, eos_id: int) -> bool:
    return sample.tokens[-1:] == (eos_id,)


def hindsight_pairs(
    samples: Iterable[Sample],
    *,
    mode: str,
    prob: float,
    seed: int,
    iteration: int,
    epoch: int,
    eos_id: int,
    decode: Callable[[Sequence[int]], str],
    answers: Mapping[str, str],
) -> list[Pair]:
    """The training pairs of one epoch: a sub-output of each sample, in the order of the samples.

    The draw for a sample depends on (seed, iteration, epoch) and on which sample it is, never on
    where it stands among the others.

    Args:
        samples: the view of the replay buffer.
        mode: one of `MODES`.
        prob: how likely `suffix` draws a start; the other modes do not read it.
        seed: of the run, from 0 on like `iteration` and `epoch`.
        iteration: the iteration that trains now, which may be later than the sample's own.
        epoch: of this iteration.
        eos_id: the id that closes an output.
        decode: tokens to text, special tokens left out; read by `window` alone.
        answers: for each example id its first target; read by `window` alone.

    Raises:
        UserError: `mode` is unknown.
    """

    def rng(sample: Sample) -> np.random.Generator:
        question = zlib.crc32(sample.example_id.encode())
        key = [seed, iteration, epoch, question, sample.iteration, sample.index]
        return np.random.default_rng(key)

    match mode:
        case "full":
            return [full(s) for s in samples]
        case "suffix":
            return [suffix(s, rng(s), prob, eos_id) for s in samples]
        case "window":
            return [window(s, rng(s), eos_id, decode, answers[s.example_id]) for s in samples]
    raise UserError(f"Unknown sub-output mode {mode!r}. Expected one of {', '.join(MODES)}.")


def correct_only(samples: Iterable[Sample]) -> list[Sample]:
    """The samples that Final-Answer RL, a baseline of the paper, imitates."""
    return [sample for sample in samples if sample.correct]


def answer_pairs(
    examples: Iterable[Example], encode: Callable[[str], Sequence[int]], eos_id: int
) -> list[Pair]:
    """Supervised fine-tuning, a baseline of the paper: the first target of each example.

    `encode` gives the tokens of a text *without* an EOS; the EOS is put on here.
    """
    return [Pair(e.id, (), (*encode(e.targets[0]), eos_id), correct=True) for e in examples]
