import gzip
import json

import pytest

from hir_jax.data import jsonl
from hir_jax.data.records import Names
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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "q", ', "malformed JSON"),
        ('{"question": "q", "answer": NaN}', "malformed JSON"),
        ("[" * 100_000, "malformed JSON"),
        (
            '{"question": "q", "answer": "1", "answer": "2"}',
            "malformed JSON ('answer' is there more than once)",
        ),
        ("[1]", "expected a JSON object, found a list"),
        ("null", "expected a JSON object, found null"),
        ({"answer": "a"}, 'missing "question"'),
        (Q, 'missing "answer"'),
        ({"question": " ", "answer": "a"}, '"question" is empty'),
        ({"question": 3, "answer": "a"}, '"question": expected a text, found a number'),
        ({"question": None, "answer": "a"}, 'missing "question"'),
        (Q | {"answer": None, "answers": None}, 'missing "answer"'),
        (Q | {"answer": ""}, '"answer" is empty'),
        (Q | {"answer": [["a"]]}, '"answer[0]": expected a text, number or boolean, found a list'),
        (Q | {"answer": {}}, '"answer": expected a text, number or boolean, found an object'),
        (Q | {"answers": []}, '"answers" is an empty list'),
        (
            Q | {"answers": ["a", None]},
            '"answers[1]": expected a text, number or boolean, found nu',
        ),
        (Q | {"answer": "a", "answers": ["a"]}, 'both "answer" and "answers"'),
        (Q | {"answer": "a", "hint": 1, "Answer": 2}, "unknown field 'Answer', 'hint'; known are"),
        (Q | {"answer": "a", "premise": ""}, '"premise" is empty'),
        (Q | {"answer": "a", "premise": [1]}, '"premise": expected a text, number or boolean, fo'),
        (Q | {"answer": "a", "id": ""}, '"id" is empty'),
        (Q | {"answer": "a", "id": ["x"]}, '"id": expected a text, number or boolean, found a li'),
        (Q | {"answer": "a", "options": "a"}, '"options": expected a list, found a text'),
        (Q | {"answer": "a", "options": []}, '"options" is an empty list'),
        (Q | {"answer": "a", "options": ["a", ""]}, '"options[1]" is empty'),
        (Q | {"answer": "a", "options": ["a", "b", "a"]}, "option 'a' is given twice"),
        (Q | {"answer": "c", "options": ["a", "b"]}, "the answer 'c' is not among the options"),
        (Q | {"answer": "C", "options": ["a", "b"]}, "the answer 'C' is not among the options"),
        (Q | {"answer": 1, "options": ["a", "b"]}, "(a number of an option is read by --config.d"),
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


# As other people write them -----------------------------------------------------------------------


def one(tmp_path, record, **names):
    [example] = read(tmp_path, record, names=Names(**names))
    return example


def test_null_is_absent_and_numbers_and_booleans_are_their_texts(tmp_path):
    record = Q | {"answer": True, "answers": None, "options": None, "premise": 7, "id": None}
    example = one(tmp_path, record)
    assert (example.answers, example.options, example.premise) == (("true",), (), "7")
    assert example.where == "mine.jsonl:1"
    chosen = one(tmp_path, Q | {"answer": 1.5, "options": [1.5, False]})
    assert (chosen.options, chosen.answers) == (("1.5", "false"), ("1.5",))


def test_more_options_than_letters(tmp_path):
    options = [f"option {i}" for i in range(60)]
    for answer, right in (("AB", 27), ("(BH)", 59), ("B", 1)):
        example = one(tmp_path, Q | {"answer": answer, "options": options})
        assert example.answers == (options[right],)
    assert example.targets == ("(B)",)


GSM8K = {
    "question": "Natalia sold clips to 48 of her friends in April, and half as many in May. Sum?",
    "answer": "In May <<48/2=24>>24 clips.\nAltogether <<48+24=72>>72 clips.\n#### 72",
}
ARC = {
    "id": "Mercury_7175875",
    "question": "Which factor will most likely cause a person to develop a fever?",
    "choices": {"text": ["a leg muscle", "a bacterial population"], "label": ["1", "2"]},
    "answerKey": "2",
}
AI2 = {  # ARC as it was first published
    "id": "Mercury_7175875",
    "question": {
        "stem": "Which factor?",
        "choices": [{"text": "a leg", "label": "A"}, {"text": "a germ", "label": "B"}],
    },
    "answerKey": "B",
}
SQUAD = {
    "id": "56be4db0acb8001400a502ec",
    "title": "Super_Bowl_50",
    "context": "Super Bowl 50 was played in Santa Clara.",
    "question": "Where was it played?",
    "answers": {
        "text": ["Santa Clara", "in Santa Clara", "Santa Clara"],
        "answer_start": [1, 2, 1],
    },
}
MMLU = {"question": "2 + 2?", "subject": "algebra", "choices": ["2", "1", "4", "3"], "answer": 2}


