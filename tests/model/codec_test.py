"""Text to tokens and back, with the tests' tokenizer and, where it is at hand, T5's."""

import pathlib

import pytest
import tokenizers
import transformers
from tokenizers.models import WordLevel

from hir_jax.errors import UserError
from hir_jax.model.codec import Codec
from tests import tiny

EOS = 1
T5 = pathlib.Path(__file__).parents[3] / "shared" / "tokenizer" / "t5"


@pytest.fixture(scope="module")
def codec():
    return Codec(tiny.tokenizer(), EOS)


@pytest.fixture(scope="module")
def t5_codec():
    if not T5.exists():
        pytest.skip("the T5 vocabulary is not there")
    return Codec(transformers.AutoTokenizer.from_pretrained(T5), EOS)


def ids(text):
    return tuple(tiny.VOCABULARY.index(word) for word in text.split())


def test_encode_adds_no_eos(codec):
    assert codec.encode(["not True", "False"]) == [ids("not True"), ids("False")]
    assert codec.encode([]) == []


def test_a_long_text_is_no_fault(codec):
    codec.tokenizer.model_max_length = 2
    assert len(codec.encode(["True and False or True"])[0]) == 5
    assert not codec.tokenizer.deprecation_warnings  # where transformers notes what it has said


def test_encode_ignores_truncation_and_padding_of_the_tokenizer_file():
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=8)
    codec = Codec(tokenizer, EOS)
    assert codec.encode(["not True and False", "False"]) == [
        ids("not True and False"),
        ids("False"),
    ]


def test_a_tokenizer_without_special_tokens():
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(WordLevel({"yes": 0, "</s>": 1, "no": 2}))
    )
    codec = Codec(tokenizer, EOS)
    assert codec.encode(["yes"]) == [(0,)]
    assert codec.read((2, EOS)) == "no"
    with pytest.raises(UserError, match="The tokenizer cannot read all texts"):
        codec.encode(["yes", "maybe"])


def test_decode_leaves_the_eos_out_whether_the_tokenizer_knows_it_or_not(codec):
    assert codec.decode((*ids("not True"), EOS)) == "not True"
    assert codec.decode((EOS,)) == ""
    (eos,) = ids("w9")
    assert Codec(tiny.tokenizer(), eos).decode((*ids("not True"), eos)) == "not True"


@pytest.mark.parametrize("hidden", [0, 2, 999])  # pad, unknown, beyond the tokenizer
def test_an_output_with_a_token_that_has_no_text_is_shown_and_cannot_be_read(codec, hidden):
    name = {0: "<pad>", 2: "<unk>", 999: "<999>"}[hidden]
    assert codec.read((*ids("not True"), EOS)) == "not True"
    for tokens, shown in (((*ids("not True"), hidden, EOS), f"not True{name}"), ((hidden,), name)):
        assert codec.read(tokens) is None
        assert codec.decode(tokens) == shown


def test_the_tokenizers_own_eos_is_hidden_where_the_models_is_another():
    codec = Codec(tiny.tokenizer(), ids("w9")[0])
    assert codec.read((*ids("True"), EOS)) is None
    assert codec.decode((*ids("True"), EOS)) == "True</s>"


@pytest.mark.parametrize("name", ["</s>", "<pad>", "<unk>", "<extra_id_7>"])
def test_the_name_of_a_special_token_in_a_text_is_text(codec, t5_codec, name):
    for each in (codec, t5_codec):
        special = {0, EOS, *each.tokenizer.convert_tokens_to_ids([name])} - {2, None}
        (tokens,) = each.encode([f"say {name} now"])
        assert not special & set(tokens)
        assert tokens == each.encode([f"say < {name[1:]} now"])[0]


def test_t5_lacks_characters(t5_codec):
    lacks = lambda text: t5_codec.lacks(t5_codec.encode([text])[0])  # noqa: E731
    assert [lacks(text) for text in ("x^2", "{1, 2}", "日本", "a < b", "two")] == [True] * 4 + [
        False
    ]
