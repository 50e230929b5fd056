"""One output of the online phase, with its verdict."""

import dataclasses
from typing import Any, Self

from hir_jax.errors import UserError

Tokens = tuple[int, ...]

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "example_id": (str,),
    "index": (int,),
    "tokens": (list,),
    "text": (str,),
    "correct": (bool,),
    "parsed": (bool,),
    "logprob": (float, int),
    "iteration": (int,),
    "read": (str,),
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One output that the model gave to a question under the correct-answer instruction.

    Attributes:
        example_id: the question, `Example.id`.
        index: which of the R samples of this question in this iteration, from 0.
        tokens: the sampled ids, with the closing EOS where one was drawn and no padding. An output
            cut at the length limit has no EOS, and no target made from it gets one.
        text: the decoded tokens; those without a text of their own by their names.
        correct: the verdict.
        parsed: the output could be read as an answer at all.
        logprob: log-probability of the tokens under the sampling policy, summed, in nats.
        iteration: the iteration of the online phase that drew it.
        read: what the verifier took for the answer, '' where nothing.
    """

    example_id: str
    index: int
    tokens: Tokens
    text: str
    correct: bool
    parsed: bool
    logprob: float
    iteration: int
    read: str = ""

    def to_json(self) -> dict[str, Any]:
        """The record that `from_json` reads back equal."""
        return dataclasses.asdict(self) | {"tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, record: Any, where: str = "a sample") -> Self:
        """Reads one record; `where` (file and line) is for the message. `read` may be absent.

        Raises:
            UserError: fields are missing, unknown or of another type; all are listed.
        """
        if not isinstance(record, dict):
            raise UserError(f"{where}: expected a JSON object, found {record!r}.")
        record = {"read": ""} | record  # as earlier versions wrote it
        faults = [f"field {key!r} is missing" for key in _JSON_TYPES if key not in record]
        faults += [f"field {key!r} is unknown" for key in record if key not in _JSON_TYPES]
        for key, types in _JSON_TYPES.items():
            # `type() in`, since isinstance would take True for an int.
            if key in record and type(record[key]) not in types:
                faults.append(f"{key!r} must be {types[0].__name__}, found {record[key]!r}")
        tokens = record.get("tokens")
        if isinstance(tokens, list) and not all(type(t) is int and t >= 0 for t in tokens):
            faults.append(f"'tokens' must hold integers from 0, found {tokens!r}")
        if faults:
            raise UserError(f"{where}: not a sample as hir_jax writes it: {'; '.join(faults)}.")
        return cls(**record | {"tokens": tuple(tokens), "logprob": float(record["logprob"])})
