"""What turns gradients into updates."""

import optax

from hir_jax.errors import UserError


def make_optimizer(
    name: str,
    learning_rate: float,
    warmup_steps: int = 0,
    decay_steps: int = 0,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """AdamW or Adafactor behind a clip of the gradient's global norm.

    The rate means the same in both: a first step moves a weight by it. So Adafactor (Shazeer and
    Stern, 2018, arXiv 1804.04235) works without its scaling by the size of each parameter, which at
    one rate would move kernels, of small entries, some 20 times slower than AdamW does, and
    embeddings, of large ones, some 10 times faster.

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
            optax.adafactor(multiply_by_parameter_scale=False),
            optax.add_decayed_weights(-weight_decay),
            optax.scale_by_schedule(schedule),
        )
    else:
        raise UserError(f"config.train.optimizer: expected 'adamw' or 'adafactor', found {name!r}.")
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, optimizer)
