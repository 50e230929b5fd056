"""A process of its own that compares mathematics: some expressions keep a parser for ever.

Reads a line of JSON {"answers", "output", "seconds"} and writes one: true, false, or null where
that cannot be read. A request that takes longer ends the process: the kernel's alarm needs no help
of what runs, unlike math-verify's own, whose exception may be raised where Python drops it.
"""

import functools
import json
import logging
import math
import signal
import sys
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify


def main() -> None:
    """Answers until its input ends."""
    logging.disable()  # of slow comparisons, of having no timeout
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(request["seconds"])
        found = compare(request["answers"], request["output"])
        signal.alarm(0)
        print(json.dumps(found), flush=True)


def compare(answers: list[str], output: str) -> bool | None:
    """Whether the output equals an answer, as mathematics; None where it cannot be read."""
    found = parsed(output)
    if found is None:
        return None
    golds = [gold for answer in answers if (gold := parsed(answer)) is not None]
    try:
        return any(
            verify(gold, found, _places(gold), timeout_seconds=None, raise_on_error=True)
            for gold in golds
        )
    except Exception:  # whatever a comparison of a model's output may raise
        return None


def _places(gold: list) -> int:
    """How many decimals count of a decimal beside it: six, or more where these say too little."""
    try:
        size = abs(float(gold[0]))
    except (TypeError, ValueError, OverflowError):  # not a real number, or one too large
        return 6
    return max(6, 3 - math.floor(math.log10(size))) if 0 < size < 1 else 6


@functools.lru_cache(4096)
def parsed(expression: str) -> Any:
    """Of a whole LaTeX expression. Its reader of other ones evaluates them as code."""
    try:
        found = parse(
            f"${expression}$",
            [LatexExtractionConfig()],
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,
            raise_on_error=True,
        )
    except Exception:
        return None
    return found or None


if __name__ == "__main__":
    main()
