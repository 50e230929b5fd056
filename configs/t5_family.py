"""A model of the T5 family by its name on the hub, with what suits it, on your own questions.

    python main.py --config=configs/t5_family.py:google/mt5-small --workdir=runs/mine \
        --config.data.path=questions.jsonl

docs/models.md says which model suits which job, and where these settings come from. Models that
follow no instructions yet begin with `sft`; what it gives, exported, goes on with the same config,
--config.model.path=FOLDER and --config.algorithm=hir.
"""

import ml_collections

from configs import common

# What a name begins with -> whether the model follows instructions, and fields of its own.
FAMILIES = {
    "google/flan-t5-": (True, {}),
    "google/flan-ul2": (True, {}),
    "CohereForAI/aya-101": (True, {}),
    "google/madlad400-": (True, {}),  # to translate; what they are told is "<2de> text"
    "google/mt5-": (False, {}),
    "google/umt5-": (False, {}),
    "EleutherAI/pile-t5-": (False, {}),
    "google/t5-v1_1-": (False, {}),
    "google/t5-": (False, {}),  # such as google/t5-base-lm-adapt
    # A byte is a token: of English some four for one of T5's.
    "google/byt5-": (False, {"data.max_source_tokens": 1024, "sample.max_new_tokens": 128}),
    # The rate and lengths of CodeT5+'s own fine-tuning.
    "Salesforce/codet5": (
        False,
        {
            "train.learning_rate": 5e-5,
            "train.warmup_steps": 200,
            "sample.max_new_tokens": 128,
        },
    ),
}
BIG = ("-3b", "-7b", "-10b", "-11b", "-xl", "-xxl", "aya-101", "flan-ul2")


def get_config(name: str = "google/flan-t5-base") -> ml_collections.ConfigDict:
    family = next(filter(name.startswith, FAMILIES), None)
    if family is None:
        raise ValueError(
            "configs/t5_family.py: expected a name on the hub that begins with one of "
            f"{', '.join(FAMILIES)}; found {name!r}"
        )
    follows, own = FAMILIES[family]
    config = common.get_config()
    config.model.path = name
    config.model.dtype = "bfloat16"
    config.data.source = "jsonl"
    config.train.accumulation = 0
    if not follows:
        config.algorithm = "sft"  # of what it draws nothing would be right
    if any(size in name for size in BIG):
        config.train.optimizer = "adafactor"  # moments of AdamW would triple the memory
        config.mesh.data = 1
        config.mesh.fsdp = -1
    config.update_from_flattened_dict(own)
    return config
