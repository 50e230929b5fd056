"""What a config asks for, made ready: devices, model, tokenizer, questions."""

import dataclasses
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from absl import logging
from jax.sharding import Mesh

from hir_jax import batching, data, hf, processes, prompts, sharding, t5, train_step, verify
from hir_jax.errors import UserError
from hir_jax.prompts import Codec, PromptTable
from hir_jax.relabel import Instructions
from hir_jax.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Model:
    """A T5 on a mesh.

    Attributes:
        config: its shape.
        params: float32, laid out by `sharding.RULES`.
        codec: its tokenizer.
        raw_config: the config.json it came with.
        mesh: where it lives.
    """

    config: t5.T5Config
    params: t5.Params
    codec: Codec
    raw_config: dict[str, Any]
    mesh: Mesh


def load_model(config: ml_collections.ConfigDict) -> Model:
    """The model at `config.model.path`, each weight put on its devices as it is read."""
    mesh = sharding.make_mesh(config.mesh)
    folder = hf.find(config.model.path)
    model = hf.read_config(folder, config.model.dtype)
    model = for_training(config, model)

    def place(path: hf.Path, array: np.ndarray) -> jax.Array:
        spec = sharding.leaf_spec(mesh, "/".join(path), array.shape)
        return processes.place(array, jax.sharding.NamedSharding(mesh, spec))

    params = hf.load_params(folder, model, place)
    codec = Codec(hf.load_tokenizer(folder, model), model.eos_token_id)
    return Model(model, params, codec, hf.read_raw_config(folder), mesh)


def for_training(config: ml_collections.ConfigDict, model: t5.T5Config) -> t5.T5Config:
    """The model's shape with what `config.train` says of it."""
    train = config.train
    return dataclasses.replace(model, dropout_rate=train.dropout_rate, remat=train.remat)


def make_sampler(
    config: ml_collections.ConfigDict, model: Model, buckets: tuple[int, ...]
) -> Sampler:
    """A sampler by `config.sample` for prompts of at most the longest bucket."""
    sample = config.sample
    return Sampler(
        config=dataclasses.replace(model.config, dtype=sample.dtype or config.model.dtype),
        mesh=model.mesh,
        buckets=buckets,
        rows=sample.rows,
        max_new_tokens=sample.max_new_tokens,
        eos_id=model.codec.eos_id,
        top_k=sample.top_k,
        top_p=sample.top_p,
    )


@dataclasses.dataclass(frozen=True)
class Training:
    """The optimizer step and the state it works on.

    Attributes:
        step: from `train_step.make_step`.
        optimizer: from `train_step.make_optimizer`.
        mesh: where the state lives.
    """

    step: train_step.Step
    optimizer: optax.GradientTransformation
    mesh: Mesh

    def init_state(self, params: t5.Params) -> train_step.TrainState:
        """The state before the first step; it takes `params` over."""
        return train_step.init_state(params, self.optimizer, self.mesh)

    def abstract_state(self, params: t5.Params) -> Any:
        """Shape, type and place of each leaf of the state."""
        state = jax.eval_shape(lambda p: train_step.new_state(p, self.optimizer), params)
        return abstract(state, self.mesh)


def make_training(config: ml_collections.ConfigDict, model: Model) -> Training:
    """The step that `config.train`, `config.loss` and `config.algorithm` ask for.

    Raises:
        UserError: settings that do not go together.
    """
    train, loss = config.train, config.loss
    parts = batch_multiple(config, model.mesh)
    if train.batch_size % parts:
        raise UserError(
            f"config.train.batch_size: expected a multiple of {parts} (accumulation x data x fsdp),"
            f" found {train.batch_size}."
        )
    same = loss.contrastive_smoothing is None
    settings = train_step.LossSettings(
        smoothing=loss.smoothing,
        contrastive=loss.contrastive,
        # The baselines imitate; they have no instruction to tell from another.
        contrastive_weight=loss.contrastive_weight if config.algorithm == "hir" else 0.0,
        contrastive_smoothing=loss.smoothing if same else loss.contrastive_smoothing,
        entropy_weight=loss.entropy_weight,
        kl_weight=loss.kl_weight,
        logits_at_once=train.logits_mib * 2**20 // 4 * model.mesh.size,
    )
    optimizer = train_step.make_optimizer(
        train.optimizer,
        train.learning_rate,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
    )
    step = train_step.make_step(
        model.config,
        settings,
        optimizer,
        train_step.state_shardings(model.params, optimizer, model.mesh),
        accumulation=train.accumulation,
        use_dropout=train.dropout_rate > 0,
    )
    return Training(step, optimizer, model.mesh)


