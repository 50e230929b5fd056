"""The optimizer step of HIR: one fused pass over [p*; p⁻], donated and sharded state.

Letters in names: B examples, S source tokens, T target tokens, A parts of an accumulated batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hir_jax import batching, losses, sharding, t5
from hir_jax.errors import UserError


@flax.struct.dataclass
class TrainState:
    """What training changes."""

    step: jax.Array  # optimizer steps done
    params: t5.Params
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Coefficients and forms of the terms; `hir_jax.losses` defines each.

    Attributes:
        smoothing: ε of the supervised term.
        contrastive: 'pairwise' or 'in_batch'; matters only where `contrastive_weight` is not 0.
        contrastive_weight: α.
        contrastive_smoothing: ε_c of the pairwise form.
        entropy_weight: β.
        kl_weight: κ.
        logits_at_once: float32 logits that the loss holds at a time, of all devices together.
    """

    smoothing: float
    contrastive: str = "pairwise"
    contrastive_weight: float = 0.0
    contrastive_smoothing: float = 0.0
    entropy_weight: float = 0.0
    kl_weight: float = 0.0
    logits_at_once: int = 2**24

    @property
    def uses_negative(self) -> bool:
        """Whether a pass under p⁻ is needed."""
        pairwise = self.contrastive_weight != 0 and self.contrastive == "pairwise"
        return pairwise or self.kl_weight != 0


ON_A_CPU = 2**20  # activations of one layer in a part of a batch; see `parts_for`

Terms = dict[str, losses.Term]
Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def make_optimizer(
    name: str,
    learning_rate: float,
    warmup_steps: int = 0,
    decay_steps: int = 0,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """AdamW or Adafactor behind a clip of the gradient's global norm.

    Args:
        name: 'adamw' or 'adafactor'.
        learning_rate: reached after the warm-up.
        warmup_steps: the rate grows linearly over so many steps.
        decay_steps: then falls along a cosine to zero over so many; 0 keeps it constant.
        weight_decay: decoupled, scaled by the learning rate.
        clip_norm: the largest global norm of a gradient; 0 leaves it as it is.
    """
    after = (
        optax.cosine_decay_schedule(learning_rate, decay_steps)
        if decay_steps
        else optax.constant_schedule(learning_rate)
    )
    # The first step must move, so step 0 has the warm-up's first share, not zero.
    warmup = optax.linear_schedule(
        learning_rate / max(warmup_steps, 1), learning_rate, max(warmup_steps - 1, 1)
    )
    schedule = optax.join_schedules([warmup, after], [warmup_steps])
    if name == "adamw":
        optimizer = optax.adamw(schedule, weight_decay=weight_decay)
    elif name == "adafactor":
        # Its own weight_decay_rate would not be scaled by the learning rate.
        optimizer = optax.chain(
            optax.adafactor(),
            optax.add_decayed_weights(-weight_decay),
            optax.scale_by_schedule(schedule),
        )
    else:
        raise UserError(f"config.train.optimizer: expected 'adamw' or 'adafactor', found {name!r}.")
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, optimizer)


def new_state(params: t5.Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.int32(0), params, optimizer.init(params))


