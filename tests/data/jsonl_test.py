import json

import pytest

from hir_jax.data import jsonl
from hir_jax.errors import UserError


def read(tmp_path, *lines, **kwargs):
    path = tmp_path / "mine.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts))
    return jsonl.read(path, **{"task": ""} | kwargs)


def test_fields_of_a_line(tmp_path):
    plain, full = read(
        tmp_path,
        {"question": "1 + 2?", "answers": ["three", 3]},
        "",
        {
            "question": "Which?",
            "answer": "blue",
            "options": ["red", "blue"],
            "premise": "p",
            "id": "q7",
        },
    )
    assert (plain.question, plain.answers) == ("1 + 2?", ("three", "3"))
    assert (plain.options, plain.task, plain.premise) == ((), "mine", "1 + 2")
    assert (full.id, full.options, full.answers) == ("mine/q7", ("red", "blue"), ("blue",))
    assert full.premise == "p"


def test_task_and_part_name_the_examples(tmp_path):
    [example] = read(tmp_path, {"question": "q", "answer": "a"}, task="sums", part="test")
    assert (example.id[:10], example.task) == ("sums/test/", "sums")


def test_ids_do_not_depend_on_other_lines(tmp_path):
    lines = [{"question": f"{n}?", "answer": "a"} for n in range(9)]
    before = {e.question: e.id for e in read(tmp_path, *lines)}
    new = {"question": "new?", "answer": "a"}
    after = {e.question: e.id for e in read(tmp_path, *lines[6:], new, "", *lines[:6])}
    assert len(set(after.values())) == 10
    assert before.items() <= after.items()
    twice = [e.id for e in read(tmp_path, lines[0], *lines)]
    assert twice[1] == f"{twice[0]}-2"


def test_numbers_are_kept_as_written(tmp_path):
    lines = '{"question": "q", "answer": 1.50}', '{"question": "q", "answers": [1e3, -7]}'
    assert [example.answers for example in read(tmp_path, *lines)] == [("1.50",), ("1e3", "-7")]


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [
        ("(B)", ["red", "blue"], "blue"),
        ("B", ["red", "blue"], "blue"),
        ("B", ["B", "A"], "B"),
        ("(B)", ["(B)", "(A)"], "(B)"),
        (2, [1, 2], "2"),
    ],
)
def test_an_answer_is_an_option_or_else_its_letter(tmp_path, answer, options, right):
    [example] = read(tmp_path, {"question": "q", "answer": answer, "options": options})
    assert example.answers == (right,)


def test_blank_lines_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"question": "q", "answer": "\xc3\xa9\xe2\x80\xa8"}\r\n\r\n  \r\n'
        b'{"question": "q2", "answer": "b"}\r\n'
    )
    examples = jsonl.read(path, "")
    assert [e.question for e in examples] == ["q", "q2"]
    assert examples[0].answers == ("é\u2028",)


Q = {"question": "q"}
MANY = [str(i) for i in range(27)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "q", ', "malformed JSON"),
        ('{"question": "q", "answer": NaN}', "malformed JSON"),
        ("[" * 100_000, "malformed JSON"),
        ("[1]", "expected a JSON object, found a list"),
        ("null", "expected a JSON object, found null"),
        ({"answer": "a"}, 'missing "question"'),
        (Q, 'missing "answer"'),
        ({"question": " ", "answer": "a"}, '"question" is empty'),
        ({"question": 3, "answer": "a"}, '"question": expected a text, found a number'),
        ({"question": None, "answer": "a"}, '"question": expected a text, found null'),
        (Q | {"answer": ""}, '"answer" is empty'),
        (Q | {"answer": True}, '"answer": expected a text or a number, found a boolean'),
        (Q | {"answer": ["a"]}, '"answer": expected a text or a number, found a list'),
        (Q | {"answer": {}}, '"answer": expected a text or a number, found an object'),
        (Q | {"answers": "a"}, '"answers": expected a list, found a text'),
        (Q | {"answers": []}, '"answers" is an empty list'),
        (Q | {"answers": ["a", None]}, '"answers[1]": expected a text or a number, found null'),
        (Q | {"answer": "a", "answers": ["a"]}, 'both "answer" and "answers"'),
        (Q | {"answer": "a", "hint": 1, "Answer": 2}, "unknown field 'Answer', 'hint'; known are"),
        (Q | {"answer": "a", "premise": ""}, '"premise" is empty'),
        (Q | {"answer": "a", "premise": 1}, '"premise": expected a text, found a number'),
        (Q | {"answer": "a", "id": ""}, '"id" is empty'),
        (Q | {"answer": "a", "id": ["x"]}, '"id": expected a text or a number, found a list'),
        (Q | {"answer": "a", "options": "a"}, '"options": expected a list, found a text'),
        (Q | {"answer": "a", "options": []}, '"options" is an empty list'),
        (Q | {"answer": "a", "options": ["a", ""]}, '"options[1]" is empty'),
        (Q | {"answer": "a", "options": ["a", "b", "a"]}, "option 'a' is given twice"),
        (Q | {"answer": "1", "options": MANY}, "27 options; at most 26 are allowed"),
        (Q | {"answer": "c", "options": ["a", "b"]}, "the answer 'c' is not among the options"),
        (Q | {"answer": "C", "options": ["a", "b"]}, "the answer 'C' is not among the options"),
        (Q | {"answers": [], "options": ["a", "b"]}, '"answers" is an empty list'),
        (r'{"question": "\ud800", "answer": "a"}', "half of a surrogate pair"),
    ],
)
def test_faulty_lines(tmp_path, line, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, Q | {"answer": "a"}, line)
    assert "mine.jsonl: 1 fault. Mend the file:\n  line 2: " in str(error.value)
    assert message in str(error.value)


def test_duplicate_ids_name_the_other_line(tmp_path):
    line = Q | {"answer": "a", "id": 7}
    with pytest.raises(UserError, match="line 3: the \"id\" '7' is taken by line 1"):
        read(tmp_path, line, Q | {"answer": "b"}, line)


def test_the_first_ten_faulty_lines_and_their_number(tmp_path):
    with pytest.raises(UserError) as error:
        read(tmp_path, *[Q] * 12, Q | {"answer": "a"}, {"hint": 1})
    head, *lines = str(error.value).split("\n")
    assert head.endswith("mine.jsonl: 13 faults. Mend the file:")
    assert [line.split(":")[0].strip() for line in lines] == [
        *(f"line {n}" for n in range(1, 11)),
        "... and 3 more",
    ]


def test_all_faults_of_a_line_are_told(tmp_path):
    with pytest.raises(UserError) as error:
        read(tmp_path, {"question": "", "options": ["a"], "hint": 1})
    for part in ("unknown field 'hint'", '"question" is empty', 'missing "answer"'):
        assert part in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_examples(tmp_path, content):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="has no examples"):
        jsonl.read(path, "")


def test_not_utf8_tells_line_and_byte(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b'{"question": "q", "answer": "a"}\n{"question": "caf\xe9", "answer": "a"}\n')
    with pytest.raises(UserError, match="not UTF-8 text: byte 18 of line 2 is 0xe9"):
        jsonl.read(path, "")


def test_no_such_file_and_folder(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UserError, match="Cannot read the data file"):
            jsonl.read(path, "")
