"""A plan -> the text of a layer around a recurrence: a cache, a layer, a stack of layers.

In: a `LayerPlan`. Out: the text, as one file with the recurrence's own (`layer_file`), or beside it (`layer_beside`). What does
not depend on the spec stands in `layer_parts`; what is printed here are the lines that follow from the declarations.
"""

from __future__ import annotations

import math
from dataclasses import replace

from seqc.diagnostics import Diagnostic, Unsupported
from seqc.emit.beside import chunks
from seqc.emit.layer_parts import CACHE, CONVOLUTION, ROWS, SEQUENCES, STACK
from seqc.emit.layer_plan import LayerPlan, Projected
from seqc.emit.layer_weights import loading_text, stack_text
from seqc.emit.module import module_sizes
from seqc.emit.signature import Output
from seqc.emit.sizes import extent
from seqc.emit.text import docstring, group, join, lay, section, unpack

_WORDS = frozenset((
    "d_model", "d_out", "conv", "norm", "gate", "out", "dropout", "bias", "layers", "residual", "width", "x", "cache", "mask",
    "states", "result", "content", "parts", "size", "before", "options", "y", "rows", "inner",
))


def layer_file(plan: LayerPlan, recurrence: str) -> str:
    """One file: the layer first, then the recurrence. recurrence: its emitted file."""
    start = recurrence.index("\n# ---------- ") + 1
    head, kernels = recurrence[:start], recurrence[start:]
    imports = [line for line in head.splitlines() if line.startswith(("import ", "from ")) and "__future__" not in line]
    text = layer_text(plan)
    both = {name for chunk in chunks(text) for name in chunk.names} & {n for chunk in chunks(kernels) for n in chunk.names}
    if both:
        message = f"the layer and the recurrence of `{plan.sig.spec}` would both define `{min(both)}`"
        raise Unsupported(Diagnostic("layer-name", message, help="give the spec another name", kind="unsupported"))
    said = head[head.index('"""') + 3 : head.rindex('"""')].rstrip("\n").splitlines()
    doc = docstring([*_about(plan), "", "The recurrence:", "", *said])
    names = _names(plan) + [plan.sig.class_name, f"{plan.sig.class_name}Result", plan.sig.spec, f"{plan.sig.spec}_step"]
    notes = ["# What is called has types; kernels and operators have none that a checker could follow."]
    notes += ["# mypy: ignore-errors"]
    return join(
        "\n".join([_header(plan), doc, "", *_imports(plan, imports), "", *notes, "", f"__all__ = {_listed(names)}"]),
        section("the layer", text),
        kernels,
    )


def layer_beside(plan: LayerPlan, module: str) -> str:
    """A file of the layer alone, which imports the recurrence from a module of this name."""
    found = f"from {module} import {plan.sig.class_name}"
    return join(
        "\n".join([
            _header(plan), docstring(_about(plan)), "", *_imports(plan, []), "", found, "",
            f"__all__ = {_listed(_names(plan))}",
        ]),
        layer_text(plan),
    )


def layer_text(plan: LayerPlan) -> str:
    """The definitions."""
    _check(plan)
    taken = {"name": plan.sig.class_name, "spec": plan.sig.spec} | _given(plan)
    stack = STACK.format(**taken).strip("\n")
    if plan.weights is not None:
        stack += "\n\n" + stack_text(plan, plan.weights)
    return join(CACHE.format(**taken), ROWS, SEQUENCES.format(**taken), CONVOLUTION, _layer(plan), stack).rstrip()


def _header(plan: LayerPlan) -> str:
    return f"# A layer around the spec `{plan.sig.spec}`, made by seqc. It is yours to edit."


def _about(plan: LayerPlan) -> list[str]:
    name = plan.sig.class_name
    return [
        f"{name}Layer and {name}Stack: {plan.sig.spec} as a layer of a network, and layers one above the other.", "",
        f"    layer = {name}Layer(d_model)                       # {name}Stack(d_model, layers): pre-norm, with residuals",
        "    y = layer(x)                                        # x: [B, T, d_model]; a PackedSequence; a jagged tensor",
        "    y = layer(x, mask=mask)                             # mask: [B, T], True where a step counts",
        "    cache = layer.cache(); y = layer(x, cache=cache)    # a prompt; the cache then holds what goes on",
        "    y1 = layer.step(x1, cache)                          # x1: [B, d_model], one step more",
    ]


