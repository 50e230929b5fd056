import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hir_jax.planning import hlo
from hir_jax.planning.hlo import Collective


def compiled(f, *args):
    return hlo.parse(jax.jit(f).lower(*args).compile().as_text())


@pytest.mark.parametrize(
    ("equation", "shapes", "flops"),
    [
        ("mk,kn->mn", [(3, 5), (5, 7)], 2 * 3 * 5 * 7),
        ("bmk,bkn->bmn", [(2, 3, 5), (2, 5, 7)], 2 * 2 * 3 * 5 * 7),
        ("mkj,jkn->mn", [(3, 5, 2), (2, 5, 7)], 2 * 3 * 5 * 2 * 7),
    ],
)
def test_flops_of_a_product(equation, shapes, flops):
    program = compiled(functools.partial(jnp.einsum, equation), *(jnp.zeros(s) for s in shapes))
    assert program.cost.flops == flops
    assert program.loops == ()


def test_a_loop_counts_as_often_as_it_turns():
    def loop(x, turns):
        return jax.lax.scan(lambda x, _: (x @ x * 0.1, None), x, None, length=turns)[0]

    def nested(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: loop(x, 5), x)

    x = jnp.zeros((4, 4))
    assert compiled(functools.partial(loop, turns=5), x).cost.flops == 5 * 2 * 4**3
    assert compiled(nested, x).cost.flops == 3 * 5 * 2 * 4**3


def test_a_loop_without_a_known_end_stands_apart():
    def decode(x):
        def doubled(x):
            with jax.named_scope("doubling"):
                return x @ x + x @ x.T

        return jax.lax.while_loop(lambda x: jnp.sum(x) < 100, doubled, x @ x)

    program = compiled(decode, jnp.zeros((4, 4)))
    assert program.cost.flops == 2 * 4**3
    assert [loop.turn.flops for loop in program.loops] == [2 * 2 * 4**3]
    assert program.loop("doubling") is program.loops[0]
    assert program.loop("halving") is None


def test_collectives_of_a_loop():
    mesh = Mesh(np.array(jax.devices()[:4]), ("x",))

    def on_shard(x_8):
        def turn(x_8, _):
            return jax.lax.psum(x_8, "x") * 0.5, jax.lax.all_gather(x_8, "x")

        return jax.lax.scan(turn, x_8, None, length=3)

    specs = {"in_specs": P("x"), "out_specs": (P("x"), P())}
    mapped = jax.shard_map(on_shard, mesh=mesh, **specs, check_vma=False)
    x = jax.ShapeDtypeStruct((32,), jnp.float32, sharding=NamedSharding(mesh, P("x")))
    # Each device sums 8 numbers with the others', and gathers 32; three times.
    assert compiled(mapped, x).cost.collectives == (
        Collective("all-gather", 3, 3 * 32 * 4),
        Collective("all-reduce", 3, 3 * 8 * 4),
    )


