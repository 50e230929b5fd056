"""Between text and tokens."""

import dataclasses
from collections.abc import Sequence
from typing import Any

Tokens = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Codec:
    """A tokenizer and the id that ends a text."""

    tokenizer: Any
    eos_id: int

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, without an EOS."""
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False)
        return [tuple(ids) for ids in encoded["input_ids"]]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        # The model's EOS need not be one of the tokenizer's special tokens.
        kept = [token for token in tokens if token != self.eos_id]
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()