def init_state(
    params: t5.Params, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """`new_state` on a mesh, optimizer state laid out like the parameters; `params` are donated."""
    init = jax.jit(
        lambda p: new_state(p, optimizer),
        out_shardings=state_shardings(params, optimizer, mesh),
        donate_argnums=0,  # the state takes their buffers over
    )
    return init(params)


def state_shardings(params: t5.Params, optimizer: optax.GradientTransformation, mesh: Mesh) -> Any:
    """The sharding of each leaf of `TrainState`."""
    return sharding.tree_shardings(mesh, jax.eval_shape(lambda p: new_state(p, optimizer), params))


def make_step(
    config: t5.T5Config,
    settings: LossSettings,
    optimizer: optax.GradientTransformation,
    shardings: Any,
    accumulation: int = 1,
    use_dropout: bool = False,
) -> Step:
    """The jitted step (state, batch, key, reference_params) -> (state, metrics).

    Metrics are scalars on the device: `loss`, each term's mean, `grad_norm`.

    Args:
        config: the model's shape.
        settings: the loss.
        optimizer: from `make_optimizer`.
        shardings: of the state, from `state_shardings`.
        accumulation: parts that a batch is computed in, to save memory; the gradient is exactly
            the whole batch's. 0: as `parts_for` says.
        use_dropout: whether `key` is used.

    Raises:
        UserError: the in-batch form, whose candidates are the whole batch, with accumulation.
    """
    in_batch = settings.contrastive == "in_batch" and settings.contrastive_weight != 0
    if accumulation > 1 and in_batch:
        raise UserError(
            "config.train.accumulation: the in_batch contrastive loss compares every output with "
            f"the whole batch; expected 1, found {accumulation}. Use contrastive='pairwise'."
        )

    mesh = shardings.step.mesh
    regather = config.remat and mesh.shape["fsdp"] > 1

    def step(
        state: TrainState, batch: batching.Batch, key: jax.Array, reference: t5.Params | None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        gathered = functools.partial(_gathered, config=config, shardings=shardings.params)

        def loss(params: t5.Params, *args: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            return total_loss(
                gathered(params),
                *args,
                config=config,
                settings=settings,
                reference=None if reference is None else gathered(reference),
                weights=_weights(batch),
            )

        if regather:  # what is gathered is forgotten, and all else but the inputs of blocks
            keep = jax.checkpoint_policies.save_only_these_names(t5.BLOCK)
            loss = jax.checkpoint(loss, policy=keep)
        grad = jax.value_and_grad(loss, has_aux=True)

        def part(i: jax.Array, rows: batching.Batch) -> tuple[t5.Params, dict[str, jax.Array]]:
            dropout_key = jax.random.fold_in(key, i) if use_dropout else None
            params = state.params
            if regather:  # or they would be gathered once, before the first part
                params, rows = jax.lax.optimization_barrier((params, rows))
            (total, terms), grads = grad(params, rows, dropout_key)
            return grads, {"loss": total, **terms}

        parts = accumulation or (1 if in_batch else parts_for(batch, config.d_model, mesh))
        grads, metrics = _accumulate(part, batch, parts)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return TrainState(state.step + 1, params, opt_state), metrics

    # The old state is donated: its buffers become the new state's, so parameters and moments are
    # in memory once. The new state keeps its sharding; metrics are scalars on every device.
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def parts_for(batch: batching.Batch, width: int, mesh: Mesh) -> int:
    """How many parts a batch is computed in where nobody says.

    One on an accelerator. On a CPU the fewest whose activations of `width` number `ON_A_CPU` at
    most on each device: there memory is what limits large batches, and small parts are faster, too.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return 1
    rows = batch.targets_BxT.shape[0] // sharding.batch_multiple(mesh)
    tokens = 2 * rows * (batch.sources_Bx2xS.shape[-1] + batch.targets_BxT.shape[-1])
    return losses.fewest_parts(rows, tokens * width / ON_A_CPU)


def _gathered(params: t5.Params, config: t5.T5Config, shardings: Any) -> t5.Params:
    """The weights as products read them: in their precision, whole along `fsdp`.

    Left to choose, the compiler keeps the weights where they are and moves activations of the whole
    batch instead, sixteen times the traffic for FLAN-T5-small on 8 devices. The gradient of a
    weight goes back to the devices that hold its parts as soon as it is there.
    """
    dtypes = jax.eval_shape(functools.partial(t5.cast_weights, dtype=config.dtype), params)
    # Rows of the embedding are added up in its gradient: in float32, as they are stored.
    dtypes = dtypes | {"shared": params["shared"]}

    def gather(x: jax.Array, like: jax.Array, parts: NamedSharding) -> jax.Array:
        axes = tuple(None if axis == "fsdp" else axis for axis in parts.spec)
        whole = NamedSharding(parts.mesh, P(*axes))

        @jax.custom_vjp
        def move(x: jax.Array) -> jax.Array:
            return jax.lax.with_sharding_constraint(x.astype(like.dtype), whole)

        def back(_: None, grad: jax.Array) -> tuple[jax.Array]:
            return (jax.lax.with_sharding_constraint(grad, parts).astype(x.dtype),)

        move.defvjp(lambda x: (move(x), None), back)
        return move(x)

    return jax.tree.map(gather, params, dtypes, shardings)


def total_loss(
    params: t5.Params,
    batch: batching.Batch,
    dropout_key: jax.Array | None,
    *,
    config: t5.T5Config,
    settings: LossSettings,
    weights: dict[str, jax.Array],
    reference: t5.Params | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """L_sup + α L_contrastive + β L_entropy + κ KL of `batch`, a part of a batch of `weights`.

    The parts' losses, gradients and terms add up to the whole batch's.
    """
    terms = loss_terms(params, batch, dropout_key, config, settings, reference)
    coefficients = {
        "supervised": 1.0,
        "contrastive": settings.contrastive_weight,
        "negative_entropy": settings.entropy_weight,
        "kl": settings.kl_weight,
    }
    shares = {name: term.sum / weights[name] for name, term in terms.items()}
    return sum(coefficients[name] * share for name, share in shares.items()), shares


def loss_terms(
    params: t5.Params,
    batch: batching.Batch,
    dropout_key: jax.Array | None,
    config: t5.T5Config,
    settings: LossSettings,
    reference: t5.Params | None = None,
) -> Terms:
    """Each term of the loss as (sum, weight)."""
    kinds = 2 if settings.uses_negative else 1
    size, source_length = batch.sources_Bx2xS.shape[0], batch.sources_Bx2xS.shape[-1]
    # One pass over both prompts of each example, neighbours in the batch axis so that an example
    # stays on its device.
    source = batch.sources_Bx2xS[:, :kinds].reshape(size * kinds, source_length)
    source_mask = batch.source_masks_Bx2xS[:, :kinds].reshape(size * kinds, source_length)
    inputs_BxT = t5.shift_right(config, batch.targets_BxT)
    inputs = jnp.repeat(inputs_BxT, kinds, axis=0)
    encode_key, decode_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    encoded = t5.encode(params, config, source, source_mask, encode_key)
    decoded = t5.decode(params, config, encoded, source_mask, inputs, decode_key)
    head_DxV = t5.head(params, config)
    length = inputs.shape[1]
    pieces = losses.pieces_for(size * kinds, length, config.vocab_size, settings.logits_at_once)
    mask_BxT = batch.target_mask_BxT
    row_mask_B = jnp.any(mask_BxT, axis=1)

    statistics = losses.token_statistics(
        decoded, head_DxV, jnp.repeat(batch.targets_BxT, kinds, axis=0), pieces
    )
    by_kind = lambda x: x.reshape(size, kinds, *x.shape[1:])  # noqa: E731
    positive = losses.TokenStatistics(*(by_kind(x)[:, 0] for x in statistics))
    terms = {
        "supervised": losses.supervised(positive, mask_BxT, settings.smoothing),
        "negative_entropy": losses.negative_entropy(positive, mask_BxT),
    }
    if settings.contrastive_weight and settings.contrastive == "pairwise":
        terms["contrastive"] = losses.pairwise_contrastive(
            losses.mean_logprob(positive.logprob, mask_BxT),
            losses.mean_logprob(by_kind(statistics.logprob)[:, 1], mask_BxT),
            row_mask_B,
            settings.contrastive_smoothing,
        )
    elif settings.contrastive_weight:
        logprob_BxC = cross_logprobs(
            params,
            config,
            by_kind(encoded)[:, 0],
            batch.source_masks_Bx2xS[:, 0],
            batch,
            decode_key,
        )
        terms["contrastive"] = losses.in_batch_contrastive(logprob_BxC, row_mask_B)
    if settings.kl_weight:
        prompt, prompt_mask, policy = (
            _under_sampling_prompt(x, batch.correct_B)
            for x in (batch.sources_Bx2xS, batch.source_masks_Bx2xS, by_kind(decoded))
        )
        reference_encoded = t5.encode(reference, config, prompt, prompt_mask)
        kept = t5.decode(reference, config, reference_encoded, prompt_mask, inputs_BxT)
        terms["kl"] = losses.kl_divergence(
            policy, head_DxV, kept, t5.head(reference, config), mask_BxT, pieces
        )
    return terms


def _under_sampling_prompt(x_Bx2: jax.Array, correct_B: jax.Array) -> jax.Array:
    # Sampling asks for a right answer: p* of a right output, p⁻ of a wrong one.
    return jnp.where(jnp.expand_dims(correct_B, range(1, x_Bx2.ndim - 1)), x_Bx2[:, 0], x_Bx2[:, 1])


def cross_logprobs(
    params: t5.Params,
    config: t5.T5Config,
    encoded_BxSxD: jax.Array,
    source_mask_BxS: jax.Array,
    batch: batching.Batch,
    dropout_key: jax.Array | None,
) -> jax.Array:
    """P_ik, the summed log-probability of output i under prompt k; BxB.

    Prompts are encoded once. Outputs are decoded one at a time against all prompts, and again in
    the backward pass, so that logits of one output are in memory and not of all pairs.
    """
    size = encoded_BxSxD.shape[0]

    @jax.checkpoint
    def scores(target_T: jax.Array, mask_T: jax.Array) -> jax.Array:
        targets = jnp.broadcast_to(target_T, (size, *target_T.shape))
        inputs = t5.shift_right(config, targets)
        decoded = t5.decode(params, config, encoded_BxSxD, source_mask_BxS, inputs, dropout_key)
        logprob_BxT = losses.token_statistics(decoded, t5.head(params, config), targets).logprob
        return jnp.sum(jnp.where(mask_T, logprob_BxT, 0.0), axis=-1)

    return jax.lax.map(lambda row: scores(*row), (batch.targets_BxT, batch.target_mask_BxT))


def _weights(batch: batching.Batch) -> dict[str, jax.Array]:
    tokens = jnp.maximum(jnp.sum(batch.target_mask_BxT, dtype=jnp.float32), 1.0)
    rows = jnp.sum(jnp.any(batch.target_mask_BxT, axis=1), dtype=jnp.float32)
    return {
        "supervised": tokens,
        "negative_entropy": tokens,
        "kl": tokens,
        "contrastive": jnp.maximum(rows, 1.0),
    }


def _accumulate(part: Callable[..., Any], batch: batching.Batch, accumulation: int) -> Any:
    """The sum of `part` over the parts of a batch, one at a time."""
    if accumulation == 1:
        return part(jnp.int32(0), batch)
    # Part a takes rows a, a + A, a + 2A ...: a share of every device's rows, so none moves.
    parts = jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch)
    # Added to zeros, not to the first part, so that the part is compiled once.
    like = jax.eval_shape(part, jnp.int32(0), jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)

    def add(total: Any, item: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, part(*item)), None

    return jax.lax.scan(add, zeros, (jnp.arange(accumulation), parts))[0]