# As a TPU's compiler writes: the phases of a collective share its channel; a product is a
# convolution; a loop says only that i grows by 2 while i < 11; a reduce-scatter is a fusion.
TPU = """HloModule jit_step, is_scheduled=true

%started (p: bf16[8,16]) -> (bf16[32,16], u32[]) {
  %p = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[32,16]{1,0} all-gather(%p), channel_id=7, dimensions={0}
  ROOT %custom = (bf16[32,16], u32[]{:S(2)}) custom-call(%all-gather.1), \
custom_call_target="AsyncCollectiveStart"
}

%done (p.1: bf16[8,16]) -> bf16[32,16] {
  %p.1 = bf16[8,16]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[32,16]{1,0} all-gather(%p.1), channel_id=7, dimensions={0}
}

%body (b: (u32[], bf16[4,16])) -> (u32[], bf16[4,16]) {
  %b = (u32[], bf16[4,16]{1,0}) parameter(0)
  %x = bf16[4,16]{1,0} get-tuple-element(%b), index=1
  %s = bf16[4,16]{1,0} fusion(%x), kind=kLoop, backend_config={"estimated_cycles":"50"}
  %collective-permute-start = (bf16[4,16]{1,0}, bf16[4,16]{1,0}, u32[]) \
collective-permute-start(%s), channel_id=9, source_target_pairs={{0,1},{1,0}}
  %i.1 = u32[] get-tuple-element(%b), index=0
  %two = u32[] constant(2)
  %next = u32[] add(%i.1, %two)
  %copy.3 = u32[]{:T(128)} copy(%next)
  ROOT %t = (u32[], bf16[4,16]{1,0}) tuple(%copy.3, %x)
}

%all-reduce-scatter.4.clone.1 (q: bf16[30,64]) -> bf16[8,64] {
  %q = bf16[30,64]{1,0} parameter(0)
  %zero = bf16[] constant(0)
  %pad.1 = bf16[32,64]{1,0} pad(%q, %zero), padding=0_2x0_0
  %all-reduce.5 = bf16[32,64]{1,0} all-reduce(%pad.1), channel_id=12, to_apply=%add
  ROOT %slice = bf16[8,64]{1,0} dynamic-slice(%all-reduce.5), dynamic_slice_sizes={8,64}
}

%condition (c: (u32[], bf16[4,16])) -> pred[] {
  %c = (u32[], bf16[4,16]{1,0}) parameter(0)
  %constant.11 = u32[]{:T(128)} constant(11)
  %i = u32[] get-tuple-element(%c), index=0
  ROOT %compare = pred[] compare(%i, %constant.11), direction=LT
}

ENTRY %main (a: bf16[8,16], w: bf16[16,24]) -> f32[] {
  %a = bf16[8,16]{1,0} parameter(0)
  %w = bf16[16,24]{1,0} parameter(1)
  %product = bf16[8,24]{1,0} convolution(%a, %w), dim_labels=bf_io->bf
  %first = (bf16[32,16], u32[]) fusion(%a), calls=%started, \
backend_config={"estimated_cycles":"1000"}
  %last = bf16[32,16]{1,0} fusion(%a), calls=%done
  %part = bf16[8,64]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.4.clone.1
  %loop = (u32[], bf16[4,16]{1,0}) while(%init), condition=%condition, body=%body
  ROOT %reduce-scatter = f32[2]{0} reduce-scatter(%wide), channel_id=8, to_apply=%add
  %wide = f32[16]{0} broadcast(%a)
}
"""


def test_the_text_of_a_tpu_program():
    program = hlo.parse(TPU)
    assert program.loops == ()
    assert program.cost.flops == 2 * 8 * 16 * 24
    assert program.cost.cycles == 1000 + 6 * 50
    assert program.cost.kernels == 6 + 6 * 4  # nothing of what a fusion calls
    assert program.cost.collectives == (
        Collective("all-gather", 1, 32 * 16 * 2),
        Collective("collective-permute", 6, 6 * 4 * 16 * 2),
        Collective("reduce-scatter", 2, 16 * 4 + 32 * 64 * 2),
    )


@pytest.mark.parametrize(
    ("spatial", "labels", "pairs"),
    [
        # Input of 3, kernel of 2, no padding: both positions fit at both outputs.
        ((3, 2, 2, "size=2"), "b0f_0io->b0f", 4),
        # Padding by one on either side: the outer outputs meet one number each.
        ((3, 2, 4, "size=2 pad=1_1"), "b0f_0io->b0f", 6),
        # A batch as a convolution: each kernel position meets one number, at one output.
        ((4, 4, 4, "size=4 stride=3 pad=3_3 lhs_dilate=4 rhs_reversal=1"), "b0f_0io->b0f", 4),
    ],
)
def test_flops_of_a_convolution_leave_padding_and_holes_out(spatial, labels, pairs):
    size_in, kernel, size_out, window = spatial
    text = f"""ENTRY %main (a: f32[1]) -> f32[1] {{
  %a = f32[5,{size_in},7]{{2,1,0}} parameter(0)
  %w = f32[{kernel},7,11]{{2,1,0}} parameter(1)
  ROOT %c = f32[5,{size_out},11]{{2,1,0}} convolution(%a, %w), window={{{window}}}, dim_labels={labels}
}}
"""  # noqa: E501
    assert hlo.parse(text).cost.flops == 2 * pairs * 5 * 7 * 11


def test_flops_of_a_librarys_product():
    text = """ENTRY %main (a: f32[3,5]) -> f32[3,7] {
  %a = f32[3,5]{1,0} parameter(0)
  %w = f32[5,7]{1,0} parameter(1)
  ROOT %g = (f32[3,7]{1,0}, s8[64]{0}) custom-call(%a, %w), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":\
{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
}
"""
    assert hlo.parse(text).cost.flops == 2 * 3 * 5 * 7


def test_bytes_of_arrays_and_tuples():
    assert hlo.array_bytes("bf16[8,16]{1,0:T(8,128)(2,1)S(1)}") == 8 * 16 * 2
    assert hlo.array_bytes("(f32[3]{0}, pred[5], u32[], s4[6], f8e4m3fn[2])") == 12 + 5 + 4 + 3 + 2
