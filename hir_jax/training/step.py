"""The optimizer step: one fused pass over the prompts of a batch, donated and sharded state.

Letters in names: B examples, S source tokens, T target tokens, A parts of an accumulated batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hir_jax.devices import compiling, sharding
from hir_jax.errors import UserError
from hir_jax.model import lora, remat, t5
from hir_jax.model.config import Params, T5Config
from hir_jax.training import losses
from hir_jax.training.batch import Batch
from hir_jax.training.objective import Objective, a_token, counts_of, total_loss
from hir_jax.training.state import TrainState

ON_A_CPU = 2**20  # activations of one layer in a part of a batch; see `parts_for`

Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def make_step(
    config: T5Config,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    shardings: Any,
    accumulation: int = 1,
    use_dropout: bool = False,
    adapters_scale: float | None = None,
) -> Step:
    """The jitted step (state, batch, key, starting model's params) -> (state, metrics).

    Metrics are scalars on the device: `loss`, each term's mean, `entropy` and, in its mean's place,
    `kl` as `a_token` has them, `grad_norm`. The starting model is read by the divergence from it,
    and where adapters are trained, which stand beside its weights; else it may be None.

    Args:
        config: the model's shape.
        objective: what is descended on.
        optimizer: from `make_optimizer`.
        shardings: of the state, from `state_shardings`.
        accumulation: parts that a batch is computed in, to save memory; the gradient is exactly
            the whole batch's. 0: as `parts_for` says.
        use_dropout: whether `key` is used.
        adapters_scale: α / r, where the state's parameters are adapters; see `lora.attach`.

    Raises:
        UserError: terms whose candidates are the whole batch, with accumulation.
    """
    if accumulation > 1 and objective.crossed:
        raise UserError(
            "config.train.accumulation: the in_batch contrastive loss compares every output with "
            f"the whole batch; expected 1, found {accumulation}. Use contrastive='pairwise'."
        )

    mesh = shardings.step.mesh
    config = dataclasses.replace(config, shards=sharding.batch_multiple(mesh))
    regather = bool(config.remat) and mesh.shape["fsdp"] > 1

    def step(
        state: TrainState, batch: Batch, key: jax.Array, start: Params | None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        # Only in tracing, that is once a compilation.
        shape = "x".join(map(str, batch.sources_BxPxS.shape))
        what = f"training, sources of {shape} and targets of {batch.target_mask_BxT.shape[-1]}"
        compiling.begin(what, "step", config, objective, accumulation)
        gathered = functools.partial(_gathered, config=config, mesh=mesh)

        def loss(
            params: Params, start: Params | None, *args: Any
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            params = gathered(params)
            reference = None if start is None else gathered(start)
            if adapters_scale is not None:
                params = lora.attach(reference, params, adapters_scale)
            return total_loss(
                params,
                *args,
                config=config,
                objective=objective,
                reference=reference,
                counts=counts_of(batch, objective.average),
            )

        if regather:  # what is gathered is forgotten, and all else but what `config.remat` keeps
            loss = jax.checkpoint(loss, policy=remat.policy(config.remat))
        grad = jax.value_and_grad(loss, has_aux=True)

        def part(i: jax.Array, rows: Batch) -> tuple[Params, dict[str, jax.Array]]:
            dropout_key = jax.random.fold_in(key, i) if use_dropout else None
            given = (state.params, start, rows)
            if regather:  # or weights would be gathered once, before the first part
                given = jax.lax.optimization_barrier(given)
            (total, terms), grads = grad(*given, dropout_key)
            return grads, {"loss": total, **terms}

        parts = accumulation or (1 if objective.crossed else parts_for(batch, config.d_model, mesh))
        grads, metrics = _accumulate(part, batch, parts)
        metrics |= a_token(metrics, batch, objective.average, objective.length)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return TrainState(state.step + 1, params, opt_state), metrics

    # The old state is donated: its buffers become the new state's, so parameters and moments are
    # in memory once. The new state keeps its sharding; metrics are scalars on every device.
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def parts_for(batch: Batch, width: int, mesh: Mesh) -> int:
    """How many parts a batch is computed in where nobody says.

    One on an accelerator. On a CPU the fewest whose activations of `width` number `ON_A_CPU` at
    most on each device: there memory is what limits large batches, and small parts are faster, too.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return 1
    rows = batch.targets_BxT.shape[0] // sharding.batch_multiple(mesh)
    prompts, source_length = batch.sources_BxPxS.shape[1:]
    tokens = prompts * rows * (source_length + batch.targets_BxT.shape[-1])
    return losses.fewest_parts(rows, tokens * width / ON_A_CPU)


def _gathered(params: Params, config: T5Config, mesh: Mesh) -> Params:
    """The weights as products read them: in their precision, if it is less, whole along `fsdp`.

    Left to choose, the compiler keeps the weights where they are and moves activations of the whole
    batch instead, sixteen times the traffic for FLAN-T5-small on 8 devices. The gradient of a
    weight goes back to the devices that hold its parts as soon as it is there.
    """
    dtypes = jax.eval_shape(functools.partial(t5.cast_weights, dtype=config.dtype), params)
    # Rows of the embedding are added up in its gradient: in float32, as they are stored.
    if "shared" in params:  # which adapters have not
        dtypes = dtypes | {"shared": params["shared"]}

    def gather(x: jax.Array, like: jax.Array, parts: NamedSharding) -> jax.Array:
        axes = tuple(None if axis == "fsdp" else axis for axis in parts.spec)
        whole = NamedSharding(parts.mesh, P(*axes))

        @jax.custom_vjp
        def move(x: jax.Array) -> jax.Array:
            narrower = min(like.dtype, x.dtype, key=lambda dtype: dtype.itemsize)
            return jax.lax.with_sharding_constraint(x.astype(narrower), whole)

        def back(_: None, grad: jax.Array) -> tuple[jax.Array]:
            return (jax.lax.with_sharding_constraint(grad, parts).astype(x.dtype),)

        move.defvjp(lambda x: (move(x), None), back)
        return move(x)

    return jax.tree.map(gather, params, dtypes, sharding.tree_shardings(mesh, params))


def _accumulate(part: Callable[..., Any], batch: Batch, accumulation: int) -> Any:
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
