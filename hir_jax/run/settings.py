"""What values the fields of a config may take, checked before anything is loaded or written."""

import math
import operator
from collections.abc import Collection
from typing import Any

import ml_collections

from hir_jax.decoding.beam import EARLY_STOPPING
from hir_jax.errors import UserError
from hir_jax.hindsight import relabel, replay, verify
from hir_jax.methods import hir, ratios, reinforce, table
from hir_jax.methods.method import GROUPS, Method
from hir_jax.model import lora, remat
from hir_jax.run import trackers, workdirs
from hir_jax.training import objective

DTYPES = ("float32", "bfloat16")

CHOICES: dict[str, tuple[str, ...]] = {
    "model.dtype": DTYPES,
    "sample.dtype": (*DTYPES, None),
    "lora.base_dtype": DTYPES,
    "data.too_long": ("error", "drop"),
    "data.unwritable": ("error", "drop"),
    "data.alike": ("error", "drop"),
    "replay.dedup": replay.DEDUP_MODES,
    "sub_output.mode": relabel.MODES,
    "loss.average": (*objective.AVERAGES, None),
    "loss.contrastive": hir.FORMS,
    "loss.contrastive_score": hir.SCORES,
    "hir.flip": relabel.FLIPS,
    "ratio.behaviour": ratios.BEHAVIOURS,
    "reinforce.baseline": reinforce.BASELINES,
    "beam.early_stopping": EARLY_STOPPING,
    "train.optimizer": ("adamw", "adafactor"),
    "train.remat_keeps": (remat.PRODUCTS, remat.INPUTS),
    "evaluate.split": ("train", "dev", "test"),
}
REASONS = dict.fromkeys(
    ("model.dtype", "sample.dtype", "lora.base_dtype"), " (T5 overflows in float16)"
)

AT_LEAST_1 = (
    "data.max_source_tokens",
    "sample.samples",
    "sample.beams",
    "evaluate.beams",
    "sample.max_new_tokens",
    "train.batch_size",
    "train.logits_mib",
    "train.log_every",
    "buckets.source",
    "buckets.target",
    "evaluate.every",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "diagnose.questions",
    "diagnose.samples",
)
AT_LEAST_0 = (
    "seed",
    "iterations",
    "sample.temperature",
    "sample.rows",
    "lora.rank",
    "sample.top_k",
    "sample.guidance",
    "replay.keep_iterations",
    "replay.max_size",
    "loss.contrastive_weight",
    "hir.wrong_weight",
    "loss.kl_weight",
    "ratio.clip_high",
    "w_reinforce.right_weight",
    "ppo.value_weight",
    "ppo.value_clip",
    "ppo.kl_coefficient",
    "ppo.kl_target",
    "topr.low",
    "topr.high",
    "nft.least",
    "report.every",
    "reward.seconds",
    "report.samples",
    "train.epochs",
    "train.accumulation",
    "train.learning_rate",
    "train.warmup_steps",
    "train.weight_decay",
    "train.clip_norm",
)
FROM_0_TO_1 = (
    "sample.top_p",
    "sample.guidance_cutoff",
    "replay.hold_out",
    "sub_output.prob",
    "hir.shown",
    "hir.share_right",
    "loss.smoothing",
    "loss.contrastive_smoothing",
    "ratio.clip_low",
    "ppo.discount",
    "ppo.trace",
    "train.dropout_rate",
)
# Fields that the closing evaluation reads whatever the method, where others are set.
OF_THE_END = {
    "evaluate.samples": ("sample.temperature", "sample.top_k", "sample.top_p"),
    "evaluate.guidance": ("sample.guidance_cutoff",),
}


def method_of(config: ml_collections.ConfigDict) -> Method:
    """The method that `config.algorithm` names, as it is configured.

    Raises:
        UserError: there is none of that name.
    """
    return table.resolve(config.algorithm).make(config)


