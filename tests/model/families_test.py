"""The models of the T5 family in the layout of the hub's files, against torch's transformers.

What torch makes of them is recorded; where torch is installed, that it still does is tested too.
"""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from hir_jax.decoding import sampler
from hir_jax.decoding.prompt import Prompt
from hir_jax.model import batching, hf, t5
from hir_jax.training import scoring
from tests import tiny
from tests.golden import families
from tests.model.hf_test import edit_json, fault, load, make_tokenizer
from tests.model.t5_test import forward, greedy, scored


@pytest.fixture(scope="module", params=families.FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory):
    return families.write(name, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def case(name, folder):
    """(Parameters and config as we read them, inputs and torch's outputs)."""
    return *load(folder), dict(np.load(families.FOLDER / f"{name}.npz"))


def test_logits_are_torchs(case):
    params, config, expected = case
    inputs = t5.shift_right(config, expected["target"])
    logits = forward(params, config, expected["source"], expected["source_mask"], inputs)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4, rtol=0)


def test_64_greedy_tokens_are_torchs(case):
    tokens, _ = greedy(case, -1)
    assert tokens.shape[1] == 64
    np.testing.assert_array_equal(tokens, case[2]["tokens"])


def test_greedy_rows_end_at_any_of_several_ids(case):
    ends = tuple(case[2]["eos_ids"].tolist())
    tokens, lengths = greedy(case, ends)
    for row, length, expected in zip(tokens, lengths, case[2]["tokens_to_any_eos"], strict=True):
        assert row[:length].tolist() == expected[:length].tolist()
        assert length == 64 or row[length - 1] in ends
        assert not set(row[: length - 1].tolist()) & set(ends)
    assert len({*lengths.tolist()}) >= 3 and len(ends) == 2


def test_scores_are_torchs(case):
    _, logprobs = scored(case, length=144)
    np.testing.assert_allclose(logprobs, case[2]["logprob"], atol=1e-3, rtol=0)


def test_an_export_comes_back_and_has_the_names_that_transformers_asks_for(case, folder, tmp_path):
    params, config, _ = case
    raw = hf.read_raw_config(folder)
    hf.export(tmp_path / "out", params, config, make_tokenizer(60), raw)
    again, config_again = load(tmp_path / "out")
    assert config_again == config
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert "shared.weight" in safetensors.numpy.load_file(tmp_path / "out" / hf.WEIGHTS)
    written = hf.read_raw_config(tmp_path / "out")
    rewritten = ("torch_dtype", "tie_word_embeddings", "scale_decoder_outputs", "generation_config")
    assert {k: v for k, v in written.items() if k not in rewritten} == {
        k: v for k, v in raw.items() if k not in rewritten
    }


@pytest.fixture(scope="module")
def record():
    """The torch side."""
    pytest.importorskip("torch", reason="torch is not installed; recorded files stand in for it")
    from tests.golden import record

    return record


def test_what_is_recorded_is_what_torch_says_now(record, name, case):
    live = record.family_reference(name)
    for key, recorded in case[2].items():
        np.testing.assert_allclose(live[key], recorded, atol=3e-5, rtol=1e-6)


def test_transformers_reads_an_export_as_the_model_it_was(record, name, case, tmp_path, folder):
    params, config, expected = case
    hf.export(tmp_path / "o", params, config, make_tokenizer(60), hf.read_raw_config(folder))
    model = record.transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "o").eval()
    assert type(model).__name__ == families.FAMILIES[name].config["architectures"][0]
    tensors = [record.torch.tensor(expected[k]) for k in ("source", "source_mask", "target")]
    with record.torch.no_grad():
        logits = model(tensors[0], attention_mask=tensors[1].long(), labels=tensors[2]).logits
    np.testing.assert_allclose(logits, expected["logits"], atol=3e-5, rtol=1e-6)


@pytest.mark.parametrize("kind", ["whole", "drawn"])
def test_the_log_probability_of_a_forced_beginning_is_the_models_own(tmp_path, kind):
    params, config = load(families.write("resized", tmp_path))
    params = jax.device_put(params)
    own = {"max_new_tokens": 4, "eos_id": (1, 65), "logprobs": kind, "rows": 8}
    engine = sampler.Sampler(config=config, mesh=tiny.one_device(), buckets=(8,), **own)
    (outputs,) = engine(params, [Prompt((7, 8, 1), 0)], jax.random.key(0), 1.0, samples=8)
    assert {output.tokens[0] for output in outputs} == {66}
    assert len({output.tokens for output in outputs}) > 4
    pairs = [((7, 8, 1), output.tokens) for output in outputs]
    buckets = batching.Buckets(source=(8,), target=(8,))
    scores = scoring.score_tokens(params, config, tiny.one_device(), pairs, 8, buckets)
    for output, each in zip(outputs, scores, strict=True):
        assert output.logprob == pytest.approx(sum(each.logprobs), abs=1e-4)
        assert output.logprobs == pytest.approx(each.logprobs, abs=1e-4)


def test_what_begins_and_ends_an_output_is_read_and_kept(tmp_path):
    folder = families.write("resized", tmp_path)
    params, config = load(folder)
    assert (config.eos_token_id, config.other_eos_ids) == (1, (65,))
    assert config.forced_bos_token_id == 66
    raw = hf.read_raw_config(folder)
    hf.export(tmp_path / "out", params, config, make_tokenizer(60), raw)
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written == families.FAMILIES["resized"].generation
    assert raw == hf.read_raw_config(folder)  # and not changed by that


def test_ids_come_from_either_file(tmp_path):
    folder = families.write("madlad", tmp_path)
    edit_json(folder / "config.json", pad_token_id=None, decoder_start_token_id=None)
    generation = {"pad_token_id": 3, "eos_token_id": 9, "forced_bos_token_id": 4}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    config = hf.read_config(folder)
    assert (config.pad_token_id, config.decoder_start_token_id) == (3, 3)
    assert (config.eos_token_id, config.other_eos_ids) == (2, (9,))
    edit_json(folder / "generation_config.json", eos_token_id=[9, 64], forced_bos_token_id="4")
    message = fault(hf.read_config, folder)
    assert "eos_token_id: expected a whole number from 0 to 63, found [9, 64]" in message
    assert "forced_bos_token_id: expected a whole number from 0 to 63, found '4'" in message


def test_a_head_is_never_taken_for_the_embedding(tmp_path):
    weights = families.weights(families.FAMILIES["madlad"])
    folder = families.write("madlad", tmp_path)
    del weights["decoder.embed_tokens.weight"]
    safetensors.numpy.save_file(weights, folder / hf.WEIGHTS)
    assert "1 faults:\n  missing: shared.weight" in fault(load, folder)