def _names(plan: LayerPlan) -> list[str]:
    return [f"{plan.sig.class_name}{what}" for what in ("Cache", "Layer", "Stack")]


def _listed(names: list[str]) -> str:
    return lay("[", [f'"{name}"' for name in names], "]")


def _imports(plan: LayerPlan, others: list[str]) -> list[str]:
    own = ["import math", "from collections.abc import Callable", "from typing import TYPE_CHECKING, Any, overload",
           "import torch", "from torch import Tensor", "from torch.nn.utils.rnn import PackedSequence"]
    before = "from typing import "
    typing = {name.strip() for line in (*own, *others) if line.startswith(before) for name in line[len(before):].split(",")}
    lines = {line for line in (*own, *others) if not line.startswith("from typing")}
    standard = sorted((line for line in lines if "torch" not in line), key=lambda line: (line.startswith("from"), line))
    standard.append(f"from typing import {', '.join(sorted(typing, key=lambda word: (word != word.upper(), word)))}")
    torch = sorted((line for line in lines if "torch" in line), key=lambda line: (line.startswith("from"), line))
    return ["from __future__ import annotations", "", *standard, "", *torch]


def _check(plan: LayerPlan) -> None:
    """Raise Unsupported where a dim would be called as an argument of the layer is."""
    for name, _ in (*plan.sizes, *plan.fixed):
        if name in _WORDS:
            message = f"the dim `{name}` would be called as an argument of its layer is"
            raise Unsupported(Diagnostic("layer-name", message, help="rename the dim in the spec", kind="unsupported"))


def _given(plan: LayerPlan) -> dict[str, str]:
    """The words for what the caller of the layer passes: in heads, in calls, and as it lies in rows."""
    timed = {x.name for x in plan.sig.inputs}
    names = [_local(name) for name in plan.given]
    return {
        "head": "".join(f"{name}: Tensor, " for name in names),
        "heads": "".join(f"{name}: Any, " for name in names),
        "pass": "".join(f", {name}" for name in names),
        "take": "".join(f", rows.take({n})" if name in timed else f", {n}" for name, n in zip(plan.given, names, strict=True)),
    }


def _local(name: str) -> str:
    """What an argument of the recurrence is called inside of the layer."""
    return f"{name}_" if name in _WORDS else name


# ---- the layer itself ----


def _outputs(plan: LayerPlan) -> list[Output]:
    """The outputs that are read: not what continues a second axis."""
    found = [o for o in plan.sig.outputs if not (plan.second and o.name.endswith("_T"))]
    return [replace(o, dims=tuple(d for d in o.dims if d not in plan.second)) for o in found]


def _shape(dims: tuple[str, ...]) -> list[str]:
    return [extent(d) for d in dims]


def _layer(plan: LayerPlan) -> str:
    name = plan.sig.class_name
    parts = [
        f"class {name}Layer(_Sequences):",
        docstring(_words(plan), 4),
        "",
        _init(plan),
        "",
        _inputs(plan),
        "",
        _run(plan),
        "",
        _step(plan),
        "",
        _read(plan),
    ]
    if plan.weights is not None:
        parts += ["", loading_text(plan, plan.weights)]
    return "\n".join(parts)


def _words(plan: LayerPlan) -> list[str]:
    """The documentation: what is computed."""
    sig = plan.sig
    mixed = [p.name for p in plan.projected if p.mixes]
    lines = [f"{sig.spec} as a layer: x [B, T, d_model] -> [B, T, d_out].", ""]
    if plan.projected:
        lines.append(f"    {', '.join(p.name for p in plan.projected)} = project(x)")
    lines += [f"    {name} = x, which the spec projects itself" for name in plan.direct]
    if mixed or plan.direct:
        lines.append(f"    conv > 0: {', '.join([*plan.direct, *mixed])} through a causal convolution of so many steps")
    for p in plan.projected:
        if not p.mixes:
            lines.append(f"    {p.name} = {_activated(p, p.name)}, for the spec declares it in [{p.low:g}, {p.high:g}]")
        if p.unit:
            lines.append(f"    {p.name} = {p.name} / |{p.name}|, for the spec declares a norm of 1")
    outputs = ", ".join(o.name for o in _outputs(plan))
    called = ", ".join(x.name for x in sig.required)
    lines += [f"    {outputs} = {sig.spec}({called})", f"    y = dropout(out(norm({outputs}) * silu(gate(x))))", ""]
    if plan.given:
        lines += [f"{', '.join(plan.given)}: an argument of every call, as `{sig.spec}` takes it.", ""]
    lines += [
        "d_out: of the result (d_model unless said); conv: steps of the convolution, 0 for none; norm, gate, out: whether",
        "these parts are there (without `out` the result is the recurrence's, its dims in one); dropout: the chance that an",
        "element of the result is 0 in training. Sizes that are not given follow from d_model.",
    ]
    return lines