def test_gsm8k(tmp_path):
    example = one(tmp_path, GSM8K, after="####")
    assert (example.question, example.answers) == (GSM8K["question"], ("72",))


def test_arc(tmp_path):
    names = {"options": "choices.text", "labels": "choices.label", "answer": "answerKey"}
    example = one(tmp_path, ARC, **names)
    assert example.options == ("a leg muscle", "a bacterial population")
    assert (example.answers, example.id) == ((example.options[1],), "mine/Mercury_7175875")
    nested = {key: f"question.{path}" for key, path in names.items() if key != "answer"}
    old = one(tmp_path, AI2, question="question.stem", answer="answerKey", **nested)
    assert (old.question, old.options, old.answers) == (
        "Which factor?",
        ("a leg", "a germ"),
        ("a germ",),
    )


def test_squad(tmp_path):
    names = {"question": "context,question", "answer": "answers.text", "premise": "title"}
    example = one(tmp_path, SQUAD, **names)
    assert example.question == f"{SQUAD['context']}\n{SQUAD['question']}"
    assert (example.answers, example.premise) == (
        ("Santa Clara", "in Santa Clara"),
        "super_bowl_50",
    )


def test_mmlu_s_answer_is_a_number_of_an_option_not_its_text(tmp_path):
    example = one(tmp_path, MMLU, options="choices", index="answer")
    assert (example.options, example.answers) == (("2", "1", "4", "3"), ("4",))


@pytest.mark.parametrize(
    ("record", "names", "message"),
    [
        (GSM8K | {"answer": "72"}, {"after": "####"}, "expected an answer behind '####', found no"),
        (GSM8K | {"answer": "72 ####"}, {"after": "####"}, "behind '####', found nothing there"),
        (GSM8K, {"question": "prompt"}, 'missing "prompt"'),
        (GSM8K, {"options": "choices"}, 'missing "choices"'),
        (GSM8K, {"id": "key.number"}, 'missing "key.number"'),
        (
            ARC | {"answerKey": "E"},
            {"options": "choices.text", "labels": "choices.label", "answer": "answerKey"},
            "the answer 'E' is not among the labels",
        ),
        (
            ARC,
            {"options": "choices.text", "labels": "id", "answer": "answerKey"},
            '"id": expected a list, found a text',
        ),
        (
            ARC,
            {"options": "choices.text,id", "labels": "choices.label", "answer": "answerKey"},
            "expected a label of its own for each of 3 options, found '1', '2'",
        ),
        (ARC, {"options": "id", "answer": "answerKey"}, '"id": expected a list, found a text'),
        (
            SQUAD | {"answers": {"text": []}},
            {"answer": "answers.text"},
            '"answers.text" is an empty list',
        ),
        (
            MMLU | {"answer": 4},
            {"options": "choices", "index": "answer"},
            "\"answer\": expected a number from 0 to 3, for one of 4 options; found '4'",
        ),
        (MMLU | {"answer": -1}, {"options": "choices", "index": "answer"}, "found '-1'"),
    ],
)
def test_what_is_not_where_it_was_said_to_be(tmp_path, record, names, message):
    with pytest.raises(UserError) as error:
        one(tmp_path, record, **names)
    assert "line 1: " in str(error.value)
    assert message in str(error.value)


def write_csv(tmp_path, text, name="mine.csv"):
    path = tmp_path / name
    path.write_bytes(
        gzip.compress(text.encode()) if name.lower().endswith(".gz") else text.encode()
    )
    return path


