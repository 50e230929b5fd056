"""The samples of runs as columns; each text and each question stands once, however often drawn.

    question   0 0 0 0 1 1 1 1 ...      index into the page's questions
    iteration  0 0 0 0 0 0 0 0 ...      index into the run's iterations
    text       5 5 6 7 9 9 9 9 ...      index into the page's texts
    right      "11000000..."            a digit a sample

A page has the samples of a run's newest iterations, as many as fit; of all iterations it has how
many samples of each question were drawn and how many were right.
"""

import collections
import math
import pathlib
from collections.abc import Iterable
from typing import Any

from hir_jax.errors import UserError
from hir_jax.methods import table
from hir_jax.report.runs import Run
from hir_jax.run.workdirs import Record, read_lines

# Fields that columns of their own, the question or nothing are made of. Any other number of a
# record is a score to order by.
KNOWN = {"example_id", "index", "tokens", "text", "correct", "parsed", "iteration", "read"}
KNOWN |= {"facts", "rewards", "logprobs", "values", "reference", "question", "options", "targets"}
KNOWN |= {"relabeled_instruction"}
DIGITS = 4  # that scores are rounded to
NEEDED = ("example_id", "text", "correct", "question")


class Table:
    """Numbers things in the order in which they first come."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def __call__(self, thing: Any) -> int:
        """The number of a thing."""
        return self._numbers.setdefault(thing, len(self._numbers))

    def __iter__(self) -> Any:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


class Shared:
    """What the runs of a page share: questions, with their options and answers, and texts."""

    def __init__(self) -> None:
        self.questions, self.texts = Table(), Table()

    def question(self, record: Record) -> int:
        """The number of a sample's question."""
        options, answers = (tuple(record.get(name) or ()) for name in ("options", "targets"))
        return self.questions((record["example_id"], record["question"], options, answers))

    def to_json(self) -> Record:
        """Columns."""
        ids, texts, options, answers = (
            zip(*self.questions, strict=True) if self.questions else [()] * 4
        )
        return {
            "questions": {"id": ids, "text": texts, "options": options, "answers": answers},
            "texts": list(self.texts),
        }


class Columns:
    """Grows by a sample at a time."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._size = 0
        self._columns: dict[str, list[Any]] = collections.defaultdict(list)
        # By name; what a sample does not have is None.
        self._named: dict[str, dict[str, list[Any]]] = collections.defaultdict(dict)

    def add(self, record: Record, question: int, iteration: int) -> None:
        """A sample of the iteration of that place."""
        texts = self._shared.texts
        self._add(
            question=question,
            iteration=iteration,
            text=texts(record["text"]),
            read=texts(record.get("read", "")),
            relabeled=texts(record.get("relabeled_instruction", "")),
            right=int(record["correct"]),
            parsed=int(record.get("parsed", True)),
            tokens=len(record.get("tokens") or ()),
        )
        self._add_named("scores", scores(record))
        self._add_named("facts", {k: int(v) for k, v in record.get("facts", {}).items()})
        self._add_named("rewards", {k: rounded(v) for k, v in record.get("rewards", {}).items()})
        self._size += 1

    def _add(self, **values: Any) -> None:
        for name, value in values.items():
            self._columns[name].append(value)

    def _add_named(self, group: str, values: dict[str, Any]) -> None:
        columns = self._named[group]
        for name in values:
            columns.setdefault(name, [None] * self._size)
        for name, column in columns.items():
            column.append(values.get(name))

    def to_json(self) -> Record:
        """Columns; those of digits as one text."""
        columns = dict(self._columns)
        digits = {k: "".join(map(str, columns.pop(k, ()))) for k in ("right", "parsed")}
        return columns | digits | dict(self._named)


def scores(record: Record) -> dict[str, float | None]:
    """The numbers that samples can be ordered by, as far as the record has them.

    Of each token's values by the value head the first is kept, the expected reward of the whole; of
    log-probabilities under the starting model the sum. The margin is log π(o | p_correct) -
    log π(o | p_wrong): above 0 the policy takes an output for right.
    """
    found = {
        name: rounded(value)
        for name, value in record.items()
        if name not in KNOWN and type(value) in (int, float)
    }
    if values := record.get("values"):
        found["value"] = rounded(values[0])
    if reference := record.get("reference"):
        found["logprob_start"] = rounded(sum(reference))
    if "opposite" in record:
        found["margin"] = rounded(record["logprob"] - record["opposite"])
    return found


def rounded(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return round(value, DIGITS) if math.isfinite(value) else None


def gather(run: Run, shared: Shared, most: int) -> Record:
    """A run's samples: counts of all iterations, and columns of the newest ones.

    Args:
        run: whose they are.
        shared: grows by questions and texts.
        most: samples that stand in columns, of whole iterations; of the newest, where it has more
            by itself, the first. 0 takes all.

    Raises:
        UserError: a file is not as runs write it.
    """
    counts, columns, left = [], Columns(shared), most or math.inf
    files = run.sample_files()
    kept: list[int] = []
    for place, file in reversed(list(enumerate(files))):
        records = read_samples(file)
        questions = [shared.question(record) for record in records]
        counts.append(_counts(records, questions))
        fits = len(records) <= left or not kept
        for record, question in list(zip(records, questions, strict=True))[: most or None]:
            if fits:
                columns.add(record, question, place)
        if fits:
            kept.append(place)
        left -= len(records)  # of older ones none fits then: the iterations have no gap
    return {
        "iterations": [int(file.stem.removeprefix("iter_")) for file in files],
        "kept": kept[::-1],
        "counts": counts[::-1],
        "columns": columns.to_json(),
        "relabels": relabels(run.config.get("algorithm", "")),
    }


def _counts(records: Iterable[Record], questions: Iterable[int]) -> Record:
    """Of each question how many samples there are, and how many are right."""
    drawn: collections.Counter[int] = collections.Counter()
    right: collections.Counter[int] = collections.Counter()
    for record, question in zip(records, questions, strict=True):
        drawn[question] += 1
        right[question] += bool(record["correct"])
    return {
        "question": list(drawn),
        "drawn": list(drawn.values()),
        "right": [right[question] for question in drawn],
    }


def read_samples(file: pathlib.Path) -> list[Record]:
    """The lines of a file of samples.

    Raises:
        UserError: a line is no sample.
    """
    records = read_lines(file)
    for number, record in enumerate(records, 1):
        if missing := [name for name in NEEDED if name not in record]:
            raise UserError(
                f"{file}, line {number}: expected a sample as a run writes it, found none of its "
                f"fields {', '.join(missing)}. Take the file out of the workdir."
            )
    return records


def relabels(algorithm: str) -> bool:
    """Whether a method trains on the instructions that samples have achieved.

    Of a class of the user's own nobody knows, since a page runs no code that a workdir names; its
    samples show them.
    """
    return algorithm not in table.METHODS or "instruction.facts" in table.METHODS[algorithm].reads
