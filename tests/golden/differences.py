"""How far we are from what torch makes of recorded models; the table of docs/models.md.

JAX_PLATFORMS=cpu python -m tests.golden.differences
"""

import dataclasses
import pathlib
import tempfile

import jax
import numpy as np

from hir_jax.decoding import sampler
from hir_jax.decoding.prompt import Prompt
from hir_jax.devices import sharding
from hir_jax.model import batching, hf, t5
from hir_jax.model.config import Params, T5Config
from hir_jax.training import scoring
from tests.golden import families


@dataclasses.dataclass(frozen=True)
class Case:
    """A model as we read it, and what torch makes of it."""

    params: Params
    config: T5Config
    expected: dict[str, np.ndarray]

    def logits(self) -> float:
        """How far the logit is that is farthest from torch's."""
        sources, masks, targets = (self.expected[k] for k in ("source", "source_mask", "target"))
        inputs = t5.shift_right(self.config, targets)
        made = _forward(self.params, self.config, sources, masks, inputs)
        return float(np.abs(made - self.expected["logits"]).max())

    def scores(self) -> float:
        """The same of the log-probabilities of whole targets."""
        pairs = list(zip(self._sources(), _rows(self.expected, "target"), strict=True))
        buckets = batching.Buckets(source=(144,), target=(16,))
        made = scoring.score(self.params, self.config, _mesh(), pairs, len(pairs), buckets)
        return float(np.abs(np.array(made) - self.expected["logprob"]).max())

    def greedy_tokens(self) -> float:
        """The share of greedy tokens that are torch's, drawn by the engine of sampling."""
        limit = self.expected["tokens"].shape[1]
        engine = sampler.Sampler(
            config=self.config,
            mesh=_mesh(),
            buckets=(self.expected["source"].shape[1],),
            rows=2,  # fewer than prompts: rows begin at different times
            max_new_tokens=limit,
            eos_id=-1,
        )
        prompts = [Prompt(source, i) for i, source in enumerate(self._sources())]
        params = jax.device_put(self.params, sharding.replicated(engine.mesh))
        outputs = engine(params, prompts, jax.random.key(0), 0.0)
        made, _ = batching.pad([output.tokens for (output,) in outputs], limit)
        return float((made == self.expected["tokens"]).mean())

    def _sources(self) -> list[tuple[int, ...]]:
        return _rows(self.expected, "source")


_forward = jax.jit(t5.forward, static_argnames="config")


def load(folder: pathlib.Path, expected: pathlib.Path, dtype: str = "float32") -> Case:
    """A model's folder and what is recorded of it, to be computed in `dtype`."""
    config = hf.read_config(folder, dtype)
    return Case(hf.load_params(folder, config), config, dict(np.load(expected)))


def load_family(name: str, dtype: str = "float32") -> Case:
    """The same of a model of `families`."""
    with tempfile.TemporaryDirectory() as path:
        folder = families.write(name, pathlib.Path(path))
        return load(folder, families.FOLDER / f"{name}.npz", dtype)


def _mesh() -> jax.sharding.Mesh:
    return sharding.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})


def _rows(expected: dict[str, np.ndarray], name: str) -> list[tuple[int, ...]]:
    """What is no padding."""
    pairs = zip(expected[name], expected[f"{name}_mask"].astype(bool), strict=True)
    return [tuple(row[mask].tolist()) for row, mask in pairs]


if __name__ == "__main__":
    for name in families.FAMILIES:
        case = load_family(name)
        print(f"| {name} | {case.logits():.0e} | {case.scores():.0e} |")