def batch_multiple(config: ml_collections.ConfigDict, mesh: Mesh) -> int:
    """`train.batch_size` must be a multiple of this: devices share each part of a batch evenly."""
    return (config.train.accumulation or 1) * sharding.batch_multiple(mesh)


def abstract(tree: Any, mesh: Mesh) -> Any:
    """Shape, type and place by `sharding.RULES` of each leaf, for reading a checkpoint."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        tree,
        sharding.tree_shardings(mesh, tree),
    )


@dataclasses.dataclass(frozen=True)
class Questions:
    """The questions of all splits as the model reads them.

    Attributes:
        splits: train, dev and test, without prompts that are too long.
        by_id: every example.
        instructions: p_correct and p_wrong.
        prompts: their tokens under both instructions.
        buckets: lengths to pad to.
        verifier: what judges outputs.
    """

    splits: data.Splits
    by_id: dict[str, data.Example]
    instructions: Instructions
    prompts: PromptTable
    buckets: batching.Buckets
    verifier: verify.Verifier


def load_questions(config: ml_collections.ConfigDict, codec: Codec) -> Questions:
    """The questions of `config.data`, checked and encoded.

    Raises:
        UserError: the data is at fault, or a prompt or (for sft) an answer is too long.
    """
    verifier = verify.resolve(config.verifier)
    splits = data.load(config.data)
    instructions = Instructions(config.instruction.correct, config.instruction.wrong)
    every = [example for split in splits for example in split]
    table = PromptTable.build(codec, every, instructions)
    lengths = {example.id: table.length(example.id) for example in every}
    dropped = prompts.check_lengths(lengths, config.data.max_source_tokens, config.data.too_long)
    splits = data.Splits(*(tuple(e for e in split if e.id not in dropped) for split in splits))
    if config.verifier in verify.BUILT_IN:
        for example in every:
            verifier("", example)  # one that does not suit the questions says so now
    _check_answers(config, codec, splits.train)
    buckets = batching.make_buckets(
        [length for name, length in lengths.items() if name not in dropped],
        config.sample.max_new_tokens,
        config.buckets.source,
        config.buckets.target,
    )
    by_id = {example.id: example for example in every}
    _check_same(splits, table)
    return Questions(splits, by_id, instructions, table, buckets, verifier)


def checkpoint_folder(workdir: str) -> str:
    """The folder of a workdir's checkpoints."""
    return str(pathlib.Path(workdir) / "checkpoints")


def _check_same(splits: data.Splits, table: PromptTable) -> None:
    """Processes that read other questions would train on other batches, each on its own."""
    if processes.many():
        tokens = [[table.source(e.id, True, ()) for e in split] for split in splits]
        processes.check_same("questions", zlib.crc32(repr((splits, tokens)).encode()))


def _check_answers(
    config: ml_collections.ConfigDict, codec: Codec, examples: Sequence[data.Example]
) -> None:
    limit = config.sample.max_new_tokens
    lengths = [len(tokens) + 1 for tokens in codec.encode([e.targets[0] for e in examples])]
    over = [length for length in lengths if length > limit]
    if not over:
        return
    report = (
        f"{len(over)} of {len(lengths)} training answers are longer than "
        f"config.sample.max_new_tokens={limit}, the longest {max(over)} tokens"
    )
    if config.algorithm == "sft":
        raise UserError(f"{report}; raise it, since sft trains on whole answers.")
    logging.warning("%s: the model cannot give them in full.", report)
