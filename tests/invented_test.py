"""The worked example of a ByT5 from nothing: its language, its files, and all of it in short."""

import collections
import json
import random
import sys

import pytest

from examples import invented
from hir_jax.model import hf
from hir_jax.run import models

SHORT = ("--first=16", "--then=8", "--epochs=1", "--iterations=1")


def test_the_language_has_an_order_and_plurals():
    made = invented.phrases(random.Random(0))
    assert made == invented.phrases(random.Random(0))
    assert len(made) == len({each["question"] for each in made}) == 4 * 8 * 20 * 6
    means = {}  # of the singulars
    for each in made:
        if each["question"].startswith("one "):
            number, adjective, noun, verb = each["question"].removesuffix("s").split()
            own = dict(zip((verb, noun, adjective, number), each["answer"].split(), strict=True))
            assert all(means.setdefault(word, said) == said for word, said in own.items())
    assert len(means) == len(set(means.values())) == 1 + 8 + 20 + 6
    told = {each["question"]: each["answer"] for each in made}
    two = told["two red birds sing"].split()
    assert two[:3] == [means[word] + "n" for word in ("sing", "bird", "red")]
    assert two[3] not in means.values()


def test_files_stand_apart_and_the_model_is_a_byt5(tmp_path):
    invented.write(tmp_path, 16, 8)
    files = [(tmp_path / f"{name}.jsonl").read_text() for name in ("first", "then", "dev", "test")]
    lines = [line for text in files for line in text.splitlines()]
    assert [len(text.splitlines()) for text in files] == [16, 8, 100, 200]
    assert max(collections.Counter(lines).values()) == 1
    answers = [json.loads(line)["answer"] for line in lines]
    config = invented.config(tmp_path, "then", **{"model.path": f"{tmp_path}/new"})
    codec = models.load_codec(config)
    assert type(codec.tokenizer).__name__ == "ByT5Tokenizer"
    assert max(map(len, codec.encode_outputs(answers))) < config.sample.max_new_tokens
    shape = hf.read_config(tmp_path / "new", "float32")
    assert (shape.vocab_size, shape.num_layers, shape.num_decoder_layers) == (384, 3, 1)


def test_all_of_it_in_short(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sacrebleu")
    small = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_heads": 2, "num_layers": 1}
    monkeypatch.setattr(invented, "MODEL", invented.MODEL | small)
    monkeypatch.setattr(sys, "argv", ["invented.py", str(tmp_path), *SHORT])
    invented.main()
    printed = capsys.readouterr().out
    told = [line.split()[0] for line in printed.splitlines() if " chrF " in line]
    assert told == ["nothing", "nothing", "base", "base", "hir", "hir"]
    assert (tmp_path / "hir" / "report.html").is_file()
    assert json.loads((tmp_path / "hir" / "eval.json").read_text())["iterations"] == 1
