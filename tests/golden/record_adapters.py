"""Records what PEFT writes, and what a model computes with it: tests/golden/adapters.

Run from the repository's root, where torch, transformers 5 and peft are installed:

    python -m tests.golden.record_adapters
"""

import peft
import safetensors.torch
import torch

from tests.golden import record

FOLDER = record.FOLDER / "adapters"
BASE = "v1_1"
TARGETS = ("q", "v", "wi_1", "wo")
RANK, ALPHA = 3, 6


def build() -> peft.PeftModel:
    """The golden model with random adapters, B included."""
    base = record.transformers.T5ForConditionalGeneration.from_pretrained(
        record.FOLDER / BASE, dtype="float32"
    )
    torch.manual_seed(record.SEED)
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="SEQ_2_SEQ_LM"
    )
    model = peft.get_peft_model(base, config)
    model.peft_config["default"].base_model_name_or_path = BASE  # not a path of this machine
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 4)
    return model.eval()


@torch.no_grad()
def logits(model: torch.nn.Module, source: torch.Tensor) -> torch.Tensor:
    """Of a source as its own target."""
    return model(input_ids=source, labels=source).logits


def main() -> None:
    """Writes the folder."""
    model = build()
    model.save_pretrained(FOLDER)
    (FOLDER / "README.md").unlink(missing_ok=True)
    source = torch.arange(2, 42).reshape(2, 20)
    expected = {"source": source, "logits": logits(model, source)}
    safetensors.torch.save_file(expected, FOLDER / "expected.safetensors")


if __name__ == "__main__":
    main()
