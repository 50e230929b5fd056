"""How far a program's figures, extrapolated from one and two layers, are from the whole program's.

    JAX_PLATFORMS=cpu python -m benchmarks.depth --config=configs/flan_t5.py:base \
        --topology=v5e:2x2 --config.mesh.data=1 --config.mesh.fsdp=4 --config.train.accumulation=1

A line a program: GB of temporaries, kernels and the compiler's estimate (where it gives one) of a
training step, and of a decode step; extrapolated, compiled in full, and the first relative to the
second. `--mode=plan` searches by the first. What else a device holds is exact.
"""

import functools
from collections.abc import Sequence

import ml_collections
from absl import app, flags
from jax.sharding import Mesh
from ml_collections import config_flags

from hir_jax.decoding.trie import Trie
from hir_jax.devices import hardware, sharding
from hir_jax.devices.hardware import GB, Kind
from hir_jax.model.config import T5Config
from hir_jax.planning import aot, layers, plan, table
from hir_jax.run import configs

CONFIG = config_flags.DEFINE_config_file("config", "configs/flan_t5.py:small", "What is planned.")
TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x2", "Devices, as of --mode=plan.")
PROGRAMS = flags.DEFINE_list("programs", list(plan.PROGRAMS), "What to compile.")


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    config = CONFIG.value
    shape = plan.model_shape(config)
    devices, kind = hardware.topology(TOPOLOGY.value)
    mesh = sharding.make_mesh(config.mesh, devices)
    model = aot.abstract_model(config, shape, mesh)
    rows = aot.engine(config, model, kind).shape.rows
    config = configs.changed(config, {"sample.rows": rows})  # of the whole model, at any depth
    trie, lines = aot.trie_of(config), []
    for program in PROGRAMS.value:
        compile_with = functools.partial(compiled, program, config, mesh, kind, trie)
        shallow = layers.extrapolated(compile_with, shape, {})
        lines += comparison(program, shallow, compile_with(shape), kind)
    print(f"{config.model.path}, {TOPOLOGY.value}, {table.sizes_name(mesh.shape)}")
    print(table.of(lines, ["figure", "extrapolated", "compiled", "error"]))


def compiled(
    program: str,
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    kind: Kind,
    trie: Trie | None,
    shape: T5Config,
) -> aot.Compiled:
    """One of `plan.PROGRAMS` for a model of this shape."""
    return plan.compiled(config, shape, mesh, kind, [program], trie)[program]


def comparison(
    program: str, shallow: aot.Compiled, full: aot.Compiled, kind: Kind
) -> list[list[str]]:
    """Rows of the table: a figure, extrapolated, compiled in full, and how far the first is off."""
    found = []
    for made in (shallow, full):
        cost, what = made.program.cost, "a training step"
        if program == "sampling":
            cost, what = made.program.loop(aot.DECODING).turn, "a decode step"
        figures = {f"{program}: temporaries, GB": made.memory["temporaries"] / GB}
        figures |= {f"{what}: kernels": cost.kernels, f"{what}: GFLOP": cost.flops / 1e9}
        if kind.clock:
            figures[f"{what}: compiler's estimate, ms"] = cost.cycles / kind.clock * 1e3
        found.append(figures)
    return [
        [name, f"{value:,.2f}", f"{found[1][name]:,.2f}", f"{value / found[1][name] - 1:+.1%}"]
        for name, value in found[0].items()
    ]


if __name__ == "__main__":
    app.run(main)
