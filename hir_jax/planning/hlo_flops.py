"""Floating-point operations of the products in an HLO text.

On TPUs a matrix product is a convolution, on GPUs often a call of a library.
"""

import math
import re
from collections.abc import Sequence

_ARRAY = re.compile(r"[a-z]\w*\[([\d,]*)\]")
_CONTRACTED = re.compile(
    r'lhs_contracting_dims=\{([\d,]*)\}|"lhs_contracting_dimensions":\[([^\]]*)\]'
)


def flops(opcode: str, rest: str, operands: Sequence[str], result: str) -> int:
    """Of a product: a `dot`, a library's (GPU), or a convolution (TPU). Of anything else, 0.

    Args:
        opcode: of the instruction.
        rest: its text from the operands on.
        operands: their shapes, such as "f32[8,4]{1,0}".
        result: its shape, or a tuple that begins with it.
    """
    contracted = _CONTRACTED.search(rest)
    if not contracted and opcode != "convolution":
        return 0
    sizes, out = [_dimensions(shape) for shape in operands], _dimensions(result)
    if not contracted:
        return _convolution(rest, *sizes, out)
    axes = re.findall(r"\d+", contracted[1] or contracted[2])
    return 2 * math.prod(out) * math.prod(sizes[0][int(axis)] for axis in axes)


def _convolution(rest: str, lhs: list[int], rhs: list[int], out: list[int]) -> int:
    """Two for each product of two numbers that are really there, not padding or dilation."""
    lhs_labels, rhs_labels, out_labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", rest).groups()
    spatial = [label for label in out_labels if label.isdigit()]
    window = _window(rest, len(spatial))
    pairs = math.prod(
        _valid(
            lhs[lhs_labels.index(label)],
            rhs[rhs_labels.index(label)],
            out[out_labels.index(label)],
            {name: values[i] for name, values in window.items()},
        )
        for i, label in enumerate(spatial)
    )
    others = out[out_labels.index("b")] * out[out_labels.index("f")]
    return 2 * pairs * others * rhs[rhs_labels.index("i")]


def _window(rest: str, rank: int) -> dict[str, list[int]]:
    found = re.search(r"window=\{([^}]*)\}", rest)
    fields = dict(field.split("=") for field in found[1].split()) if found else {}

    def values(name: str, default: int) -> list[int]:
        return (
            [int(n.partition("_")[0]) for n in fields[name].split("x")]
            if name in fields
            else [default] * rank
        )

    return {
        "stride": values("stride", 1),
        "pad": values("pad", 0),
        "lhs_dilate": values("lhs_dilate", 1),
        "rhs_dilate": values("rhs_dilate", 1),
    }


def _valid(lhs: int, rhs: int, out: int, window: dict[str, int]) -> int:
    """Pairs of an output and a kernel position that meet a number of the input."""
    pairs = 0
    for position in range(rhs):
        # Output o reads the dilated input at o * stride + position * rhs_dilate - pad.
        offset = position * window["rhs_dilate"] - window["pad"]
        at = [o * window["stride"] + offset for o in range(out)]
        last = (lhs - 1) * window["lhs_dilate"]
        pairs += sum(0 <= i <= last and i % window["lhs_dilate"] == 0 for i in at)
    return pairs


def _dimensions(shape: str) -> list[int]:
    """Of an array, or of the first one in a tuple."""
    found = _ARRAY.search(shape)
    return [int(n) for n in found[1].split(",") if n] if found else []
