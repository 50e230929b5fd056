"""LoRA (Hu et al., 2021, arXiv 2106.09685): matrices stay, what is trained stands beside them.

    y = x W + (α / r) (x A) B        with r columns of A, and r rows of B

Adapters are a tree like the model's parameters, with an A and a B in place of each kernel that has
them and nothing else of the model.
"""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp

from hir_jax.errors import UserError
from hir_jax.model import t5
from hir_jax.model.config import Params, T5Config
from hir_jax.model.layers import ADAPTERS
from hir_jax.model.names import Path, at, name_table, put

GROUPS = {"attention": ("q", "k", "v", "o"), "feed_forward": ("wi", "wi_0", "wi_1", "wo")}
GROUPS["all"] = (*GROUPS["attention"], *GROUPS["feed_forward"])
A, B = ADAPTERS


@dataclasses.dataclass(frozen=True)
class Lora:
    """Which matrices have adapters, and how large.

    Attributes:
        rank: r.
        alpha: α.
        targets: Hugging Face's names of matrices, such as "q", and keys of `GROUPS`.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    @property
    def scale(self) -> float:
        """α / r."""
        return self.alpha / self.rank


def parse_targets(text: str) -> tuple[str, ...]:
    """The names in "q,v", "attention" and the like.

    Raises:
        UserError: there is no such matrix in any T5, and no such group.
    """
    names = tuple(name.strip() for name in text.split(","))
    known = (*GROUPS, *GROUPS["all"])
    if not set(names) <= set(known):
        raise UserError(
            f"config.lora.targets: expected some of {', '.join(known)}, with commas between; found "
            f"{text!r}."
        )
    return names


def modules(lora: Lora, config: T5Config) -> dict[str, Path]:
    """What has adapters: Hugging Face's name of each matrix, and where its kernel's dict is.

    Raises:
        UserError: the model has no matrices of a name.
    """
    kernels = {
        name.removesuffix(".weight"): path[:-1]
        for name, (path, _) in name_table(config).items()
        if path[-1] == "kernel"
    }
    here = {name.split(".")[-1] for name in kernels}
    absent = [name for name in lora.targets if name not in GROUPS and name not in here]
    if absent:
        raise UserError(
            f"config.lora.targets: expected matrices of the model, "
            f"{', '.join(name for name in GROUPS['all'] if name in here)}; found {absent[0]}."
        )
    wanted = {name for target in lora.targets for name in GROUPS.get(target, (target,))}
    return {name: path for name, path in kernels.items() if name.split(".")[-1] in wanted}


def init_params(lora: Lora, config: T5Config, key: jax.Array) -> Params:
    """New adapters, float32: A as PEFT draws it, uniform to ± inputs^(-1/2), and B of zeros.

    So the policy begins as the model is. Each A is keyed by its name.

    Raises:
        UserError: the model has no such matrices, or some of fewer rows or columns than the rank.
    """
    shapes = t5.abstract_params(config)
    adapters: Params = {}
    for name, path in modules(lora, config).items():
        inputs, outputs = at(shapes, path)["kernel"].shape
        if lora.rank > min(inputs, outputs):
            raise UserError(
                f"config.lora.rank: expected at most {min(inputs, outputs)}, the smaller side of "
                f"{name}; found {lora.rank}."
            )
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        bound = inputs**-0.5
        a = jax.random.uniform(own, (inputs, lora.rank), minval=-bound, maxval=bound)
        put(adapters, path, {A: a, B: jnp.zeros((lora.rank, outputs))})
    return adapters


def abstract(lora: Lora, config: T5Config) -> Params:
    """Shape and type of each of `init_params`, with its faults."""
    return jax.eval_shape(lambda: init_params(lora, config, jax.random.key(0)))


def attach(params: Params, adapters: Params, scale: float) -> Params:
    """The parameters with the adapters beside their kernels: what `t5` computes y by.

    What else `adapters` holds, such as a value head, stands in place of the parameters' own.
    """
    attached = {}
    for name in params | adapters:
        leaf = adapters.get(name, params.get(name))
        if isinstance(leaf, dict):
            leaf = attach(params.get(name, {}), adapters.get(name, {}), scale)
        attached[name] = scale * leaf if name == B else leaf
    return attached


def merge(attached: Params, dtype: str) -> Params:
    """Parameters without adapters that compute the same: W + (α / r) A B, in `dtype`.

    The tree is taken apart, so that matrices go one by one that it alone holds.
    """
    if A in attached:
        return {"kernel": _merged(*(attached.pop(name) for name in ("kernel", A, B)), dtype=dtype)}
    return {
        name: merge(leaf, dtype) if isinstance(leaf, dict) else leaf
        for name, leaf in ((name, attached.pop(name)) for name in list(attached))
    }


@functools.partial(jax.jit, static_argnames="dtype")
def _merged(kernel: jax.Array, a: jax.Array, b: jax.Array, dtype: str) -> jax.Array:
    # In float32, also where products are of less by default, as on a TPU.
    product = jnp.matmul(a, b, precision="highest")
    return (kernel.astype(jnp.float32) + product).astype(dtype)
