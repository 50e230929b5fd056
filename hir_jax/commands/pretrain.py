"""Makes a small T5 from generated questions: it knows the prompt format, is often wrong, and pays
no heed to the instruction. A stand-in, at laptop size, for an instruction-tuned checkpoint.

Only questions of the training side of `generators.split_of` are used, so that the test questions of
every generated task are unseen, whatever their seed.
"""

import itertools
import pathlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from hir_jax.commands import mistakes
from hir_jax.data import generators, options
from hir_jax.data.example import Example, format_prompt
from hir_jax.devices import keys, sharding
from hir_jax.errors import UserError
from hir_jax.methods.sft import Sft
from hir_jax.model import batching, hf, t5
from hir_jax.model.codec import Codec
from hir_jax.run import finite, terminal
from hir_jax.training.batch import Batch, TrainingExample, make_batch, plan_batches
from hir_jax.training.optimizer import make_optimizer
from hir_jax.training.state import init_state, state_shardings
from hir_jax.training.step import make_step

SPECIAL = ("<pad>", "</s>", "<unk>")  # ids 0, 1, 2, as in every T5

# Batches drawn at once, then grouped by length.
BATCHES_A_DRAW = 32
TELL = 100  # steps between two lines that tell the loss


def pretrain(config: ml_collections.ConfigDict, output: str) -> None:
    """Trains tokenizer and model from scratch by `config.pretrain`; writes a Hugging Face folder.

    Raises:
        UserError: unknown tasks or difficulties, no more steps than those of the warm-up, or the
            folder is not empty.
    """
    folder = pathlib.Path(output)
    hf.check_new(folder)
    settings = config.pretrain
    if not 0 <= settings.warmup_steps < settings.steps:
        raise UserError(
            f"config.pretrain.warmup_steps: expected 0 or more, and fewer than the "
            f"{settings.steps} of config.pretrain.steps; found {settings.warmup_steps}."
        )
    pools = question_pools(settings)
    codec = Codec(train_tokenizer(pools, config), eos_id=SPECIAL.index("</s>"))
    raw_config = _raw_config(settings, len(codec.tokenizer))
    model = hf.parse_config(raw_config, folder, "float32", has_head=True)
    mesh = sharding.make_mesh(config.mesh)
    optimizer = make_optimizer(
        "adamw",
        settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        decay_steps=settings.steps - settings.warmup_steps,
        clip_norm=1.0,
    )
    params = t5.init_params(model, keys.make(settings.seed))
    params = jax.device_put(params, sharding.tree_shardings(mesh, params))
    shardings = state_shardings(params, optimizer, mesh)
    step = make_step(model, Sft().objective(), optimizer, shardings)
    state = init_state(params, optimizer, mesh)
    batches = training_batches(pools, codec, config)
    key = keys.make(0)  # unread: no dropout
    with terminal.progress(settings.steps, "pretraining", "step") as bar:
        for i, batch in zip(range(settings.steps), batches, strict=False):
            batch = jax.device_put(batch, sharding.batch_sharding(mesh))
            state, values = step(state, batch, key, None)
            bar.update(1)
            if (i + 1) % TELL == 0:
                values = jax.device_get(values)
                _check_finite(finite.not_finite(values), i + 1)
                logging.info("step %d: loss %.3f", i + 1, values["loss"])
    _check_finite(None if finite.is_finite(state) else "parameters that are not", settings.steps)
    hf.export(folder, state.params, model, codec.tokenizer, raw_config)


def _check_finite(fault: str | None, step: int) -> None:
    if fault is not None:
        raise UserError(
            f"Expected finite numbers in pretraining; step {step} gave {fault}. Try a smaller "
            "config.pretrain.learning_rate, or more config.pretrain.warmup_steps."
        )


Pools = dict[str, list[list[Example]]]  # task -> a pool for each of its difficulties


