"""Between text and tokens."""

import codecs
import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any

from hir_jax.errors import UserError

Tokens = tuple[int, ...]

_SENTINEL = re.compile(r"<extra_id_\d+>")
_HALF = re.compile("[\ud800-\udfff]")
_BYTES = range(3, 259)  # of a ByT5: byte b is token b + 3


@dataclasses.dataclass(frozen=True)
class Codec:
    """A tokenizer, and the ids that begin and end a text.

    Tokens are hidden that have no text: those with a role, such as pad or unknown, sentinels, and
    ids beyond the tokenizer's. Special tokens that were added besides are words of the language.

    Attributes:
        tokenizer: of transformers.
        eos_id: closes sources and targets, and ends an output.
        other_eos_ids: end an output, too.
        forced_bos_id: begins every output; None: what the tokenizer begins texts with, if anything.
    """

    tokenizer: Any
    eos_id: int
    other_eos_ids: Tokens = ()
    forced_bos_id: int | None = None

    @property
    def eos_ids(self) -> Tokens:
        """All that end an output."""
        return (self.eos_id, *self.other_eos_ids)

    @property
    def opening_ids(self) -> Tokens:
        """Those that begin an output and are no part of what it says."""
        return (*self._opening, *([] if self.forced_bos_id is None else [self.forced_bos_id]))

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, with the tokenizer's BOS if it has one (CodeT5), without an EOS.

        What a text says is text: "</s>" in it is read as "< /s>", never as the token of that name.

        Raises:
            UserError: a text holds half of a surrogate pair, or what the tokenizer refuses.
        """
        if not texts:
            return []
        if odd := next((text for text in texts if _HALF.search(text)), None):
            raise UserError(f"Expected text, found half of a surrogate pair in {odd!r:.200}.")
        plain = [self._hidden_name.sub(_apart, text) for text in texts]
        # Not verbose: beyond 512 tokens it would warn of "indexing errors", which T5 has none of.
        try:
            encoded = self.tokenizer(plain, add_special_tokens=False, verbose=False)
        except Exception as e:  # of a word that it lacks, where it has no token for such
            raise UserError(
                f"The tokenizer cannot read all texts: {e}. Give one that has a token for what it "
                "does not know."
            ) from e
        return [(*self._opening, *ids) for ids in encoded["input_ids"]]

    def encode_outputs(self, texts: Sequence[str]) -> list[Tokens]:
        """The same of what the model is to say, which may have to begin otherwise."""
        if self.forced_bos_id is None:
            return self.encode(texts)
        opening = len(self._opening)
        return [(self.forced_bos_id, *tokens[opening:]) for tokens in self.encode(texts)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens but BOS and EOS, for people: those without a text by their names."""
        runs = itertools.groupby(self._bare(tokens), self._is_hidden)
        return "".join(
            "".join(map(self._name, run)) if hidden else self.tokenizer.decode(list(run))
            for hidden, run in runs
        ).strip()

    def read(self, tokens: Sequence[int]) -> str | None:
        """What an output says; None where some of its tokens, but BOS and EOS, have no text.

        Such are hidden tokens, and bytes that are no UTF-8, which `decode` leaves out as
        transformers does: an output with a pad in it would otherwise pass for the same text
        without. A character that the longest output cuts off is left out alone.
        """
        return self.decode(tokens) if self.is_readable(tokens) else None

    def is_readable(self, tokens: Sequence[int]) -> bool:
        """Whether each token of an output, but BOS and EOS, has a text; see `read`."""
        bare = self._bare(tokens)
        if any(map(self._is_hidden, bare)):
            return False
        if type(self.tokenizer).__name__ != "ByT5Tokenizer":
            return True
        spelled = b"".join(
            bytes([token - _BYTES.start]) if token in _BYTES else self._name(token).encode()
            for token in bare
        )
        is_whole = len(tokens) > 0 and tokens[-1] in self.eos_ids
        try:
            codecs.getincrementaldecoder("utf-8")().decode(spelled, final=is_whole)
        except UnicodeDecodeError:
            return False
        return True

    def lacks(self, tokens: Sequence[int]) -> bool:
        """Whether the text that these tokens were made of has characters without a token."""
        return self.tokenizer.unk_token_id in tokens

    def _bare(self, tokens: Sequence[int]) -> list[int]:
        begun = len(tokens) > 0 and tokens[0] in self.opening_ids
        # The model's EOS need not be one of the tokenizer's special tokens.
        return [token for token in tokens[begun:] if token not in self.eos_ids]

    def _is_hidden(self, token: int) -> bool:
        return token in self._hidden or token >= self._size

    def _name(self, token: int) -> str:
        return self.tokenizer.convert_ids_to_tokens(token) or f"<{token}>"

    @functools.cached_property
    def _opening(self) -> Tokens:
        bos = self.tokenizer.bos_token_id
        begun = bos is not None and self.tokenizer("").input_ids[:1] == [bos]
        return (bos,) if begun and bos != self.eos_id else ()

    @functools.cached_property
    def _size(self) -> int:
        return len(self.tokenizer)

    @functools.cached_property
    def _hidden(self) -> frozenset[int]:
        roles = (
            name for name in self.tokenizer.special_tokens_map.values() if isinstance(name, str)
        )
        added = self.tokenizer.added_tokens_decoder
        sentinels = {id for id, token in added.items() if _SENTINEL.fullmatch(token.content)}
        return frozenset(sentinels | set(map(self.tokenizer.convert_tokens_to_ids, roles)))

    @functools.cached_property
    def _hidden_name(self) -> re.Pattern[str]:
        names = sorted(map(self._name, self._hidden), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names)) or "(?!)")  # a tokenizer may have none


def _apart(name: re.Match[str]) -> str:
    return f"{name[0][0]} {name[0][1:]}"
