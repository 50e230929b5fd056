"""Things of the wrong type are refused in a sentence; those of other libraries are taken."""

import functools
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

import hir_jax
from tests import tiny

load, config, examples, report = map(
    functools.partial(getattr, hir_jax), ("load", "config", "examples", "write_report")
)
RIGHT = {"question": "w1", "answer": "w2"}


def sample(*given, **more):
    return hir_jax.sample(hir_jax.load(tiny.folder()), *given, **more)


def verify(*given, **more):
    return hir_jax.verify("exact", examples([RIGHT]), [["w2"]], *given, **more)


@pytest.mark.parametrize(
    ("function", "given", "says"),
    [
        (load, [None], "source: expected a path, a text or pathlib.Path; found None"),
        (load, [b"model"], "source: expected a path, a text or pathlib.Path; found b'model'"),
        (load, ["model", 3], "dict of values by the names of fields, such as .* found 3"),
        (load, ["model", {None: 1}], "found {None: 1}"),
        (config, [3], "name: expected a path, .* found 3"),
        (config, ["configs/tiny.py", "seed"], "found 'seed'"),
        (config, ["configs/jsonl.py:x"], "jsonl.py:x: the file fails with TypeError: get_config"),
        (config, ["assets/tiny/config.json"], "a config file, a .py, found none at 'assets"),
        (hir_jax.questions, [ConfigDict()], "algorithm: expected a value, found none"),
        (hir_jax.train, [ConfigDict(), "run"], "algorithm: expected a value, found none"),
        (hir_jax.train, [tiny.config(), None], "workdir: expected a path, .* found None"),
        (report, [None], r"runs: expected a list, such as \[workdir\]; found None"),
        (report, [b"run"], r"runs: expected a list, such as \[workdir\]; found b'run'"),
        (report, [[None]], "runs: expected a path, .* found None"),
        (report, [["run"], 3], "output: expected a path, .* found 3"),
        (examples, [None], "Expected a list of questions, a dict each, found None"),
        (examples, [RIGHT], "a dict each, found {'question': 'w1'"),
        (examples, [[RIGHT | {"answer": {"w"}}]], "JSON can hold: found {'w'} of type set"),
        (examples, [[{}] * 30], r"Questions: 60 faults. Mend them:\n(.*\n){10}.* and 50 more"),
        (sample, [{"w1": "w2"}], "found {'w1': 'w2'}"),
    ],
)
def test_other_types_are_refused_in_a_sentence(function, given, says):
    with pytest.raises(hir_jax.UserError, match=says):
        function(*given)


def test_so_are_those_given_by_name():
    with pytest.raises(hir_jax.UserError, match=r"progress: expected a function .* found None"):
        sample(["w1"], progress=None)
    with pytest.raises(hir_jax.UserError, match="weights, a list of numbers, found 3"):
        verify(weights=3)
    with pytest.raises(hir_jax.UserError, match=r"reward.weights: expected .*found .1, 2"):
        hir_jax.verify(lambda text, _: True, examples([RIGHT]), [["w2"]], weights=[1, 2])
    with pytest.raises(hir_jax.UserError, match=r"output 0: expected a text, or .* found b'w1'"):
        hir_jax.score(hir_jax.load(tiny.folder()), [("w1", b"w1")])


def test_a_config_file_that_raises_is_told_by_its_name(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import nonsense_of_mine\n")
    with pytest.raises(hir_jax.UserError, match=r"mine.py: the file fails with ModuleNotFoundErr"):
        config(file)


def test_what_numpy_has_is_taken():
    record = {"question": np.str_("q"), "options": np.array([1, 2]), "answer": np.int64(2)}
    (example,) = examples(iter([types.MappingProxyType(record)]))
    assert (example.options, example.answers) == (("1", "2"), ("2",))
    (example,) = examples([{"question": "q", "answer": np.float32(0.1)}])
    assert example.answers == ("0.1",)
    assert verify(weights=np.array([0.5]))[0][0].correct


def test_a_function_is_a_verifier_whatever_its_repr_says():
    grade = functools.partial(lambda a, b, text, _: a == b == 1, 1, 1)  # repr: "..., 1, 1)"
    ((verdict,),) = hir_jax.verify(grade, examples([RIGHT]), [["w2"]])
    assert verdict.correct