def setting(config: ml_collections.ConfigDict, name: str) -> Any:
    """A field such as "loss.average"; where it is None, the method's own default."""
    value = operator.attrgetter(name)(config)
    return table.resolve(config.algorithm).defaults[name] if value is None else value


def check_given(config: ml_collections.ConfigDict, given: Collection[str]) -> None:
    """Raises UserError with every field of `given`, "loss.smoothing" and the like, that was set
    though the method, as it is configured, does not read it; or as `check` does."""
    check(config)
    algorithm, reads = config.algorithm, table.resolve(config.algorithm).reads
    reasons = {}
    of_a_pair = ("loss.contrastive_smoothing", "loss.contrastive_score", "hir.flip")
    if config.loss.contrastive == "in_batch":
        reasons |= dict.fromkeys(of_a_pair, "it is for loss.contrastive='pairwise'")
    if not config.loss.contrastive_weight:
        reasons |= dict.fromkeys(
            ("loss.contrastive", *of_a_pair), "it is for loss.contrastive_weight above 0"
        )
    if config.sub_output.mode != "suffix":
        reasons["sub_output.prob"] = "it is for sub_output.mode='suffix'"
    if not config.instruction.facts:
        for name in ("hir.shown", "hir.flip"):
            reasons[name] = "it is for config.instruction.facts"
    if not (config.sample.guidance or config.evaluate.guidance):
        reasons["sample.guidance_cutoff"] = "it is for sample.guidance or evaluate.guidance"
    if "rloo." in reads and not config.rloo.clip:
        for name in ("ratio.", "train.epochs"):
            reasons[name] = "it is for rloo.clip"
    if not config.lora.rank:
        for name in ("lora.alpha", "lora.targets", "lora.base_dtype", "lora.path"):
            reasons[name] = "it is for lora.rank"
    if not config.train.remat:
        reasons["train.remat_keeps"] = "it is for train.remat"
    reasons |= dict.fromkeys(("sample.rerank", "sample.beams"), "it is for --mode=sample")
    if config.evaluate.beams == 1:
        reasons["beam."] = "it is for evaluate.beams and --mode=sample"
    # One method may read all of "ratio.", and another "ratio.behaviour" alone.
    unread = [n for n in given if n.startswith(table.OPTIONAL) and not n.startswith(reads)]
    reasons |= dict.fromkeys(unread, f"algorithm {algorithm!r} does not read it")
    read = {
        field
        for name, fields in OF_THE_END.items()
        if operator.attrgetter(name)(config)
        for field in fields
    }
    faults = [
        f"config.{field}: {reason}"
        for field in sorted(set(given) - read)
        for name, reason in reasons.items()
        if field == name or (name[-1] == "." and field.startswith(name))
    ]
    if faults:
        raise UserError(
            "Fields that are set but not read. Leave them out:\n  " + "\n  ".join(faults)
        )


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError with every field whose value no run could use."""
    faults = []
    try:
        table.resolve(config.algorithm)
    except UserError as e:
        faults.append(str(e).removesuffix("."))

    def expect(name: str, value: Any, fits: bool, expected: str) -> None:
        if not fits:
            faults.append(f"config.{name}: expected {expected}; found {value!r}")

    for name, allowed in CHOICES.items():
        value = operator.attrgetter(name)(config)
        expected = f"one of {', '.join(map(str, allowed))}{REASONS.get(name, '')}"
        expect(name, value, value in allowed, expected)
    for names, low, high, expected in (
        (AT_LEAST_1, 1, float("inf"), "1 or more"),
        (AT_LEAST_0, 0, float("inf"), "0 or more"),
        (FROM_0_TO_1, 0, 1, "0 to 1"),
    ):
        for name in names:
            value = operator.attrgetter(name)(config)
            # None stands for a default that another field gives; NaN fits no bounds.
            expect(name, value, value is None or low <= value <= high, expected)
    told = {fault.partition(":")[0] for fault in faults}
    for name, value in workdirs.flatten(config.to_dict()).items():
        if f"config.{name}" in told:
            continue
        if isinstance(value, float):
            expect(name, value, math.isfinite(value), "a finite number")
        elif type(value) is int:
            expect(name, value, value < 2**32, "a number below 2**32")
    expect("lora.alpha", config.lora.alpha, config.lora.alpha > 0, "above 0")
    try:
        lora.parse_targets(config.lora.targets)
    except UserError as e:
        faults.append(str(e).removesuffix("."))
    asked = config.evaluate
    counts = all(isinstance(count, int) and count >= 1 for count in asked.samples)
    expect("evaluate.samples", asked.samples, counts, "numbers of samples, each 1 or more")
    numbers = all(isinstance(g, int | float) and 0 <= g < math.inf for g in asked.guidance)
    expect("evaluate.guidance", asked.guidance, numbers, "numbers, each 0 or more")
    reward = config.reward
    faults += _faults_of_beams(config)
    faults += trackers.faults(config)
    found = verify.faults(config.verifier, reward.threshold, reward.weights)
    faults += [f"config.{fault}" for fault in found]
    if not faults:  # a method is made of fields that are sound
        faults = _faults_of_method(config)
    if faults:
        raise UserError("Faulty config:\n  " + "\n  ".join(faults))


def _faults_of_method(config: ml_collections.ConfigDict) -> list[str]:
    kind, method = table.resolve(config.algorithm), method_of(config)
    faults = kind.faults(config) + _faults_of_facts(config)
    if GROUPS in method.needs and config.sample.samples < 2:
        faults.append(
            f"config.sample.samples: expected 2 or more with algorithm={config.algorithm}, which "
            f"compares the samples of a question; found {config.sample.samples}"
        )
    return faults


def _faults_of_beams(config: ml_collections.ConfigDict) -> list[str]:
    sample, asked, faults = config.sample, config.evaluate, []
    if 1 < sample.beams < sample.samples:
        faults.append(
            f"config.sample.samples: expected at most sample.beams={sample.beams}, of which a "
            f"search gives the best; found {sample.samples}"
        )
    if sample.beams > 1 and sample.guidance:
        faults.append(
            f"config.sample.guidance: expected 0 with sample.beams={sample.beams}, which searches "
            f"under one instruction; found {sample.guidance}"
        )
    if asked.beams > 1 and (asked.samples or asked.guidance):
        faults.append(
            "config.evaluate.samples and guidance: expected () with "
            f"evaluate.beams={asked.beams}, since they are compared with greedy answers; found "
            f"{asked.samples} and {asked.guidance}"
        )
    return faults


def _faults_of_facts(config: ml_collections.ConfigDict) -> list[str]:
    where, facts = "config.instruction.facts", config.instruction.facts.to_dict()
    if not facts:
        return []
    faults = []
    for name, phrases in facts.items():
        if not name.isidentifier():
            faults.append(f"{where}: expected names of letters, digits and _; found {name!r}")
        texts = isinstance(phrases, tuple | list) and [isinstance(p, str) and p for p in phrases]
        if not (texts and len(texts) == 2 and all(texts) and phrases[0] != phrases[1]):
            faults.append(
                f"{where}.{name}: expected two texts that differ, for where it holds and where it "
                f"does not; found {phrases!r}"
            )
    if "instruction.facts" not in table.resolve(config.algorithm).reads:
        faults.append(
            f"{where}: expected none with algorithm={config.algorithm}, which relabels nothing; "
            f"found {', '.join(facts)}. What it is to ask for may stand in "
            "config.instruction.correct"
        )
    if config.loss.kl_weight:
        faults.append(
            f"config.loss.kl_weight: expected 0 with {where}, since the divergence is of the "
            "instruction that is sampled under, and neither an output's own nor its opposite is "
            f"that one then; found {config.loss.kl_weight}"
        )
    return faults
