"""Between text and tokens."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any

Tokens = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Codec:
    """A tokenizer and the id that ends a text."""

    tokenizer: Any
    eos_id: int

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, without an EOS.

        What a text says is text: "</s>" in it is read as "< /s>", never as the token of that name.
        """
        if not texts:
            return []
        plain = [self._special_name.sub(_apart, text) for text in texts]
        # Not verbose: beyond 512 tokens it would warn of "indexing errors", which T5 has none of.
        encoded = self.tokenizer(plain, add_special_tokens=False, verbose=False)
        return [tuple(ids) for ids in encoded["input_ids"]]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens but the EOS, for people: those without a text by their names."""
        # The model's EOS need not be one of the tokenizer's special tokens.
        kept = [token for token in tokens if token != self.eos_id]
        runs = itertools.groupby(kept, self._is_hidden)
        return "".join(
            "".join(map(self._name, run)) if hidden else self.tokenizer.decode(list(run))
            for hidden, run in runs
        ).strip()

    def read(self, tokens: Sequence[int]) -> str | None:
        """What an output says; None where some of its tokens, but the EOS, have no text.

        Such are special tokens and ids beyond the tokenizer's, for which models have embeddings: an
        output with a pad in it would otherwise pass for the same text without.
        """
        return self.decode(tokens) if self.is_readable(tokens) else None

    def is_readable(self, tokens: Sequence[int]) -> bool:
        """Whether each token of an output, but the EOS, has a text; see `read`."""
        return not any(self._is_hidden(token) for token in tokens if token != self.eos_id)

    def lacks(self, tokens: Sequence[int]) -> bool:
        """Whether the text that these tokens were made of has characters without a token."""
        return self.tokenizer.unk_token_id in tokens

    def _is_hidden(self, token: int) -> bool:
        return token in self._special or token >= self._size

    def _name(self, token: int) -> str:
        return self.tokenizer.convert_ids_to_tokens(token) or f"<{token}>"

    @functools.cached_property
    def _size(self) -> int:
        return len(self.tokenizer)

    @functools.cached_property
    def _special(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder
        ids = {token for token, said in added.items() if said.special}
        return frozenset(ids | set(self.tokenizer.all_special_ids))

    @functools.cached_property
    def _special_name(self) -> re.Pattern[str]:
        names = sorted(map(self._name, self._special), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names)))


def _apart(name: re.Match[str]) -> str:
    return f"{name[0][0]} {name[0][1:]}"
