"""What a tokenizer can write: answers that come back as they were, prompts without gaps.

T5's vocabulary writes "x^2" as "x2", drops braces, and has nothing for most scripts. A question
whose answer cannot be written is never answered right; nothing else would tell.
"""

from collections.abc import Mapping, Sequence

from absl import logging

from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.verify import Verifier
from hir_jax.model.codec import Codec, Tokens


def check_answers(
    codec: Codec, examples: Sequence[Example], verifier: Verifier, unwritable: str
) -> set[str]:
    """The ids of the examples whose first answer, encoded and decoded, is not right any more.

    An answer that the verifier (the user's) does not take for right as it stands is no fault here.
    Other accepted answers that cannot be written are counted in the log.

    Args:
        codec: the tokenizer.
        examples: of all sides.
        verifier: the run's.
        unwritable: 'error' refuses all, 'drop' leaves those out and logs how many.

    Raises:
        UserError: there are such examples and `unwritable` is 'error', or no others.
    """
    lost = lost_answers(codec, examples, verifier)
    first = [each for each in lost if each[1] == each[0].targets[0]]
    if len(lost) > len(first):
        logging.warning(
            "%d further accepted answers cannot be written by the tokenizer: %r comes back as %r",
            len(lost) - len(first),
            *next((target, back) for e, target, back in lost if target != e.targets[0]),
        )
    if not first:
        return set()
    example, target, back = first[0]
    report = (
        f"{len(first)} of {len(examples)} answers cannot be written by the model's tokenizer: that "
        f"of {example.id!r}, {target!r}, comes back as {back!r}."
    )
    if unwritable == "error" or len(first) == len(examples):
        raise UserError(
            f"{report} Spell the answers otherwise, take another model, or leave such questions "
            "out with --config.data.unwritable=drop."
        )
    logging.warning("%s They are left out.", report)
    return {example.id for example, _, _ in first}


def lost_answers(
    codec: Codec, examples: Sequence[Example], verifier: Verifier
) -> list[tuple[Example, str, str]]:
    """Each answer that is right, but not any more as it comes back from the tokenizer; and that."""
    targets = [(example, target) for example in examples for target in example.targets]
    written = codec.encode([target for _, target in targets])
    return [
        (example, target, codec.decode(tokens))
        for (example, target), tokens in zip(targets, written, strict=True)
        if not _is_right(verifier, codec.read(tokens), example)
        and _is_right(verifier, target, example)
    ]


def _is_right(verifier: Verifier, text: str | None, example: Example) -> bool:
    return text is not None and bool(verifier(text, example).correct)


def tell_unknown(codec: Codec, what: str, texts: Mapping[str, Tokens]) -> None:
    """Logs how many of these, "prompts" or the like by names, have characters without a token."""
    lacking = [name for name, tokens in texts.items() if codec.lacks(tokens)]
    if lacking:
        logging.warning(
            "%d of %d %s have characters that the tokenizer cannot write, so that the model sees "
            "an unknown token: for example %r reads %r",
            len(lacking),
            len(texts),
            what,
            lacking[0],
            codec.decode(texts[lacking[0]]),
        )
