"""One output of the online phase, with its verdict."""

import dataclasses
from typing import Any, Self

from hir_jax.errors import UserError
from hir_jax.model.codec import Tokens

_NUMBER = (float, int)
_REQUIRED: dict[str, tuple[type, ...]] = {
    "example_id": (str,),
    "index": (int,),
    "tokens": (list,),
    "text": (str,),
    "correct": (bool,),
    "parsed": (bool,),
    "logprob": _NUMBER,
    "iteration": (int,),
}
# What earlier versions did not write, or what is left out where it is empty.
_PER_TOKEN = ("logprobs", "values", "reference")
_OPTIONAL: dict[str, tuple[type, ...]] = {
    "read": (str,),
    "canonical": (str,),
    "reward": _NUMBER,
    "opposite": _NUMBER,
    "facts": (dict,),
    "rewards": (dict,),
    **dict.fromkeys(_PER_TOKEN, (list,)),
}
_JSON_TYPES = _REQUIRED | _OPTIONAL


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
        logprob: log-probability of the tokens under the policy that drew them, untempered and
            untruncated, summed, in nats.
        iteration: the iteration of the online phase that drew it.
        read: what the verifier took for the answer, '' where nothing.
        reward: of the output, from 0 to 1; where it is not said, 1.0 or 0.0 by `correct`.
        facts: what else the verifier says holds of the output or does not; one that is not here
            does not.
        rewards: where several verifiers judged, each one's own; one that is not here gave 0.
        opposite: log-probability of the tokens under the wrong-answer instruction, summed, in nats;
            None where nothing asks for it.
        logprobs: log μ of each token (`config.ratio.behaviour`), in nats; () where nothing asks for
            it, as in the next two.
        values: expected reward before each token, by the value head.
        reference: log-probability of each token under the reference policy, in nats.
        canonical: the answer as all samples have it that say the same; '' where that is `read`.
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
    reward: float | None = None
    facts: dict[str, bool] = dataclasses.field(default_factory=dict, hash=False)
    rewards: dict[str, float] = dataclasses.field(default_factory=dict, hash=False)
    opposite: float | None = None
    logprobs: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    canonical: str = ""

    def __post_init__(self) -> None:
        if self.reward is None:
            object.__setattr__(self, "reward", 1.0 if self.correct else 0.0)

    def to_json(self) -> dict[str, Any]:
        """The record that `from_json` reads back equal; without what is empty."""
        left_out = ("canonical", "facts", "rewards", *_PER_TOKEN)
        empty = {name for name in left_out if not getattr(self, name)}
        if self.opposite is None:
            empty.add("opposite")
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name not in empty
        }

    @classmethod
    def from_json(cls, record: Any, where: str = "a sample") -> Self:
        """Reads one record; `where` (file and line) is for the message.

        Fields that earlier versions did not have may be absent.

        Raises:
            UserError: fields are missing, unknown or of another type; all are listed.
        """
        if not isinstance(record, dict):
            raise UserError(f"{where}: expected a JSON object, found {record!r}.")
        faults = _faults(record)
        if faults:
            raise UserError(f"{where}: not a sample as hir_jax writes it: {'; '.join(faults)}.")
        lists = {name: tuple(map(float, record.get(name, ()))) for name in _PER_TOKEN}
        numbers = {k: float(record[k]) for k in ("logprob", "reward", "opposite") if k in record}
        return cls(**record | lists | numbers | {"tokens": tuple(record["tokens"])})


def _faults(record: dict[str, Any]) -> list[str]:
    faults = [f"field {key!r} is missing" for key in _REQUIRED if key not in record]
    faults += [f"field {key!r} is unknown" for key in record if key not in _JSON_TYPES]
    of_type = {
        # `type() in`, since isinstance would take True for an int.
        key: record[key]
        for key, types in _JSON_TYPES.items()
        if key in record and type(record[key]) in types
    }
    faults += [
        f"{key!r} must be {_JSON_TYPES[key][0].__name__}, found {value!r}"
        for key, value in record.items()
        if key in _JSON_TYPES and key not in of_type
    ]
    tokens = of_type.get("tokens", [])
    if not all(type(t) is int and t >= 0 for t in tokens):
        faults.append(f"'tokens' must hold integers from 0, found {tokens!r}")
    for key in _PER_TOKEN:
        values = of_type.get(key, [])
        if values and (len(values) != len(tokens) or not all(type(v) in _NUMBER for v in values)):
            faults.append(f"{key!r} must hold a number for each token, found {values!r}")
    rewards = [of_type[key] for key in ("reward",) if key in of_type]
    rewards += of_type.get("rewards", {}).values()
    if not all(type(value) in _NUMBER and 0 <= value <= 1 for value in rewards):
        faults.append(f"rewards must be numbers from 0 to 1, found {rewards!r}")
    if not all(type(holds) is bool for holds in of_type.get("facts", {}).values()):
        faults.append(f"'facts' must be true or false, found {of_type['facts']!r}")
    return faults
