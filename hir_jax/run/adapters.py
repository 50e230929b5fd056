"""What a run trains: all weights of a model, or adapters beside weights that stay as they are."""

import pathlib
import zlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from hir_jax.decoding.sampler import Sampler
from hir_jax.devices import keys, processes, sharding
from hir_jax.model import lora, peft, value_head
from hir_jax.model.config import Params
from hir_jax.model.lora import Lora
from hir_jax.run import checksums
from hir_jax.run.models import Model

KEY = zlib.crc32(b"adapters")  # folded into the run's key, to draw new ones by


def asked(config: ml_collections.ConfigDict) -> Lora | None:
    """The adapters that `config.lora` asks for; None where all weights are trained."""
    if not config.lora.rank:
        return None
    targets = lora.parse_targets(config.lora.targets)
    return Lora(config.lora.rank, config.lora.alpha, targets)


def trained(config: ml_collections.ConfigDict, model: Model) -> Params:
    """Of an abstract model what is trained: all, or abstract adapters, and the value head if any.

    Raises:
        UserError: adapters that the model cannot have.
    """
    wanted = asked(config)
    if wanted is None:
        return model.params
    own = sharding.abstract(lora.abstract(wanted, model.config), model.mesh)
    _, head = value_head.split(model.params)
    return own | ({} if head is None else {value_head.NAME: head})


def begin(config: ml_collections.ConfigDict, model: Model) -> Params:
    """What is trained of a model, before the first step. Faults are as of `new`."""
    if asked(config) is None:
        return model.params
    own, (_, head) = new(config, model), value_head.split(model.params)
    if head is not None and value_head.NAME not in own:
        # A copy, since the state donates what it takes over.
        own[value_head.NAME] = jax.tree.map(jnp.copy, head)
    return own


def new(config: ml_collections.ConfigDict, model: Model) -> Params:
    """Adapters on their devices: those of `config.lora.path`, with their value head, or new ones.

    Raises:
        UserError: there are others at `config.lora.path`, or processes have others of its name.
    """
    wanted = asked(config)
    if config.lora.path:
        folder = pathlib.Path(config.lora.path).expanduser()
        own = peft.load(folder, wanted, model.config)
        if value_head.NAME in model.params and (folder / value_head.FILE).exists():
            own[value_head.NAME] = value_head.load(folder, model.config)
    else:
        key = jax.random.fold_in(keys.make(config.seed), KEY)
        own = lora.init_params(wanted, model.config, key)
    own = jax.tree.map(np.asarray, own)
    digests = {name: zlib.crc32(each.tobytes()) for name, each in checksums.flatten(own).items()}
    processes.check_same({"adapters": zlib.crc32(repr(digests).encode())})
    return jax.tree.map(processes.place, own, sharding.tree_shardings(model.mesh, own))


def attach(config: ml_collections.ConfigDict, start: Params | None, own: Params) -> Params:
    """The policy: what was trained, or the starting model's weights with it beside them."""
    wanted = asked(config)
    return own if wanted is None else lora.attach(start, own, wanted.scale)


def decoding(
    config: ml_collections.ConfigDict, sampler: Sampler, start: Params | None, own: Params
) -> Params:
    """The policy as it decodes: a decoding copy, which adapters are merged into."""
    if asked(config) is not None:
        own = lora.merge(attach(config, start, own), sampler.config.dtype)
    return sampler.prepare(own)
