import itertools

import pytest

from configs import common
from hir_jax.data import check_given, fields, sources
from hir_jax.errors import UserError
from tests.data.config import data_config

FIELDS = list(common.get_config().data)


def test_the_table_has_every_field_and_every_source():
    assert set(fields.READ_BY) == set(FIELDS)
    assert set(fields.SOURCES) == set(sources._SOURCES)


@pytest.mark.parametrize(("field", "source"), [*itertools.product(FIELDS, fields.SOURCES)])
def test_a_field_that_is_set_is_read_or_refused(field, source):
    config = data_config(source=source, path="p")
    if source in fields.READ_BY[field]:
        check_given(config, [field])
    else:
        with pytest.raises(UserError, match=f"{field}: it is for source .*, not '{source}'"):
            check_given(config, ["seed", field])


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"source": "bigbench", "protocol": "paper"}, "test_fraction"),
        ({"source": "bigbench", "protocol": "paper"}, "dev_fraction"),
        ({"source": "bigbench", "protocol": "paper"}, "shuffle_options"),
        ({"path": "p", "dev_path": "d"}, "dev_fraction"),
        ({"path": "p", "test_path": "t"}, "test_fraction"),
        ({"test_path": "t"}, "dev_fraction"),
    ],
)
def test_what_another_field_leaves_unread_is_refused(changes, given):
    config = data_config(**changes)
    with pytest.raises(UserError, match=f"not read.*\n  {given}: "):
        check_given(config, [*changes, given])
    check_given(config, list(changes))


def test_a_file_of_bbh_names_its_task(tmp_path):
    path = tmp_path / "snarks.json"
    path.write_text("")
    config = data_config(source="bbh", path=str(path), task="navigate")
    with pytest.raises(UserError, match=r"task: the file .* is the task 'snarks', not 'navigate'"):
        check_given(config, ["task"])
    check_given(config, ["path"])  # a config file left the name there
    config.task = "snarks"
    check_given(config, ["path", "task"])


def test_names_of_fields_are_for_jsonl():
    check_given(data_config(path="p"), ["fields.question"])
    with pytest.raises(UserError, match="fields: it is for source jsonl, not 'bbh'"):
        check_given(data_config(source="bbh", path="p"), ["fields.question"])


def test_all_are_told_in_the_order_of_the_table():
    with pytest.raises(UserError) as error:
        check_given(data_config(path="p"), ["difficulty", "tfds_dir", "size"])
    told = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert told == ["tfds_dir", "size", "difficulty"]
