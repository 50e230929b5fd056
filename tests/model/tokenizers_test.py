"""Tokenizers in the files that the hub's models have: found, read, written, and read as text."""

import json
import pathlib
import random

import pytest
import tokenizers
import transformers

from hir_jax.data.example import Example
from hir_jax.decoding.prompt import Output
from hir_jax.hindsight import verify
from hir_jax.model import hf
from hir_jax.model.codec import Codec
from hir_jax.model.config import T5Config
from hir_jax.run import judging
from tests.model.hf_test import fault

TEXTS = ("two words (A)", "say </s> now", "über 日本, 12.5")
SENTINELS = [f"<extra_id_{i}>" for i in range(9, -1, -1)]


def text() -> str:
    rng = random.Random(0)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 6))) for _ in "x" * 400
    ]
    return "\n".join(
        " ".join(rng.choices(words, k=8)) + " (A) < /s> 12.5, über 日本" for _ in range(300)
    )


def write_json(folder: pathlib.Path, **files) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def piece_model(folder: pathlib.Path, name: str = "spiece.model", **kind) -> None:
    """Trains a SentencePiece model of some hundred pieces."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    with (folder / name).open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text().splitlines()),
            model_writer=file,
            vocab_size=330,
            minloglevel=2,
            **kind,
        )


T5_IDS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
LLAMA_IDS = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}


def mt5(folder):
    piece_model(folder, **T5_IDS)
    write_json(folder, config={"model_type": "mt5"}, tokenizer_config={"extra_ids": 0})


def umt5(folder):
    piece_model(folder, **T5_IDS)
    kind = {"tokenizer_class": "T5Tokenizer"}
    write_json(folder, config={"model_type": "umt5"}, tokenizer_config={"extra_ids": 0} | kind)


def lm_adapt(folder):
    piece_model(folder, **T5_IDS)
    write_json(folder, config={"model_type": "t5"}, tokenizer_config={"extra_ids": 100})


def madlad(folder):
    piece_model(folder, **LLAMA_IDS, user_defined_symbols=["<2de>", "<2fr>"])
    own = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "pad_token": "<s>", "bos_token": "<s>"}
    write_json(folder, config={"model_type": "t5"}, tokenizer_config=own)


def pile_t5(folder):
    piece_model(folder, "tokenizer.model", model_type="bpe", byte_fallback=True, **LLAMA_IDS)
    own = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": True}
    own |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<s>"}
    write_json(folder, config={"model_type": "umt5"}, tokenizer_config=own)


def byt5(folder):
    write_json(folder, config={"model_type": "t5", "tokenizer_class": "ByT5Tokenizer"})


def umt5_of_bytes(folder):
    write_json(folder, config={"model_type": "umt5", "tokenizer_class": "ByT5Tokenizer"})


def codet5(folder):
    bpe = tokenizers.ByteLevelBPETokenizer()
    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator([text()], vocab_size=330, special_tokens=special, show_progress=False)
    bpe.save_model(str(folder))
    size = bpe.get_vocab_size()
    roles = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>"}
    roles |= {"unk": "<unk>", "mask": "<mask>"}
    own = {f"{role}_token": token for role, token in roles.items()}
    own |= {"tokenizer_class": "RobertaTokenizer", "additional_special_tokens": SENTINELS}
    write_json(
        folder,
        config={"model_type": "t5", "bos_token_id": 1, "eos_token_id": 2},
        added_tokens={name: size + i for i, name in enumerate(SENTINELS)},
        tokenizer_config=own,
    )


EOS = {mt5: 1, umt5: 1, lm_adapt: 1, madlad: 2, pile_t5: 2, byt5: 1, umt5_of_bytes: 1, codet5: 2}


@pytest.mark.parametrize("files", EOS, ids=lambda files: files.__name__)
def test_texts_come_back_from_the_hubs_files_and_from_an_export(tmp_path, files):
    files(tmp_path)
    codec = Codec(hf.load_tokenizer(tmp_path), EOS[files])
    assert codec.tokenizer.eos_token_id == codec.eos_id
    encoded = codec.encode(TEXTS)
    for said, tokens in zip(TEXTS, encoded, strict=True):
        assert codec.read((*tokens, codec.eos_id)) == said.replace("</s>", "< /s>")
    assert not set(codec.eos_ids) & {token for tokens in encoded for token in tokens}
    (tmp_path / "out").mkdir()
    codec.tokenizer.save_pretrained(tmp_path / "out")
    assert Codec(hf.load_tokenizer(tmp_path / "out"), codec.eos_id).encode(TEXTS) == encoded


def test_a_language_of_madlad_is_a_token_of_the_text(tmp_path):
    madlad(tmp_path)
    codec = Codec(hf.load_tokenizer(tmp_path), 2)
    (tokens,) = codec.encode(["<2de> two"])
    assert "<2de>" in codec.tokenizer.convert_ids_to_tokens(list(tokens))
    assert codec.read(tokens) == "<2de> two"
    # The unknown token is 0. Transformers 5 would put the EOS, 2, for it.
    (tokens,) = codec.encode(["two ☃"])
    assert codec.lacks(tokens) and 2 not in tokens and codec.read(tokens) is None


def test_a_spiece_model_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    mt5(tmp_path)

    def lacks(*args, **kwargs):
        raise ImportError("pip install tiktoken")

    monkeypatch.setattr(transformers.T5Tokenizer, "from_pretrained", lacks)
    message = fault(hf.load_tokenizer, tmp_path)
    assert "found spiece.model alone" in message
    assert "pip install 'hir_jax[sentencepiece]'" in message and "tiktoken" not in message


# ByT5 ---------------------------------------------------------------------------------------------


def of_another_kind(folder, kind, **fields):
    """A tokenizer.json that says what its special tokens are, but not which is which."""
    of = tokenizers.Tokenizer(kind)
    of.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    of.add_special_tokens(["<pad>", "</s>"])
    of.save(str(folder / "tokenizer.json"))
    write_json(folder, config={"model_type": "t5"}, **fields)


WORDS = {"<pad>": 0, "</s>": 1, "<unk>": 2, "w": 3, "<": 4, "/s>": 5}
KINDS = {
    "words": tokenizers.models.WordLevel(WORDS, unk_token="<unk>"),
    "unigram": tokenizers.models.Unigram([(word, -1.0) for word in WORDS], 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_without_a_name_for_their_role_have_it_all_the_same(tmp_path, kind):
    loads = {"tokenizer_class": "PreTrainedTokenizerFast"}
    of_another_kind(tmp_path, KINDS[kind], tokenizer_config=loads)
    config = T5Config(6, 8, 2, 8, 1, 1, num_heads=2)
    codec = Codec(hf.load_tokenizer(tmp_path, config), 1)
    assert 1 not in codec.encode(["w </s>"])[0]
    assert not codec.is_readable((3, 0, 3, 1))
    assert codec.is_readable((3, 1))
    assert codec.lacks(codec.encode(["日"])[0])
    assert not codec.lacks((3, 4, 5))
    assert not codec.is_readable((2, 1))
    codec.tokenizer.save_pretrained(tmp_path / "again")
    again = hf.load_tokenizer(tmp_path / "again", config)
    assert (again.unk_token, again.eos_token, again.pad_token) == ("<unk>", "</s>", "<pad>")


def test_an_unknown_token_that_is_none_of_the_pieces_is_left_out(tmp_path):
    kind = tokenizers.models.BPE(WORDS, [], unk_token="<none>")
    of_another_kind(tmp_path, kind, tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast"})
    assert hf.load_tokenizer(tmp_path).unk_token is None


def test_a_tokenizer_of_another_kind_than_t5s_is_to_say_so(tmp_path):
    of_another_kind(tmp_path, KINDS["words"])
    found = fault(hf.load_tokenizer, tmp_path)
    assert 'tokenizer_config.json beside it: {"tokenizer_class": "PreT' in found


@pytest.fixture(scope="module")
def of_bytes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("byt5")
    byt5(folder)
    return Codec(hf.load_tokenizer(folder), 1)


def spelled(raw: bytes) -> tuple[int, ...]:
    return tuple(byte + 3 for byte in raw)


def test_bytes_are_tokens_and_nothing_is_unknown(of_bytes):
    assert of_bytes.encode(["a日"]) == [spelled("a日".encode())]
    assert not of_bytes.lacks(of_bytes.encode(["{x^2} 日本"])[0])
    assert len(of_bytes.tokenizer) == 384  # 3 special tokens, 256 bytes, 125 sentinels


@pytest.mark.parametrize(
    ("raw", "ended", "shown", "readable"),
    [
        (b"(A)", True, "(A)", True),
        (b"(A)\xff", True, "(A)", False),  # would pass for the right answer
        (b"\xe6\x97(A)", True, "(A)", False),
        ("日本".encode()[:-1], True, "日", False),
        ("日本".encode()[:-1], False, "日", True),  # cut off at the longest output
        (b"\x80", False, "", False),
    ],
)
def test_bytes_that_are_no_characters_are_left_out_as_transformers_does(
    of_bytes, raw, ended, shown, readable
):
    tokens = spelled(raw) + (1,) * ended
    assert of_bytes.decode(tokens) == shown
    assert of_bytes.decode(tokens) == of_bytes.tokenizer.decode(tokens, skip_special_tokens=True)
    assert of_bytes.read(tokens) == (shown if readable else None)


@pytest.mark.parametrize("hidden", [0, 2, 259, 383, 384])
def test_a_byt5s_special_tokens_have_no_text(of_bytes, hidden):
    assert of_bytes.read((*spelled(b"(A)"), hidden, 1)) is None


# What begins and ends an output -------------------------------------------------------------------


def test_a_bos_of_the_tokenizers_own_begins_texts_and_is_none_of_them(tmp_path):
    codet5(tmp_path)
    codec = Codec(hf.load_tokenizer(tmp_path), 2)
    ours, theirs = codec.encode(["two words"])[0], codec.tokenizer("two words").input_ids
    assert (*ours, 2) == tuple(theirs) and ours[0] == 1
    assert codec.encode_outputs(["two words"]) == [ours]
    assert codec.read((*ours, 2)) == codec.read((*ours[1:], 2)) == "two words"
    assert codec.read((*ours, 1, 2)) is None  # anywhere else it is out of place


def test_a_forced_bos_begins_outputs_alone(of_bytes):
    codec = Codec(of_bytes.tokenizer, 1, (5,), forced_bos_id=260)
    assert codec.opening_ids == (260,) and of_bytes.opening_ids == ()
    assert codec.encode(["a"]) == [spelled(b"a")]
    assert codec.encode_outputs(["a"]) == [(260, *spelled(b"a"))]
    assert codec.read((260, *spelled(b"a"), 1)) == "a"
    assert codec.read((260, *spelled(b"a"), 5)) == "a"  # the other id that ends an output
    assert codec.read((*spelled(b"a"), 260, 1)) is None


# Special tokens as answers ------------------------------------------------------------------------


@pytest.mark.parametrize("files", [lm_adapt, byt5, codet5], ids=lambda files: files.__name__)
def test_special_tokens_that_were_added_are_answers(tmp_path, files):
    files(tmp_path)
    tokenizer = hf.load_tokenizer(tmp_path)
    tokenizer.add_tokens([f"<loc_{i}>" for i in range(20)], special_tokens=True)
    (tmp_path / "out").mkdir()
    tokenizer.save_pretrained(tmp_path / "out")
    codec = Codec(hf.load_tokenizer(tmp_path / "out"), EOS[files])
    answer = "<loc_12><loc_7>"
    (tokens,) = codec.encode_outputs([answer])
    assert len(tokens) == 2 + (files is codet5)
    assert codec.read((*tokens, codec.eos_id)) == answer
    example = Example("t/0", "where?", (), (answer,), "t", "p")
    outputs = [Output((*ids, codec.eos_id), -1.0) for ids in (tokens, tokens[::-1])]
    (judged,) = judging.judged(verify.resolve("exact"), [example], [outputs], codec)
    assert [one.verdict.correct for one in judged] == [True, files is None]
    assert judged[0].text == answer
    sentinel = tokenizer.convert_tokens_to_ids("<extra_id_7>")
    assert codec.read((*tokens, sentinel, codec.eos_id)) is None