def question_pools(settings: ml_collections.ConfigDict) -> Pools:
    """Training questions, options shuffled; fewer than `size` where there are no more."""

    def pool(task: str, difficulty: int) -> list[Example]:
        stream = generators.stream(task, difficulty, settings.seed)
        training = (e for e in stream if generators.split_of(e) == "train")
        chosen = itertools.islice(training, settings.size)
        return [options.shuffle_options(example, settings.seed) for example in chosen]

    for task, difficulties in settings.tasks.items():
        if not difficulties:
            raise UserError(f"config.pretrain.tasks.{task}: expected difficulties, found none.")
    return {
        task: [pool(task, difficulty) for difficulty in difficulties]
        for task, difficulties in settings.tasks.items()
    }


def train_tokenizer(pools: Pools, config: ml_collections.ConfigDict) -> Any:
    """A byte-pair tokenizer of the generated text, with T5's conventions.

    White space of any kind counts as one space, as in T5's own vocabulary; every printable ASCII
    character has a piece, so nothing that a user types in ASCII is unknown.
    """
    import tokenizers
    import transformers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(True)]
    )
    tokenizer.decoder = decoders.Metaspace()
    instructions = _instructions(config)
    texts = [
        format_prompt(instructions[i % len(instructions)], example)
        + " "
        + " ".join(example.targets)
        for pool in itertools.chain.from_iterable(pools.values())
        for i, example in enumerate(pool[: config.pretrain.tokenizer_questions])
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=config.pretrain.vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=[chr(c) for c in range(33, 127)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", SPECIAL.index("</s>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )


def training_batches(
    pools: Pools, codec: Codec, config: ml_collections.ConfigDict
) -> Iterator[Batch]:
    """Endless batches: each difficulty of each task as often as the others.

    From `right_steps` on, some answers are mistakes, and more of them where the instruction asks
    for wrong ones.
    """
    settings = config.pretrain
    instructions = _instructions(config)
    rng = random.Random(settings.seed)
    order = np.random.default_rng(settings.seed)
    known = [
        list(zip(pool, mistakes.rates(pool, *settings.mistakes), strict=True))
        for pool in itertools.chain.from_iterable(pools.values())
    ]
    buckets: batching.Buckets | None = None
    for draw in itertools.count():
        errs = draw * BATCHES_A_DRAW >= settings.right_steps
        prompts, targets = [], []
        for _ in range(BATCHES_A_DRAW * settings.batch_size):
            example, rate = rng.choice(rng.choice(known))
            asked = rng.randrange(len(instructions))
            rate = mistakes.under(rate, settings.heed * (asked - 0.5))
            wrong = rng.random() < rate and errs
            prompts.append(format_prompt(instructions[asked], example))
            targets.append(rng.choice(mistakes.mistakes(example)) if wrong else example.targets[0])
        sources = [(*ids, codec.eos_id) for ids in codec.encode(prompts)]
        outputs = [(*ids, codec.eos_id) for ids in codec.encode(targets)]
        lengths = [(len(s), len(t)) for s, t in zip(sources, outputs, strict=True)]
        if buckets is None:
            # Twice the longest target: later draws may be longer than the first.
            longest = 2 * max(target for _, target in lengths)
            buckets = batching.make_buckets([source for source, _ in lengths], longest, 3, 3)
        for indices, shape in plan_batches(lengths, settings.batch_size, buckets, order):
            rows = [TrainingExample(sources[i], (), outputs[i], correct=True) for i in indices]
            yield make_batch(rows, settings.batch_size, shape)


def _instructions(config: ml_collections.ConfigDict) -> Sequence[str]:
    return (config.instruction.correct, config.instruction.wrong)


def _raw_config(settings: ml_collections.ConfigDict, vocab_size: int) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "vocab_size": batching.round_up(vocab_size, 64),
        **settings.model.to_dict(),
        "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "dropout_rate": 0.0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "tie_word_embeddings": False,
        "is_encoder_decoder": True,
    }
