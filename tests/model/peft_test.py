"""Adapters in and out of PEFT's folders: against recorded ones always, live where it is there."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hir_jax.errors import UserError
from hir_jax.model import hf, lora, peft, t5
from hir_jax.model.lora import Lora

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FOLDER, BASE = GOLDEN / "adapters", GOLDEN / "v1_1"
MADE = Lora(3, 6.0, ("q", "v", "wi_1", "wo"))
CONFIG = hf.read_config(BASE)


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "adapters")


def edit(folder, **changes):
    file = folder / peft.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_what_peft_wrote_computes_what_it_computed():
    recorded = load_file(FOLDER / "expected.safetensors")
    params = hf.load_params(BASE, CONFIG)
    attached = lora.attach(params, peft.load(FOLDER, MADE, CONFIG), MADE.scale)
    source = jnp.asarray(recorded["source"])
    inputs = t5.shift_right(CONFIG, source)
    forward = jax.jit(t5.forward, static_argnums=1)
    found = forward(attached, CONFIG, source, source > 0, inputs)
    np.testing.assert_allclose(found, recorded["logits"], atol=1e-4)
    assert np.abs(forward(params, CONFIG, source, source > 0, inputs) - found).max() > 0.1


def test_what_is_written_is_what_peft_wrote(tmp_path):
    peft.write(tmp_path, peft.load(FOLDER, MADE, CONFIG), MADE, CONFIG, "v1_1")
    ours, theirs = (load_file(folder / peft.WEIGHTS) for folder in (tmp_path, FOLDER))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
    ours, theirs = (json.loads((f / peft.CONFIG).read_text()) for f in (tmp_path, FOLDER))
    theirs["target_modules"].sort()
    assert ours.items() <= theirs.items()


def test_peft_loads_what_is_written(tmp_path):
    pytest.importorskip("peft", reason="peft is not installed; a golden folder stands in for it")
    from tests.golden import record_adapters

    peft.write(tmp_path, peft.load(FOLDER, MADE, CONFIG), MADE, CONFIG, str(BASE))
    torch, transformers = record_adapters.torch, record_adapters.record.transformers
    base = transformers.T5ForConditionalGeneration.from_pretrained(BASE, dtype="float32")
    model = record_adapters.peft.PeftModel.from_pretrained(base, tmp_path).eval()
    recorded = load_file(FOLDER / "expected.safetensors")
    found = record_adapters.logits(model, torch.tensor(recorded["source"]))
    np.testing.assert_allclose(found, recorded["logits"], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"peft_type": "IA3"}, "expected peft_type LORA, found 'IA3'"),
        ({"r": 4}, r"r: expected 3, as config\.lora\.rank; found 4"),
        ({"lora_alpha": 16}, r"lora_alpha: expected 6, as config\.lora\.alpha; found 16"),
        ({"use_rslora": True}, "use_rslora: expected False, found True"),
        ({"use_anything": True}, "use_anything: expected False, found True"),
        ({"bias": "all"}, "bias: expected 'none', found 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save: expected None"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: expected True, found 'pissa'"),
    ],
)
def test_adapters_of_another_kind_are_refused(copy, changes, says):
    edit(copy, **changes)
    with pytest.raises(UserError, match=says):
        peft.load(copy, MADE, CONFIG)


def test_other_matrices_are_refused_and_listed(copy):
    with pytest.raises(UserError, match="24 faults:\n  missing: base_model") as e:
        peft.load(copy, Lora(3, 6.0, ("attention", "wi_1", "wo")), CONFIG)
    assert len(str(e.value).splitlines()) == 22  # the first of them
    assert str(e.value).endswith("\nGive the model, and the targets, that they were made with.")
    arrays = load_file(copy / peft.WEIGHTS)
    name = "base_model.model.encoder.block.1.layer.1.DenseReluDense.wo.lora_A.weight"
    arrays["base_model.model.lm_head.lora_A.weight"] = arrays[name]
    arrays[name] = arrays[name].T.copy()
    whole = name.replace("lora_A", "lora_B")
    arrays[whole] = arrays[whole].astype(np.int8)
    save_file(arrays, copy / peft.WEIGHTS)
    with pytest.raises(UserError, match="3 faults") as e:
        peft.load(copy, MADE, CONFIG)
    assert f"misshapen: {name}: expected (3, 32), found (32, 3)" in str(e.value)
    assert f"mistyped: {whole}: expected float64, float32, float16, bfloat16, found int8" in str(
        e.value
    )
    assert "unknown: base_model.model.lm_head.lora_A.weight" in str(e.value)


def test_folders_without_whole_adapters_are_refused(copy, tmp_path):
    for folder in (tmp_path / "absent", BASE):
        with pytest.raises(UserError, match=r"config\.lora\.path: expected a PEFT folder"):
            peft.load(folder, MADE, CONFIG)
    file = copy / peft.WEIGHTS
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match="expected a whole safetensors file, found a damaged"):
        peft.load(copy, MADE, CONFIG)
    file.unlink()
    (copy / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="a pickle, are never loaded"):
        peft.load(copy, MADE, CONFIG)
