"""Outputs that are gone on with: what is taken up, and what is refused."""

import json
import multiprocessing

import pytest

from hir_jax.commands import continued
from hir_jax.commands.lines import to_line
from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.run import workdirs

RECORDS = [{"prompt": f"p{i}", "own": [i]} for i in range(5)]
MADE_OF = {"mode": "score", "config": {"seed": 0}, "digest": {"weights": "a", "input": "b"}}


def work(path, stop=None, made_of=MADE_OF, records=RECORDS):
    """Writes pieces of two until `stop`; gives those that it was asked for."""
    asked = []
    with continued.lines(str(path), made_of, records, ["n"]) as lines:
        for piece in lines.pieces(2):
            asked.append(piece.start)
            lines.write(piece, [RECORDS[i] | {"n": i} for i in piece])
            if piece.start == stop:
                raise KeyboardInterrupt
    return asked


@pytest.fixture
def unfinished(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "out", stop=2)
    assert len((tmp_path / "out").read_text().splitlines()) == 4
    return tmp_path / "out"


WHOLE = "".join(to_line(record | {"n": i}) for i, record in enumerate(RECORDS))


@pytest.mark.parametrize("cut", range(0, len(WHOLE) + 1, 7))
def test_any_part_is_gone_on_with(unfinished, cut):
    unfinished.write_text(WHOLE[:cut])
    finished = WHOLE[:cut].count("\n")
    asked = [start for start in (0, 2, 4) if min(start + 2, 5) > finished]
    assert work(unfinished) == asked
    assert unfinished.read_text() == WHOLE
    assert [file.name for file in unfinished.parent.iterdir()] == ["out"]


def test_another_process_with_other_input_is_refused_before_anything_is_written(
    tmp_path, monkeypatch
):
    digest = {"weights": "a", "input": "c", "allowed": "d"}
    other = workdirs.flatten(MADE_OF | {"digest": digest})
    monkeypatch.setattr(processes, "gather", lambda ours: [ours, other])
    with pytest.raises(UserError, match=r"digest.input: on \[1\]\n  digest.allowed: on \[1\]\n"):
        work(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_the_file_it_is_begun_anew(unfinished):
    unfinished.unlink()
    assert work(unfinished, made_of=MADE_OF | {"mode": "sample"}) == [0, 2, 4]


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (1, "{"),
        (2, "[" * 100_000),
        (1, json.dumps(RECORDS[1] | {"n": 1})),
        (2, json.dumps({"prompt": "p1", "own": [1]})),
        (2, json.dumps(RECORDS[1] | {"n": 1, "more": 1})),
        (6, json.dumps(RECORDS[4] | {"n": 1})),
    ],
)
def test_lines_of_something_else(unfinished, number, line):
    before = WHOLE.splitlines(keepends=True)
    text = "".join([*before[: number - 1], line + "\n", *before[number:]])
    unfinished.write_text(text)
    with pytest.raises(UserError, match=f"line {number} of .*, which is unfinished, is not of"):
        work(unfinished)
    assert unfinished.read_text() == text


def test_made_of_something_else(unfinished):
    before = unfinished.read_bytes()
    changed = MADE_OF | {"config": {"seed": 1}, "digest": {"weights": "c", "input": "b"}}
    with pytest.raises(UserError) as e:
        work(unfinished, made_of=changed)
    assert str(e.value).splitlines()[1:-1] == [
        "  config.seed: 0 then, 1 now",
        "  digest.weights: 'a' then, 'c' now",
    ]
    note = unfinished.with_name("out.unfinished")
    note.write_text("{")
    with pytest.raises(UserError, match=r"out.unfinished: expected a JSON object"):
        work(unfinished)
    assert unfinished.read_bytes() == before


def test_a_file_that_is_not_ours_stays(tmp_path):
    (tmp_path / "out").write_text("precious")
    for _ in range(2):
        with pytest.raises(UserError, match="is there already"):
            work(tmp_path / "out")
        with pytest.raises(UserError, match="is there already"):
            continued.check_continued(str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "precious"
    with pytest.raises(UserError, match="cannot write"):
        work(tmp_path / "out" / "out")


def test_two_at_once(unfinished):
    with continued.lines(str(unfinished), MADE_OF, RECORDS, ["n"]):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            says = pool.apply(refused, [str(unfinished)])
        assert "is being written by another process" in says
        unfinished.with_name("out.unfinished").touch()


def refused(path):
    try:
        work(path)
    except UserError as e:
        return str(e)
