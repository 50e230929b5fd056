"""A deep model's figures from two shallow ones."""

import dataclasses

import pytest

from hir_jax.devices import hardware, sharding
from hir_jax.planning import aot, hlo, layers
from hir_jax.run import fitting
from tests import tiny

KIND = hardware.Kind("test", 1e9, 1e12, 1e9)


def test_depth_is_extrapolated():
    def shallow(shape):
        encoder, decoder = shape.num_layers, shape.num_decoder_layers
        amount = 100 + 10 * encoder + 3 * decoder
        moved = (hlo.Collective("all-reduce", amount, 2 * amount),)
        cost = hlo.Cost(4 * amount, 5 * amount, amount, moved)
        asked.append((encoder, decoder))
        made = hlo.Program(cost, (hlo.Loop(f"x/{aot.DECODING}/y", cost),))
        return aot.Compiled({"parameters": 1.0, "temporaries": amount}, program=made, seconds=1)

    for depth, depths in (((12, 12), {(1, 1), (2, 2)}), ((8, 3), {(1, 1), (2, 1), (1, 2)})):
        asked = []
        shape = dataclasses.replace(tiny.shape(), num_layers=depth[0], num_decoder_layers=depth[1])
        found = layers.extrapolated(shallow, shape, {"parameters": 77.0})
        amount = 100 + 10 * depth[0] + 3 * depth[1]
        assert set(asked) == depths and found.seconds == len(depths)
        assert found.memory == {"parameters": 77.0, "temporaries": amount}
        turn = found.program.loop(aot.DECODING).turn
        assert turn == found.program.cost
        assert (turn.flops, turn.cycles, turn.kernels) == (4 * amount, 5 * amount, amount)
        assert turn.collectives == (hlo.Collective("all-reduce", amount, 2 * amount),)


def test_a_shallow_model_that_does_not_compile_says_why():
    fault = aot.Compiled({}, "out of memory")
    found = layers.extrapolated(lambda shape: fault, tiny.shape(), {"parameters": 7.0})
    assert found.fault == "out of memory" and found.total == 7 and not found.fits(100)


def test_the_error_of_extrapolation_is_small():
    mesh = {"mesh.data": 1, "mesh.fsdp": 4, "mesh.tensor": 2}
    config = tiny.config(**{"train.batch_size": 8, "train.accumulation": 1} | mesh)
    shape = dataclasses.replace(tiny.shape(), num_layers=4, num_decoder_layers=4)
    made = sharding.make_mesh(config.mesh)

    def compile_with(shape):
        return aot.training(config, aot.abstract_model(config, shape, made), KIND)

    full = compile_with(shape)
    own = fitting.state_memory(config, aot.abstract_model(config, shape, made))
    found = layers.extrapolated(compile_with, shape, own)
    assert found.total == pytest.approx(full.total, rel=0.1)
    assert found.program.cost.flops == full.program.cost.flops
    assert found.program.cost.kernels == pytest.approx(full.program.cost.kernels, rel=0.05)
