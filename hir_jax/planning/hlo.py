"""What a compiled program does, read off the text of its HLO.

The compiler's own cost analysis counts the body of a loop once, however often it turns. Here each
loop has its number of turns where the program says it (a `scan`), and a cost of its own where it
does not (decoding turns until every row has ended).
"""

import collections
import dataclasses
import math
import re

from hir_jax.planning import hlo_flops

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)
# What a device is not given to run: names of values, and what holds other instructions.
WITHOUT_A_KERNEL = {"after-all", "bitcast", "call", "conditional", "constant", "get-tuple-element"}
WITHOUT_A_KERNEL |= {"parameter", "partition-id", "tuple", "while"}
START = 'custom_call_target="AsyncCollectiveStart"'
# A TPU's reduce-scatter: a fusion of this name, in which all is reduced and a part is taken.
SCATTER = "all-reduce-scatter"
BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}  # others end in their number of bits

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:body|calls|to_apply|true_computation|false_computation|async_execution_thread)="
    r"%([\w.\-]+)|(?:branch_computations|called_computations)=\{([^}]*)\}"
)
_TURNS = re.compile(r'"?known_trip_count"?:\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind.

    Attributes:
        kind: such as "all-gather".
        count: how many are run.
        bytes: of all of them on one device: of what goes in or of what comes out, whichever is
            more.
    """

    kind: str
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one device does.

    Attributes:
        flops: of matrix products and convolutions, a multiplication and an addition being two.
        cycles: that the compiler expects its kernels to take, without collectives; 0 where it says
            nothing (only TPU compilers do).
        kernels: that it is given to run, copies and calls of libraries among them; of a conditional
            those of all branches.
        collectives: by kind.
    """

    flops: int
    cycles: int
    kernels: int
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop whose number of turns the program does not say.

    Attributes:
        scopes: names of the traced functions that its own body comes from.
        turn: the cost of one turn, without loops of this kind inside it.
    """

    scopes: str
    turn: Cost


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
        cost: of one run, without the loops below.
        loops: those whose number of turns the program does not say.
    """

    cost: Cost
    loops: tuple[Loop, ...]

    def loop(self, scope: str) -> Loop | None:
        """The loop with the most work among those that come from a function of this name."""
        found = [loop for loop in self.loops if scope in loop.scopes]
        return max(found, key=lambda loop: loop.turn.flops, default=None)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes

    def operands(self, inside: "_Computation") -> list[str]:
        names = re.findall(r"%([\w.\-]+)", self.rest.partition(")")[0])
        return [name for name in names if name in inside]


_Computation = dict[str, _Instruction]


def parse(text: str) -> Program:
    """Reads `compiled.as_text()`."""
    computations, entry = _computations(text)
    found: dict[str, Loop] = {}
    waiting = [entry]
    while waiting:
        root = waiting.pop(0)
        if root in found:
            continue
        times: collections.Counter[str] = collections.Counter()
        _visit(root, 1, computations, times, waiting)
        found[root] = Loop(_scopes(times, computations), _cost(times, computations))
    whole = found.pop(entry)
    return Program(whole.turn, tuple(found.values()))


def array_bytes(shape: str) -> int:
    """Bytes of the arrays in a shape such as "f32[8,4]{1,0}" or a tuple of such."""
    return sum(
        _element_bytes(kind) * math.prod(int(n) for n in dims.split(",") if n)
        for kind, dims in _ARRAY.findall(shape)
    )


def _element_bytes(kind: str) -> float:
    if kind in BYTES:
        return BYTES[kind]
    bits = re.match(r"[a-z]+(\d+)", kind)
    return int(bits[1]) / 8 if bits else 0


def _computations(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line.endswith("{") and (head := _COMPUTATION.match(line)):
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current[found[2]] = _Instruction(*found.group(2, 3, 4, 5))
    return computations, entry


def _visit(
    name: str,
    turns: int,
    computations: dict[str, _Computation],
    times: collections.Counter,
    unknown: list[str],
) -> None:
    """Adds how often each computation runs when `name` does; bodies of `unknown` loops wait."""
    times[name] += turns
    for instruction in computations.get(name, {}).values():
        if instruction.opcode == "while":
            body = re.search(r"body=%([\w.\-]+)", instruction.rest)[1]
            count = _turns(instruction, computations)
            if count is None:
                unknown.append(body)
            else:
                _visit(body, turns * count, computations, times, unknown)
            continue
        for one, several in _CALLED.findall(instruction.rest):
            for callee in [one] if one else re.findall(r"%([\w.\-]+)", several):
                _visit(callee, turns, computations, times, unknown)


def _turns(loop: _Instruction, computations: dict[str, _Computation]) -> int | None:
    """As the compiler noted it, or read off a condition `i < n` and a body that adds to i.

    Such an i begins at 0: scans and the compiler's own loops do.
    """
    if known := _TURNS.search(loop.rest):
        return int(known[1])
    condition, body = (
        computations.get(re.search(rf"{name}=%([\w.\-]+)", loop.rest)[1], {})
        for name in ("condition", "body")
    )
    test = list(condition.values())[-1]
    if test.opcode != "compare" or "direction=LT" not in test.rest:
        return None
    counter, bound = (condition.get(name) for name in test.operands(condition))
    index = re.search(r"index=(\d+)", counter.rest)
    limit = _constant(bound)
    if index is None or limit is None:
        return None
    carried = list(body.values())[-1].operands(body)
    added = body.get(carried[int(index[1])]) if len(carried) > int(index[1]) else None
    while added is not None and added.opcode == "copy":
        added = body.get(added.operands(body)[0])
    if added is None or added.opcode != "add":
        return None
    steps = [_constant(body[name]) for name in added.operands(body)]
    return next((-(-limit // step) for step in steps if step), None)


def _constant(instruction: _Instruction | None) -> int | None:
    if instruction is None or instruction.opcode != "constant":
        return None
    return int(instruction.rest.partition(")")[0])


def _cost(times: collections.Counter, computations: dict[str, _Computation]) -> Cost:
    flops = cycles = kernels = 0
    inner = _inside_kernels(computations)
    count: collections.Counter[str] = collections.Counter()
    size: collections.Counter[str] = collections.Counter()
    # A TPU's collective that runs beside kernels is written out in each of its phases.
    starts = {
        name: any(START in instruction.rest for instruction in computations.get(name, {}).values())
        for name in times
    }
    started = {
        _channel(instruction)
        for name in times
        if starts[name]
        for instruction in computations[name].values()
        if instruction.opcode in COLLECTIVES
    }
    for name, turns in times.items():
        inside = computations.get(name, {})
        for instruction in inside.values():
            shapes = [inside[operand].shape for operand in instruction.operands(inside)]
            flops += turns * hlo_flops.flops(
                instruction.opcode, instruction.rest, shapes, instruction.shape
            )
            if estimate := re.search(r'"estimated_cycles":"(\d+)"', instruction.rest):
                cycles += turns * int(estimate[1])
            if name not in inner and _is_run(instruction):
                kernels += turns
            kind = instruction.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                if starts[name] != (_channel(instruction) in started):
                    continue  # a later phase of one that runs beside kernels
                if name.startswith(SCATTER):
                    kind = "reduce-scatter"
                count[kind] += turns
                size[kind] += turns * _moved(instruction, inside)
    collectives = tuple(Collective(kind, count[kind], size[kind]) for kind in sorted(count))
    return Cost(flops, cycles, kernels, collectives)


def _inside_kernels(computations: dict[str, _Computation]) -> set[str]:
    """The computations that are part of one instruction: of a fusion, a reduction, a sort."""
    return {
        callee
        for computation in computations.values()
        for instruction in computation.values()
        if instruction.opcode not in ("call", "async-start")
        for callee in re.findall(r"(?:calls|to_apply)=%([\w.\-]+)", instruction.rest)
    }


def _is_run(instruction: _Instruction) -> bool:
    opcode = instruction.opcode
    return opcode not in WITHOUT_A_KERNEL and not opcode.endswith(("-done", "-update"))


def _channel(instruction: _Instruction) -> tuple[str, str]:
    found = re.search(r"channel_id=(\d+)", instruction.rest)
    return instruction.opcode, found[1] if found else ""


def _moved(instruction: _Instruction, inside: _Computation) -> int:
    goes_in = sum(array_bytes(inside[name].shape) for name in instruction.operands(inside))
    comes_out = array_bytes(instruction.shape)
    if instruction.opcode.endswith("-start"):
        # Its result holds its operands, too, and marks of one number.
        comes_out = array_bytes(instruction.shape.replace("u32[]", "")) - goes_in
    return int(max(goes_in, comes_out))


def _scopes(times: collections.Counter, computations: dict[str, _Computation]) -> str:
    """The distinct op_names of what a loop's body does itself."""
    names = {
        found[1]
        for name in times
        for instruction in computations.get(name, {}).values()
        if (found := re.search(r'op_name="([^"]*)"', instruction.rest))
    }
    return "\n".join(sorted(names))
