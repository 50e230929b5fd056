"""Property tests on what users and strangers give: a sentence or a result, and nothing else.

A short form of few cases, the same in every run, is part of the suite. The long form draws others:

    HIR_JAX_FUZZ_CASES=5000 python -m pytest -o addopts="" -q tests/data/fuzz_test.py
"""

import copy
import json
import os

import hypothesis
from hypothesis import strategies as st

from hir_jax.errors import UserError
from hir_jax.hindsight import limit

CASES = int(os.environ.get("HIR_JAX_FUZZ_CASES", "0"))
SECONDS = 300.0  # for a case, also where the machine is busy; then it hangs


def cases(short=200):
    """So many cases; by HIR_JAX_FUZZ_CASES more, and others each time."""
    return hypothesis.settings(
        max_examples=CASES or short,
        derandomize=not CASES,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def outcome(call, *args):
    """What a call gives; None where it is refused by a sentence."""
    try:
        return limit.call(SECONDS, call, *args)
    except UserError as e:
        sentence = str(e)
        assert len(sentence) > 20 and "Traceback" not in sentence
        sentence.encode("utf-8", "surrogatepass")
        return None


def contents(folder):
    """The bytes of all files."""
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


ODD = [
    10**30,
    -1,
    0,
    1,
    2,
    0.5,
    "",
    "2",
    "\ud800",
    "../x",
    "/etc/passwd",
    "(A)",
    " ",
    "\u2028",
    {},
    [],
]
SCALARS = st.one_of(
    st.sampled_from(ODD), st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def changed(draw, document):
    """The JSON document with one to three values changed, left out, put in, or put elsewhere."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        inner, parent, key = document, None, None
        for _ in range(draw(st.integers(1, 6))):
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                break
            parent, key = inner, draw(st.sampled_from(keys))
            inner = parent[key]
            if not isinstance(inner, dict | list):
                break
        if parent is None:
            return draw(VALUES)
        match draw(st.sampled_from(["change", "change", "change", "remove", "add", "repeat"])):
            case "change":
                parent[key] = draw(VALUES)
            case "remove":
                del parent[key]
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=6))] = draw(VALUES)
            case "add":
                parent.append(draw(VALUES))
            case "repeat" if isinstance(parent, list):
                parent.append(copy.deepcopy(inner))
            case "repeat":
                parent[draw(st.sampled_from(list(parent)))] = copy.deepcopy(inner)
    return document


@st.composite
def damaged(draw, data):
    """The bytes cut, with some changed, or with some put in."""
    place = draw(st.integers(0, len(data)))
    end = draw(st.integers(place, min(len(data), place + 8)))
    put = st.one_of(
        st.binary(max_size=4),
        st.sampled_from([b"NaN", b"[" * 50_000, b'{"a":' * 20_000, b"\n", b"\xff", b"1" * 5000]),
    )
    return data[:place] if draw(st.booleans()) else data[:place] + draw(put) + data[end:]


def files(document):
    """Bytes of a JSON file that began as this document."""
    whole = json.dumps(document).encode()
    of_values = changed(document).map(lambda found: json.dumps(found).encode())
    return st.one_of(of_values, of_values, of_values, damaged(whole))


def line_files(records):
    """Bytes of a file of JSON lines that began as these records."""

    def text(found):
        found = found if isinstance(found, list) else [found]
        return "".join(json.dumps(record) + "\n" for record in found).encode()

    of_values = changed(records).map(text)
    return st.one_of(of_values, of_values, of_values, damaged(text(records)))
