"""How far we are from what torch makes of the models of `families`; the table of docs/models.md.

JAX_PLATFORMS=cpu python -m tests.golden.differences
"""

import pathlib
import tempfile

import numpy as np

from hir_jax.devices import sharding
from hir_jax.model import batching, hf, t5
from hir_jax.training import scoring
from tests.golden import families


def differences(name: str) -> tuple[float, float]:
    """The largest of any logit, and of any target's log-probability."""
    expected = np.load(families.FOLDER / f"{name}.npz")
    with tempfile.TemporaryDirectory() as path:
        folder = families.write(name, pathlib.Path(path))
        config = hf.read_config(folder)
        params = hf.load_params(folder, config)
    sources, masks, targets = (expected[key] for key in ("source", "source_mask", "target"))
    logits = t5.forward(params, config, sources, masks, t5.shift_right(config, targets))
    pairs = [
        (tuple(source[mask].tolist()), tuple(target[real].tolist()))
        for source, mask, target, real in zip(
            sources, masks, targets, expected["target_mask"], strict=True
        )
    ]
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    buckets = batching.Buckets(source=(144,), target=(16,))
    scores = scoring.score(params, config, mesh, pairs, len(pairs), buckets)
    pairs = ((logits, expected["logits"]), (scores, expected["logprob"]))
    return tuple(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)


if __name__ == "__main__":
    for name in families.FAMILIES:
        print("| {} | {:.0e} | {:.0e} |".format(name, *differences(name)))