def _init(plan: LayerPlan) -> str:
    sig = plan.sig
    keys = [f"{name}: int | None = None" if "d_model" in text else f"{name}: int = {text}" for name, text in plan.sizes]
    keys += ["d_out: int | None = None", "conv: int = 0", "norm: bool = True", "gate: bool = True", "out: bool = True"]
    keys += ["dropout: float = 0.0", "device: torch.device | str | None = None", "dtype: torch.dtype | None = None"]
    lines = [
        lay("def __init__(", ["self", "d_model: int", "*", *keys], ") -> None:", 4),
        "        super().__init__()",
        *(f"        {name} = {text}" for name, text in plan.fixed),
        *(f"        {name} = {text} if {name} is None else {name}" for name, text in plan.sizes if "d_model" in text),
    ]
    made = [f"{d.name}={d.name}" for d in module_sizes(sig) if d.name in {n for n, _ in (*plan.sizes, *plan.fixed)}]
    made += [f"{d}=0" for d in plan.second]  # as wide as each call says
    lines += [lay(f"self.recurrence = {sig.class_name}(", [*made, "device=device", "dtype=dtype"], ")", 8)]
    if plan.projected:
        shapes = [f'"{p.name}": {group(_shape(p.dims))}' for p in plan.projected]
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
    outputs = _outputs(plan)
    total = " + ".join(_width(o.dims) for o in outputs)
    lines.append(f"        width = {total}")
    for o in outputs:
        if o.dims:
            rms = f"torch.nn.RMSNorm({extent(o.dims[-1])}, eps=1e-5, device=device, dtype=dtype)"
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


def _width(dims: tuple[str, ...]) -> str:
    return " * ".join(_shape(dims)) or "1"


def _biases(plan: LayerPlan) -> list[str]:
    """Lines that set the bias of gates, so that a new layer remembers."""
    lines: list[str] = []
    for i, p in enumerate(plan.projected):
        if p.bias == (0.0, 0.0):
            continue
        low, high = p.bias
        begin = f"sum(self.widths[:{i}])" if i else "0"
        last = _shape(p.dims)[-1] if p.dims else ""
        if not lines:
            lines += ["        with torch.no_grad():  # gates begin with memories of 4 to 256 steps"]
        place = f"self.project.bias[{begin}:][: self.widths[{i}]]"
        many = f".view(-1, {last}).copy_(torch.linspace({low:.4g}, {high:.4g}, {last}))"
        lines.append(f"            {place}{many if last else f'.fill_({(low + high) / 2:.4g})'}")
    return lines


def _activated(p: Projected, x: str) -> str:
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


def _inputs(plan: LayerPlan) -> str:
    """The method that makes the recurrence's inputs."""
    content = len(plan.direct) + sum(p.mixes for p in plan.projected)
    lines = [
        "    def inputs(self, x: Tensor, states: dict[str, Tensor], cu_seqlens: Tensor | None) -> tuple[Tensor, ...]:",
        '        """x [B, T, d_model] -> what the recurrence takes; states: of the cache, for the convolution."""',
    ]
    if not plan.projected and not plan.direct:
        return "\n".join([*lines, "        return ()"])
    parts = ["x"] * len(plan.direct) + (["*torch.split(self.project(x), self.widths, -1)"] if plan.projected else [])
    if content:
        lines += [
            lay("parts = [", parts, "]", 8),
            "        if self.conv is not None:",
            f"            content = torch.cat(parts[:{content}], -1)" if content > 1 else "            content = parts[0]",
            "            content, states[\"conv\"] = _convolved(content, self.conv, states.get(\"conv\"), cu_seqlens)",
        ]
        if content > 1:
            widths = f"[part.shape[-1] for part in parts[:{content}]]"
            lines.append(f"            parts[:{content}] = torch.split(content, {widths}, -1)")
        else:
            lines.append("            parts[0] = content")
        source = "parts"
    else:
        source = "torch.split(self.project(x), self.widths, -1)"
    names = [*map(_local, plan.direct), *(_local(p.name) for p in plan.projected)]
    lines.append(f"        {unpack(names)} = {source}")
    for p in plan.projected:
        own = _local(p.name)
        whole = f'torch.unflatten({own}, -1, self.shapes["{p.name}"])' if p.dims else f"{own}.squeeze(-1)"
        value = _activated(p, own if len(p.dims) == 1 else whole)
        if p.unit:
            value = f"_unit({value}, {group([str(axis) for axis in p.unit])})"
        if value != own:
            lines.append(f"        {own} = {value}")
    lines.append(f"        return {group(names) if len(names) == 1 else ', '.join(names)}")
    return "\n".join(lines)


