"""What a peer is asked to do. Standard library alone: peers may have environments of their own."""

import dataclasses
import json
import pathlib


@dataclasses.dataclass(frozen=True)
class Work:
    """The part of `benchmarks.workloads.Workload` that peers need.

    Attributes:
        folder: the model's, in the Hugging Face layout.
        prompts: token ids, EOS included.
        samples: of each prompt.
        max_new_tokens: the longest output.
        exact: every output has so many tokens.
        dtype: to compute in, by the name that the peer has for it.
    """

    folder: str
    prompts: list[list[int]]
    samples: int
    max_new_tokens: int
    exact: bool
    dtype: str = "float32"

    @classmethod
    def load(cls, file: str) -> "Work":
        """From what `Workload.save` wrote."""
        fields = json.loads(pathlib.Path(file).read_text())
        return cls(**{field.name: fields[field.name] for field in dataclasses.fields(cls)})


def sorted_batches(prompts: list[list[int]], size: int) -> list[list[list[int]]]:
    """Prompts in batches of about equal lengths, the longest first."""
    prompts = sorted(prompts, key=len, reverse=True)
    return [prompts[i : i + size] for i in range(0, len(prompts), size)]


def pad(batch: list[list[int]], length: int = 0) -> list[list[int]]:
    """All as long as the longest or as `length`, with T5's padding at their ends."""
    longest = max(length, *map(len, batch))
    return [prompt + [0] * (longest - len(prompt)) for prompt in batch]
