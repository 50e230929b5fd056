"""What a visit found, as one page that a person reads in a minute."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Found = Mapping[str, Any]


def page(visit: Found) -> str:
    """Markdown of `visit.json`'s content."""
    found = {name: stage["found"] for name, stage in visit["stages"].items()}
    parts = [head(visit, found), _stages(visit)]
    parts += [part(found) for part in (_parity, _sampling, _training, _memory, _kernels, _longest)]
    parts += [_determinism(found), _resumption(found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def head(visit: Found, found: Found) -> str:
    """What the device is and does."""
    device = found.get("device", {})
    lines = [f"# A visit to {device.get('machine', 'an unknown device')}"]
    if rates := device.get("rates"):
        sheet = device.get("sheet", {})
        lines.append(
            f"{device['dtype']} products {rates['product'] / 1e12:,.2f} TFLOP/s"
            f"{_of(sheet.get('tflops'))}, reads {rates['read'] / 1e9:,.0f} GB/s"
            f"{_of(sheet.get('gb_a_second'))}, both measured on all devices at once; memory "
            f"{device.get('memory_gb', 0):,.1f} GB a device; {device['cores']} cores."
        )
    if device:
        packages = ", ".join(f"{name} {version}" for name, version in device["packages"].items())
        lines.append(f"{packages}; {device['runtime']} {device['driver']}".strip())
    whole = sum(not stage["fault"] for stage in visit["stages"].values())
    count = len(visit["stages"])
    lines.append(f"{whole} of {count} stages whole, in {visit['seconds']:,.0f} s.")
    return "\n\n".join(lines)


def _of(sheet: float | None) -> str:
    return f" (data sheet: {sheet:,.0f} a device)" if sheet else ""


def _stages(visit: Found) -> str:
    faults = [
        (name, f"{stage['seconds']:,.0f}", stage["fault"])
        for name, stage in visit["stages"].items()
        if stage["fault"]
    ]
    return _section("Not whole", ("stage", "s", "why"), faults)


def _parity(found: Found) -> str:
    rows = [
        (name, row["precision"], f"{row['logits']:.0e}", f"{row['scores']:.0e}",
         f"{row['greedy_tokens']:.1%}", "yes" if row["within"] else "NO")
        for stage in ("parity", "parity of families")
        for name, each in found.get(stage, {}).items()
        for row in each
    ]  # fmt: skip
    headers = ("model", "computed in", "logits apart", "scores apart", "greedy tokens equal")
    title = "Parity with torch's transformers, from recorded outputs"
    return _section(title, (*headers, "within bounds"), rows)


def _sampling(found: Found) -> str:
    rows = []
    for size, stage in _of_sizes(found, "sampling"):
        for name in ("equal", "ending"):
            if row := stage.get(name):
                rows.append(
                    (
                        size,
                        f"{'all of' if name == 'equal' else 'on average'} {row['mean_length']:.1f}",
                        f"{row['rows']:,}",
                        row["source"],
                        f"{row['tokens_per_second']:,.0f}",
                        _percent(row.get("share_of_roofline")),
                        _percent(row["occupancy"]),
                    )
                )
    headers = ("model", "tokens an output", "rows", "source", "tokens/s", "of the roofline")
    return _section("Sampling", (*headers, "rows at work"), rows)


def _training(found: Found) -> str:
    rows = []
    for size, stage in _of_sizes(found, "training"):
        if row := stage.get("step"):
            planned = found.get("plan", {}).get(f"training {size}", {})
            rows.append(
                (
                    size,
                    f"{row['examples']} of {row['source']} + {row['target']}",
                    planned.get("accumulation") or "",
                    f"{row['seconds']:.3f}",
                    f"{row['examples_per_second']:,.1f}",
                    f"{row['tflops']:,.2f}",
                    _percent(row.get("model_flop_utilisation")),
                    _percent(row.get("share_of_product_limit")),
                )
            )
    headers = ("model", "examples", "parts", "s a step", "examples/s", "TFLOP/s", "MFU")
    return _section("Training", (*headers, "of the products' limit"), rows)


def _memory(found: Found) -> str:
    def row(work: str, size: str, stage: Found, planned: Found) -> tuple | None:
        peak, foretold = stage.get("peak_memory_gb"), planned.get("predicted_gb")
        if not (peak or foretold):
            return None
        fits = {True: "yes", False: "NO"}.get(planned.get("fits"), "")
        compiled = planned.get("seconds")
        return work, size, _gb(foretold), _gb(peak), fits, f"{compiled:.0f}" if compiled else ""

    headers = ("program", "model", "foretold, GB", "peak, GB", "fits", "compiled in s")
    title = "Memory: the plan, and the device (of a CPU, the process)"
    return _section(title, headers, _programs(found, row))


def _kernels(found: Found) -> str:
    def row(work: str, size: str, stage: Found, planned: Found) -> tuple | None:
        seen, foretold = stage.get("kernels"), planned.get("kernels_a_step")
        if not (seen or foretold):
            return None
        seen = seen or {}
        ms = seen.get("ms_a_step")
        counts = (foretold, seen.get("kernels_a_step"))
        return work, size, *map(_count, counts), f"{ms:,.2f}" if ms else ""

    headers = ("step of", "model", "kernels foretold", "kernels seen", "their ms")
    return _section("Kernels a step", headers, _programs(found, row))


def _longest(found: Found) -> str:
    parts = []
    for work in ("sampling", "training"):
        with_kernels = [s for s in _of_sizes(found, work) if "kernels" in s[1]]
        if with_kernels:
            size, stage = with_kernels[-1]  # of the largest model
            rows = [
                (f"`{each['operation']}`", f"`{each['kernel'][:60]}`", _count(each["count"]),
                 f"{each['ms']:,.2f}", _percent(each["share"]))
                for each in stage["kernels"]["longest"]
            ]  # fmt: skip
            headers = ("operation", "kernel", "times", "ms", "of all")
            parts.append(_section(f"The longest kernels of {work}, {size}", headers, rows))
    return "\n\n".join(parts)


def _determinism(found: Found) -> str:
    rows = [
        (work, how, {True: "yes", False: "NO", None: "nothing to compare with"}[each["equal"]])
        for stage, how in (
            ("determinism", "the same compiled program"),
            ("determinism, compiled anew", "compiled anew"),
        )
        for work in ("sampling", "training")
        if (each := found.get(stage, {}).get(work))
    ]
    return _section("A second process", ("does", "with", "bit for bit the same"), rows)


def _resumption(found: Found) -> str:
    run = found.get("resumption", {})
    if "different" not in run:
        return ""
    differing = ", ".join(run["different"])
    came = f"differs in {differing}" if differing else "is the same byte for byte"
    return (
        f"## A run killed in {run['killed_in']} and resumed\n\nWhat it left {came} "
        f"(undisturbed, it took {run['undisturbed_seconds']:.0f} s)."
    )


def _of_sizes(found: Found, work: str) -> list[tuple[str, Found]]:
    """(Size, what was found) of the stages of one kind."""
    return [
        (name.partition(" ")[2], stage)
        for name, stage in found.items()
        if name.startswith(f"{work} ")
    ]


def _programs(found: Found, row: Callable[..., tuple | None]) -> list[tuple]:
    """A row of each program that has something to say."""
    plan = found.get("plan", {})
    rows = [
        row(work, size, stage, plan.get(f"{work} {size}", {}))
        for work in ("sampling", "training")
        for size, stage in _of_sizes(found, work)
    ]
    return [each for each in rows if each]


def _section(title: str, headers: Sequence[str], rows: Sequence[tuple]) -> str:
    if not rows:
        return ""
    lines = [headers, ["---"] * len(headers), *rows]
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return f"## {title}\n\n{table}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _gb(size: float | None) -> str:
    return "" if size is None else f"{size:,.2f}"


def _count(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