@pytest.mark.parametrize("name", ["mine.csv", "mine.csv.gz", "MINE.CSV", "MINE.CSV.GZ"])
def test_csv_with_columns_of_options_empty_where_there_are_fewer(tmp_path, name):
    text = '\ufeffprompt,a,b,c,key\r\n"Which,\nof ""two""?",1,2,,B\r\n\r\nWhich?,x,y,z,C\r\n'
    names = Names(question="prompt", options="a,b,c", answer="key")
    one, two = jsonl.read(write_csv(tmp_path, text, name), "", names=names)
    assert (one.question, one.options, one.answers) == (
        'Which,\nof "two"?',
        ("1", "2"),
        ("2",),
    )
    assert (two.options, two.answers, two.task) == (("x", "y", "z"), ("z",), name.split(".")[0])
    assert [e.where for e in (one, two)] == [f"{name}:2", f"{name}:5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'question,answer\n1 + 1?,2\n"a\nb?",3,4\n',
            "line 3: expected 2 cells as in the header, f",
        ),
        ("question,answer\n1 + 1?,\n", 'line 2: missing "answer"'),
        ("question,answer,hint\n1 + 1?,2,3\n", "line 2: unknown field 'hint'"),
        ('question,answer\n1 + 1?,"2\n', "line 2: malformed CSV (unexpected end of data)"),
        ("question,answer,answer\na,b,c\n", "names each column once, found 'answer' more often"),
        ("question,answer\n", "has no examples"),
        ("question,answer\n,\n , \n", "has no examples"),
        ("question;answer\n1 + 1?;2\n", "expected commas between the cells, found ';' in the"),
        ('question,answer,options\na,b,"b,c"\n', '"options": expected a list, found a text'),
    ],
)
def test_faulty_csv(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        jsonl.read(write_csv(tmp_path, text), "")
    assert message in str(error.value)


def test_gzip_and_a_damaged_one(tmp_path):
    line = json.dumps(Q | {"answer": "a"})
    path = write_csv(tmp_path, line, "mine.jsonl.gz")
    [example] = jsonl.read(path, "")
    assert (example.task, example.where) == ("mine", "mine.jsonl.gz:1")
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"\x1f\x8b" + whole[:5], line.encode()):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is not a whole gzip file"):
            jsonl.read(path, "")


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("whole", "found"),
    [([{"question": "q", "answer": "a"}], "a list"), ({"data": [{"question": "q"}]}, "an object")],
)
def test_a_file_that_is_one_json_value_is_told_so(tmp_path, whole, found, indent):
    if found == "an object" and indent is None:
        pytest.skip("one object on one line is a record")
    with pytest.raises(UserError, match=f"a line, found {found} that is all of the file.*jq -c"):
        read(tmp_path, json.dumps(whole, indent=indent))


@pytest.mark.parametrize("between", ",;\t|")
def test_a_table_of_another_name_is_told_so(tmp_path, between):
    path = tmp_path / "mine.tsv"
    path.write_text(f"question{between}answer\nq{between}a\n")
    with pytest.raises(UserError, match=r"a line, found a table that begins .*'question.*\.csv"):
        jsonl.read(path, "")


@pytest.mark.parametrize("names", [{"answer": "key"}, {"index": "n"}])
def test_an_option_that_is_missing_moves_no_letter(tmp_path, names):
    names = Names(options="a,b,c,d", **names)
    text = "question,a,b,c,d,key,n\nWhich?,w,,y,{},{},2\n"
    with pytest.raises(UserError, match='line 2: "b" is empty, though an option behind it is not'):
        jsonl.read(write_csv(tmp_path, text.format("z", "C")), "", names=names)
    jsonl.read(write_csv(tmp_path, text.format("", "w").replace(",,y", ",x,y")), "", names=names)


def test_a_long_cell_and_a_step_that_is_no_number(tmp_path):
    [example] = jsonl.read(write_csv(tmp_path, f"question,answer\n{'x' * 140000},2\n"), "")
    assert len(example.question) == 140000
    with pytest.raises(UserError, match=r'"q\.²": expected a text, found a l'):
        read(tmp_path, {"q": ["a"], "answer": "b"}, names=Names(question="q.²"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.parquet", b"PAR1\x15\x04", r"found Parquet\. Write its records as JSONL.*lines=True"),
        ("a.csv", b"PK\x03\x04\x14", "found a zip file or a spreadsheet"),
        ("a.jsonl", gzip.compress(b"{}"), r"found gzip\. Give it a name that ends with \.gz"),
        ("a.csv", "question,answer\na,b\n".encode("utf-16"), r"found UTF-16\. Save it as UTF-8"),
    ],
    ids=["parquet", "zip", "gzip", "utf-16"],
)
def test_files_that_are_no_text_are_known(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: expected text in UTF-8, {says}"):
        jsonl.read(tmp_path / name, "")