def _call(plan: LayerPlan, method: str, bounds: bool) -> str:
    """The call of the recurrence: inputs in its order, given arguments, states of the cache."""
    names = [*plan.direct, *(p.name for p in plan.projected)]
    order = [a.name for a in plan.sig.table if not a.default and a.batched]
    known = {name: _local(name) for name in (*names, *plan.given)}
    args = [known[name] for name in order if name in known]
    args += [f'{s.name}_0=states.get("{s.name}")' for s in plan.sig.states]
    args += ["cu_seqlens=cu_seqlens"] if bounds else ["inplace=inplace"]
    return lay(f"result = self.recurrence{method}(", args, ")", 8)


def _unpacked(plan: LayerPlan, call: str) -> str:
    names = [*map(_local, plan.direct), *(_local(p.name) for p in plan.projected)]
    return f"        {unpack(names)} = {call}" if names else ""


def _run(plan: LayerPlan) -> str:
    sig, given = plan.sig, _given(plan)
    update = lay("states.update(", [f"{s.name}=result.{s.name}_T" for s in sig.states], ")", 8) if sig.states else ""
    lines = [
        f"    def run(self, x: Tensor, {given['head']}cache: {sig.class_name}Cache, cu_seqlens: Tensor | None) -> Tensor:",
        '        """[B, T, d_model], or a pack [1, steps, d_model] with its bounds -> the same with d_out."""',
        "        states = cache.states",
        _unpacked(plan, "self.inputs(x, states, cu_seqlens)"),
        _call(plan, "", True),
        update,
        f"        return self.read(x, {', '.join(f'result.{o.name}' for o in _outputs(plan))})",
    ]
    return "\n".join(line for line in lines if line)


def _step(plan: LayerPlan) -> str:
    sig = plan.sig
    update = lay("states.update(", [f"{s.name}=result.{s.name}_T" for s in sig.states], ")", 8) if sig.states else ""
    head = ["self", "x: Tensor", *(f"{_local(name)}: Tensor" for name in plan.given), f"cache: {sig.class_name}Cache",
            "inplace: bool = False"]
    lines = [
        lay("def step(", head, ") -> Tensor:", 4),
        docstring([
            "x [B, d_model] -> [B, d_out]: one step more. inplace: states are written where they lie, without gradients."
        ], 8),
        "        states = cache.states",
        _unpacked(plan, "(one[:, 0] for one in self.inputs(x[:, None], states, None))"),
        _call(plan, ".step", False),
        update,
        f"        return self.read(x, {', '.join(f'result.{o.name}' for o in _outputs(plan))})",
    ]
    return "\n".join(line for line in lines if line)


def _read(plan: LayerPlan) -> str:
    outputs = _outputs(plan)
    names = [_local(o.name) for o in outputs]
    lines = [
        lay("def read(", ["self", "x: Tensor", *(f"{name}: Tensor" for name in names)], ") -> Tensor:", 4),
        '        """The outputs of the recurrence, normed, gated and mapped back."""',
    ]
    flat = []
    for o, name in zip(outputs, names, strict=True):
        if o.dims:
            lines += [f"        if self.norm_{o.name} is not None:", f"            {name} = self.norm_{o.name}({name})"]
        match len(o.dims):
            case 0:
                flat.append(f"{name}.unsqueeze(-1)")
            case 1:
                flat.append(name)
            case _:
                flat.append(f"{name}.flatten(-{len(o.dims)})")
    lines += [
        f"        y = {flat[0]}" if len(flat) == 1 else lay("y = torch.cat([", flat, "], -1)", 8),
        "        if self.gate is not None:",
        "            y = y * torch.nn.functional.silu(self.gate(x))",
        "        if self.out is not None:",
        "            y = self.out(y)",
        "        return self.dropout(y)  # type: ignore[no-any-return]",
    ]
    return "\n".join(lines)


__all__ = ["layer_beside", "layer_file", "layer_text"]
