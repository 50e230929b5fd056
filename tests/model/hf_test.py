"""Hugging Face folders: names, reading, export and its way back, and every fault a user can hit."""

import json
import pathlib
import shutil

import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
import transformers

from hir_jax.devices import sharding
from hir_jax.errors import UserError
from hir_jax.model import hf, hub, t5
from hir_jax.model.config import Params, T5Config

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SINGLE, SHARDED = GOLDEN / "v1_0", GOLDEN / "deep_decoder_sharded"


def make_tokenizer(pieces: int) -> transformers.PreTrainedTokenizerFast:
    """Knows `pieces` words: <pad>, </s>, <unk>, w3, w4, ..."""
    words = ["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(3, pieces))]
    vocabulary = {word: i for i, word in enumerate(words)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(
            tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
        ),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def load(folder: pathlib.Path) -> tuple[Params, T5Config]:
    config = hf.read_config(folder)
    return hf.load_params(folder, config), config


def edit_json(file: pathlib.Path, **changes) -> None:
    """Changes fields of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


@pytest.fixture
def single(tmp_path) -> pathlib.Path:
    """A v1.0 model in one file, to be damaged."""
    return shutil.copytree(SINGLE, tmp_path / "single", ignore=shutil.ignore_patterns("*.npz"))


@pytest.fixture
def sharded(tmp_path) -> pathlib.Path:
    """A v1.1 model in several files, to be damaged."""
    return shutil.copytree(SHARDED, tmp_path / "sharded", ignore=shutil.ignore_patterns("*.npz"))


# Names and config ----------------------------------------------------------------------------


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layers", [(2, 2), (2, 3), (3, 1)])
@pytest.mark.parametrize("every", [False, True])
def test_names_cover_exactly_the_parameters(gated, tied, layers, every):
    kind = {"gated": gated, "tie_lm_head": tied, "layer_biases": every}
    config = T5Config(96, 16, 4, 32, *layers, num_heads=4, **kind)
    shapes = t5.abstract_params(config)
    leaves = [tuple(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    assert sorted(path for path, _ in hf.name_table(config).values()) == sorted(leaves)


@pytest.mark.parametrize("folder", ["v1_0", "v1_1_bfloat16", "deep_decoder_sharded", "wide_heads"])
def test_names_cover_exactly_torchs_weights(folder):
    files = sorted((GOLDEN / folder).glob("*.safetensors"))
    names = [name for file in files for name in safetensors.numpy.load_file(file)]
    assert sorted(hf.name_table(hf.read_config(GOLDEN / folder))) == sorted(names)


@pytest.mark.parametrize(
    ("tie_word_embeddings", "scale_decoder_outputs", "scaled"),
    [
        (None, None, True),  # the oldest files say nothing
        (True, None, True),  # transformers 4
        (False, None, False),
        (True, True, True),  # transformers 5 calls every T5 tied
        (True, False, False),
        (False, True, True),
    ],
)
def test_scaling_is_read_off_config_and_tying_off_the_weights(
    single, sharded, tie_word_embeddings, scale_decoder_outputs, scaled
):
    for folder, tied in ((single, True), (sharded, False)):
        edit_json(
            folder / "config.json",
            tie_word_embeddings=tie_word_embeddings,
            scale_decoder_outputs=scale_decoder_outputs,
        )
        config = hf.read_config(folder)
        assert (config.scale_decoder_outputs, config.tie_lm_head) == (scaled, tied)


@pytest.mark.parametrize(
    ("kind", "activation", "gated"),
    [
        ("relu", "relu", False),
        ("gelu", "gelu", False),
        ("gated-gelu", "gelu_new", True),
        ("gated-silu", "silu", True),
    ],
)
def test_activation_is_read(single, kind, activation, gated):
    file = single / "config.json"
    edit_json(file, feed_forward_proj=kind, dense_act_fn=None, is_gated_act=None)
    config = hf.read_config(single)
    assert (config.activation, config.gated) == (activation, gated)
    # Transformers goes by these, where they are there.
    edit_json(file, dense_act_fn="gelu_pytorch_tanh", is_gated_act=not gated)
    config = hf.read_config(single)
    assert (config.activation, config.gated) == ("gelu_new", not gated)
    edit_json(file, dense_act_fn="tanh")
    assert "dense_act_fn: expected one of relu, gelu, gelu_new, silu; found 'tanh'" in fault(
        hf.read_config, single
    )


@pytest.mark.parametrize(
    ("tied", "scaled"), [(None, None), (True, None), (False, None), (True, True)]
)
def test_an_mt5_is_gated_and_never_scaled(single, tied, scaled):
    changes = dict.fromkeys(("feed_forward_proj", "dense_act_fn", "is_gated_act"))
    changes |= {"model_type": "mt5", "tie_word_embeddings": tied, "scale_decoder_outputs": scaled}
    edit_json(single / "config.json", **changes)
    config = hf.read_config(single)
    assert (config.scale_decoder_outputs, config.activation, config.gated) == (
        False,
        "gelu_new",
        True,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_weights_are_read_as_their_float32_values(dtype):
    folder = GOLDEN / {"float16": "v1_0_float16", "bfloat16": "v1_1_bfloat16"}[dtype]
    params, _ = load(folder)
    stored = safetensors.numpy.load_file(folder / hf.WEIGHTS)["shared.weight"]
    assert (stored.dtype, params["shared"].dtype) == (dtype, np.float32)
    np.testing.assert_array_equal(params["shared"], stored)


def test_weights_known_under_a_second_name_are_passed_over(single):
    weights = safetensors.numpy.load_file(single / hf.WEIGHTS)
    weights |= dict.fromkeys(hf.ALIASES, weights["shared.weight"])
    safetensors.numpy.save_file(weights, single / hf.WEIGHTS)
    jax.tree.map(np.testing.assert_array_equal, load(single)[0], load(SINGLE)[0])


def test_an_index_that_is_not_of_its_files(sharded):
    index = json.loads((sharded / hf.INDEX).read_text())
    where = index["weight_map"].pop("lm_head.weight")
    (sharded / hf.INDEX).write_text(json.dumps(index))
    assert not hf.read_config(sharded).tie_lm_head
    jax.tree.map(np.testing.assert_array_equal, load(sharded)[0], load(SHARDED)[0])
    first = next(name for name, file in index["weight_map"].items() if file != where)
    weights = safetensors.numpy.load_file(sharded / where)
    other = safetensors.numpy.load_file(sharded / index["weight_map"][first])[first]
    safetensors.numpy.save_file(weights | {first: other + 1}, sharded / where)
    assert f"1 faults:\n  in two files: {first}\n" in fault(load, sharded)


@pytest.mark.parametrize("said", [None, True, False])
def test_a_head_that_may_be_missing_is_told(single, sharded, said, caplog):
    for folder, tied in ((single, True), (sharded, False)):
        edit_json(folder / "config.json", tie_word_embeddings=said)
        caplog.clear()
        hf.read_config(folder)
        told = f"{folder}: config.json has tie_word_embeddings false, and yet there is no lm_head."
        assert (told in caplog.text) == (tied and said is False)


# Export --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "scaled"), [(SINGLE, True), (SHARDED, False)])
@pytest.mark.parametrize("shard_bytes", [hf.SHARD_BYTES, 8_000])
def test_export_comes_back_bit_identical(tmp_path, source, scaled, shard_bytes):
    config = hf.read_config(source)
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})

    def place(path: hf.Path, array: np.ndarray) -> jax.Array:
        spec = sharding.leaf_spec(mesh, "/".join(path), array.shape)
        return jax.device_put(array, jax.sharding.NamedSharding(mesh, spec))

    params = hf.load_params(source, config, place)
    raw, folder = hf.read_raw_config(source) | {"own_field": [1]}, tmp_path / "a" / "b"
    hf.export(folder, params, config, make_tokenizer(90), raw, shard_bytes)
    again, config_again = load(folder)
    assert config_again == config
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert hf.load_tokenizer(folder, config)("w5").input_ids == [5]
    generation = transformers.GenerationConfig.from_pretrained(folder)
    assert generation.decoder_start_token_id == config.decoder_start_token_id
    assert generation.eos_token_id == config.eos_token_id
    files = sorted(folder.glob("*.safetensors"))
    assert (len(files) > 3) == (folder / hf.INDEX).exists() == (shard_bytes == 8_000)
    assert shard_bytes > 8_000 or all(file.stat().st_size < 12_000 for file in files)
    # Transformers 4 reads both tying and scaling off tie_word_embeddings; 5 takes every T5 as tied
    # unless two matrices are there, and reads scaling off the other field.
    raw_again = hf.read_raw_config(folder)
    assert raw_again["tie_word_embeddings"] == raw_again["scale_decoder_outputs"] == scaled
    assert raw_again["own_field"] == [1]


@pytest.fixture(scope="module")
def record():
    """The torch side."""
    pytest.importorskip("torch", reason="torch is not installed")
    from tests.golden import record

    return record


@pytest.mark.parametrize("shard_bytes", [hf.SHARD_BYTES, 8_000])
@pytest.mark.parametrize("variant", ["v1_0", "v1_1", "deep_decoder", "wide_heads"])
def test_transformers_reads_an_export_as_the_model_it_was(tmp_path, record, variant, shard_bytes):
    torch = record.torch
    model = record.build(variant, seed=2)
    model.save_pretrained(tmp_path / "theirs")
    params, config = load(tmp_path / "theirs")
    raw = hf.read_raw_config(tmp_path / "theirs")
    hf.export(tmp_path / "ours", params, config, make_tokenizer(90), raw, shard_bytes)
    again = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    assert again.config.scale_decoder_outputs == config.scale_decoder_outputs
    source = torch.arange(2, 42).reshape(2, 20)
    with torch.no_grad():
        expected, found = (m(input_ids=source, labels=source).logits for m in (model, again))
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
        # Finds its start token; no cache, since transformers 5 makes one of num_layers layers.
        again.generate(source, max_new_tokens=2, use_cache=False)
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")) == 90


# Faults --------------------------------------------------------------------------------------


def fault(call, *args) -> str:
    with pytest.raises(UserError) as error:
        call(*args)
    return str(error.value)


@pytest.mark.parametrize("name", ["", "./nowhere", "/nowhere/at/all", "~/nowhere/at/all", "a/b/c"])
def test_no_such_folder(name):
    message = fault(hub.find, name)
    assert f"found no folder {name!r}" in message
    assert "hub name such as google/flan-t5-small" in message


def test_a_folder_is_found_as_it_is(single):
    assert hub.find(str(single)) == single


@pytest.mark.parametrize("why", ["no route to host\nand more", ""])
def test_hub_out_of_reach(monkeypatch, why):
    def download(*args, **kwargs):
        raise ConnectionError(why)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    message = fault(hub.find, "google/no-such-model")
    assert f"(ConnectionError: {why.split(chr(10))[0]})" in message
    assert "'google/no-such-model'" in message
    assert "Give a local folder, or check the name and the network" in message


def test_no_config(single):
    (single / "config.json").unlink()
    assert f"{single}: expected a config.json" in fault(hf.read_config, single)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "bart"}', "{}"])
def test_config_of_no_t5(single, text):
    (single / "config.json").write_text(text)
    message = fault(hf.read_config, single)
    assert f"{single / 'config.json'}: expected " in message
    assert (
        "JSON" in message
        if text in "{[]"
        else "expected model_type 't5', 'mt5', 'umt5', found" in message
    )


def test_config_with_faulty_numbers(single):
    edit_json(single / "config.json", d_ff=None, num_heads="4", eos_token_id=[1, 999])
    message = fault(hf.read_config, single)
    assert str(single / "config.json") in message
    for fault_of in ("d_ff: expected a whole number from 1", "num_heads: expected", "eos_token_id"):
        assert fault_of in message
    assert "found None" in message and "found '4'" in message and "found [1, 999]" in message


@pytest.mark.parametrize("kind", ["swish", "gated-", "twice-gelu", 3])
def test_unknown_activation(single, kind):
    edit_json(single / "config.json", feed_forward_proj=kind)
    message = fault(hf.read_config, single)
    assert str(single / "config.json") in message
    assert f"found {str(kind)!r}" in message
    assert "one of relu, gelu, gelu_new, silu" in message


def test_no_weights(single):
    (single / hf.WEIGHTS).unlink()
    message = fault(hf.read_config, single)
    assert f"{single}: expected model.safetensors or pytorch_model.bin, found neither" in message


@pytest.mark.parametrize("kept", [0, 5, 100, -10])
def test_truncated_weights(single, sharded, kept):
    """Cut in the length of the header, in the header, and in the data."""
    file, shard = single / hf.WEIGHTS, next(sharded.glob("model-00002*"))
    config = hf.read_config(sharded)
    for cut in (file, shard):
        cut.write_bytes(cut.read_bytes()[:kept])
    for cut, args in (
        (file, (hf.read_config, single)),
        (shard, (hf.load_params, sharded, config)),
    ):
        message = fault(*args)
        assert f"{cut}: expected a whole safetensors file, found a damaged one" in message
        assert "Copy or download it again" in message


def test_all_weights_that_do_not_fit_are_listed_at_once(single):
    weights = safetensors.numpy.load_file(single / hf.WEIGHTS)
    del weights["encoder.final_layer_norm.weight"], weights["shared.weight"]
    weights["decoder.block.1.layer.2.DenseReluDense.wo.weight"] = np.zeros((32, 16), np.float32)
    weights["decoder.final_layer_norm.weight"] = np.zeros(15, np.float32)
    weights["classifier.weight"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(weights, single / hf.WEIGHTS)
    message = fault(load, single)
    assert f"{single}: the weights do not fit its config.json; 5 faults" in message
    assert message.splitlines()[1:-1] == [
        "  misshapen: decoder.block.1.layer.2.DenseReluDense.wo.weight: "
        "expected (16, 32), found (32, 16)",
        "  misshapen: decoder.final_layer_norm.weight: expected (16,), found (15,)",
        "  missing: shared.weight",
        "  missing: encoder.final_layer_norm.weight",
        "  unknown: classifier.weight",
    ]
    assert "of one and the same model" in message


def test_index_that_names_an_absent_file(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    message = fault(hf.read_config, sharded)
    assert f"{sharded / hf.INDEX} names files that are not there" in message
    assert "model-00002-of-00003.safetensors. Copy or download them" in message


def test_index_that_promises_a_weight_its_file_lacks(sharded):
    file = json.loads((sharded / hf.INDEX).read_text())["weight_map"]["shared.weight"]
    weights = safetensors.numpy.load_file(sharded / file)
    del weights["shared.weight"]
    safetensors.numpy.save_file(weights, sharded / file)
    assert "1 faults:\n  missing: shared.weight" in fault(load, sharded)


@pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": 3}', "[]"])
def test_faulty_index(sharded, text):
    (sharded / hf.INDEX).write_text(text)
    message = fault(hf.read_config, sharded)
    assert f"{sharded / hf.INDEX}: expected JSON" in message
    assert "Download it again" in message


def test_no_tokenizer(single):
    message = fault(hf.load_tokenizer, single, hf.read_config(single))
    assert f"{single}: expected a tokenizer (tokenizer.json, spiece.model, " in message
    assert "Copy the tokenizer's files" in message


def test_faulty_tokenizer(single):
    make_tokenizer(90).save_pretrained(single)
    (single / "tokenizer.json").write_text("{")
    message = fault(hf.load_tokenizer, single, hf.read_config(single))
    assert f"{single}: expected a tokenizer that transformers can load" in message
    assert "A whole tokenizer.json" in message


def test_a_spiece_model_alone_that_cannot_be_read(single):
    (single / "spiece.model").write_text("no model")
    message = fault(hf.load_tokenizer, single, hf.read_config(single))
    assert f"{single}: expected a tokenizer.json, found spiece.model alone" in message
    assert "pip install 'hir_jax[sentencepiece]'" in message
    assert "tiktoken" not in message


def test_tokenizer_larger_than_the_vocabulary(single):
    make_tokenizer(97).save_pretrained(single)
    message = fault(hf.load_tokenizer, single, hf.read_config(single))
    assert f"{single}: the tokenizer has pieces up to number 96, the model only 96 emb" in message
    assert "Copy the tokenizer from where the model came from" in message


def test_a_tokenizer_of_few_pieces_with_numbers_beyond_the_vocabulary(single):
    pieces = {"<pad>": 0, "</s>": 1, "<unk>": 2, "far": 96}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(pieces, unk_token="<unk>"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(single)
    assert "up to number 96" in fault(hf.load_tokenizer, single, hf.read_config(single))


def test_export_into_a_folder_that_is_not_empty(single):
    params, config = load(single)
    before = {file: file.read_bytes() for file in single.iterdir()}
    for folder in (single, single / "config.json"):
        message = fault(hf.export, folder, params, config, make_tokenizer(90), {})
        assert f"expected a new or empty folder, found {folder}" in message
        assert "Give another folder" in message
    assert {file: file.read_bytes() for file in single.iterdir()} == before
