"""The constructor of a layer, and how an input comes into its range. In: a plan. Out: lines for `seqc.emit.layer`."""

from __future__ import annotations

import math
from dataclasses import replace

from seqc.emit.layer_plan import LayerPlan, Projected
from seqc.emit.module import module_sizes
from seqc.emit.signature import Output
from seqc.emit.text import group, lay
from seqc.ir.dims import unprimed


def read_outputs(plan: LayerPlan) -> list[Output]:
    """The outputs that are read: not what continues a second axis."""
    found = [o for o in plan.sig.outputs if not (plan.second and o.name.endswith("_T"))]
    return [replace(o, dims=tuple(d for d in o.dims if d not in plan.second)) for o in found]


def extents(dims: tuple[str, ...]) -> list[str]:
    return [unprimed(d) for d in dims]


def constructor(plan: LayerPlan) -> str:
    sig = plan.sig
    keys = [f"{name}: int | None = None" if "d_model" in text else f"{name}: int = {text}" for name, text in plan.sizes]
    keys += ["d_out: int | None = None", "conv: int = 0", "norm: bool = True", "gate: bool = True", "out: bool = True"]
    keys += ["dropout: float = 0.0", "device: torch.device | str | None = None", "dtype: torch.dtype | None = None"]
    lines = [
        lay("def __init__(", ["self", "d_model: int", "*", *keys], ") -> None:", 4),
        "        super().__init__()",
        lay("self.sized(", ["d_model", *(f"{name}={name}" for name, _ in plan.sizes)], ")", 8),
        *(f"        {name} = {text}" for name, text in plan.fixed),
        *(f"        {name} = {text} if {name} is None else {name}" for name, text in plan.sizes if "d_model" in text),
    ]
    made = [f"{d.name}={d.name}" for d in module_sizes(sig) if d.name in {n for n, _ in (*plan.sizes, *plan.fixed)}]
    made += [f"{d}=0" for d in plan.second]  # as wide as each call says
    lines += [lay(f"self.recurrence = {sig.class_name}(", [*made, "device=device", "dtype=dtype"], ")", 8)]
    if plan.projected:
        shapes = [f'"{p.name}": {group(extents(p.dims))}' for p in plan.projected]
        lines += [
            lay("self.shapes: dict[str, tuple[int, ...]] = {", shapes, "}", 8),
            "        self.widths = [math.prod(shape) for shape in self.shapes.values()]",
            "        self.project = torch.nn.Linear(d_model, sum(self.widths), device=device, dtype=dtype)",
            "        torch.nn.init.zeros_(self.project.bias)",
            *_biases(plan),
        ]
    content = sum(p.mixes for p in plan.projected)
    if content or plan.direct:
        width = ["d_model"] * len(plan.direct)
        width += ["sum(self.widths)" if content == len(plan.projected) else f"sum(self.widths[:{content}])"] if content else []
        lines += [
            "        self.conv: torch.nn.Parameter | None = None",
            "        if conv > 0:",
            "            # the newest step's weight first; it begins as the identity",
            f"            weight = torch.zeros((conv, {' + '.join(width)}), device=device, dtype=dtype)",
            "            weight[0] = 1.0",
            "            self.conv = torch.nn.Parameter(weight)",
        ]
    else:
        lines += ["        if conv > 0:", f'            raise ValueError("{sig.spec} has no input for a convolution: conv=0")']
    outputs = read_outputs(plan)
    total = " + ".join(" * ".join(extents(o.dims)) or "1" for o in outputs)
    lines.append(f"        width = {total}")
    for o in outputs:
        if o.dims:
            rms = f"torch.nn.RMSNorm({unprimed(o.dims[-1])}, eps=1e-5, device=device, dtype=dtype)"
            lines.append(f"        self.norm_{o.name} = {rms} if norm else None")
    linear = "torch.nn.Linear(d_model, width, bias=False, device=device, dtype=dtype)"
    back = "torch.nn.Linear(width, self.d_out, bias=False, device=device, dtype=dtype)"
    lines += [
        "        self.d_out = (d_out or d_model) if out else width",
        f"        self.gate = {linear} if gate else None",
        f"        self.out = {back} if out else None",
        "        self.dropout = torch.nn.Dropout(dropout)",
    ]
    return "\n".join(lines)


def _biases(plan: LayerPlan) -> list[str]:
    """Lines that set the bias of gates, so that a new layer remembers."""
    lines: list[str] = []
    for i, p in enumerate(plan.projected):
        if p.bias == (0.0, 0.0):
            continue
        low, high = p.bias
        begin = f"sum(self.widths[:{i}])" if i else "0"
        last = extents(p.dims)[-1] if p.dims else ""
        if not lines:
            lines += ["        with torch.no_grad():  # gates begin with memories of 4 to 256 steps"]
        place = f"self.project.bias[{begin}:][: self.widths[{i}]]"
        many = f".view(-1, {last}).copy_(torch.linspace({low:.4g}, {high:.4g}, {last}))"
        lines.append(f"            {place}{many if last else f'.fill_({(low + high) / 2:.4g})'}")
    return lines


def activated(p: Projected, x: str) -> str:
    """x brought into the declared range."""
    low, high = p.low, p.high
    if p.mixes:
        return x
    functional = "torch.nn.functional."
    if math.isinf(low):
        return f"{functional}logsigmoid({x})" + (f" {_signed(high)}" if high else "")
    if math.isinf(high):
        return f"{functional}softplus({x})" + (f" {_signed(low)}" if low else "")
    if low == -high:
        return f"torch.tanh({x})" if high == 1 else f"{high:.17g} * torch.tanh({x})"
    scaled = f"torch.sigmoid({x})" if high - low == 1 else f"{high - low:.17g} * torch.sigmoid({x})"
    return scaled + (f" {_signed(low)}" if low else "")


def _signed(number: float) -> str:
    return f"{'-' if number < 0 else '+'} {abs(number):.17g}"
