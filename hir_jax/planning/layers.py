"""A deep model's program from those of one and of two layers.

What a program does and holds is nearly a constant and so much a layer. What its arguments take is
not estimated: it is the deep model's own.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence

from hir_jax.model.config import T5Config
from hir_jax.planning import hlo
from hir_jax.planning.aot import DECODING, ENCODING, FILLING, Compiled

ESTIMATED = ("temporaries", "outputs", "code", "other arguments")  # kinds of memory

_Weighed = Sequence[tuple[float, Compiled]]


def extrapolated(
    compile_with: Callable[[T5Config], Compiled], shape: T5Config, own: dict[str, float]
) -> Compiled:
    """What compiling for a model of this shape would give, from two or three shallow ones.

    Args:
        compile_with: compiles the program for a model of a shape.
        shape: of the model.
        own: bytes on one device that the deep model's arguments, and what is there besides, take.
    """
    deep = shape.num_layers, shape.num_decoder_layers
    depths = [(1, 1), (2, 2)] if deep[0] == deep[1] else [(1, 1), (2, 1), (1, 2)]
    more = [deep[0] - 1] if deep[0] == deep[1] else [n - 1 for n in deep]
    shapes = [
        dataclasses.replace(shape, num_layers=encoder, num_decoder_layers=decoder)
        for encoder, decoder in depths
    ]
    with concurrent.futures.ThreadPoolExecutor() as pool:  # the compiler is not Python
        made = list(pool.map(compile_with, shapes))
    fault = next((each.fault for each in made if each.fault), "")
    seconds = sum(each.seconds for each in made)
    if fault:
        return dataclasses.replace(made[0], memory=own, fault=fault, seconds=seconds, program=None)
    weighed = [(1 - sum(more), made[0]), *zip(more, made[1:], strict=True)]
    memory = own | {
        kind: max(0.0, sum(weight * each.memory.get(kind, 0.0) for weight, each in weighed))
        for kind in ESTIMATED
        if kind in made[0].memory
    }
    return dataclasses.replace(
        made[0], memory=memory, seconds=seconds, program=_program(weighed), accessed=0.0
    )


def _program(weighed: _Weighed) -> hlo.Program:
    loops = []
    for scope in (DECODING, ENCODING, FILLING):
        found = [(weight, each.program.loop(scope)) for weight, each in weighed]
        if all(loop for _, loop in found):
            loops.append(hlo.Loop(scope, _cost([(weight, loop.turn) for weight, loop in found])))
    return hlo.Program(
        _cost([(weight, each.program.cost) for weight, each in weighed]), tuple(loops)
    )


def _cost(weighed: Sequence[tuple[float, hlo.Cost]]) -> hlo.Cost:
    def total(of: Callable[[hlo.Cost], int]) -> int:
        return max(0, round(sum(weight * of(cost) for weight, cost in weighed)))

    def of_kind(kind: str, name: str) -> Callable[[hlo.Cost], int]:
        return lambda cost: sum(getattr(c, name) for c in cost.collectives if c.kind == kind)

    kinds = sorted({c.kind for _, cost in weighed for c in cost.collectives})
    return hlo.Cost(
        total(lambda cost: cost.flops),
        total(lambda cost: cost.cycles),
        total(lambda cost: cost.kernels),
        tuple(
            hlo.Collective(kind, total(of_kind(kind, "count")), total(of_kind(kind, "bytes")))
            for kind in kinds
        ),
    )
