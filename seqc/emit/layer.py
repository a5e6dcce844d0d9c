"""A plan -> the text of a layer around a recurrence: a cache, a layer, a stack of layers.

In: a `LayerPlan`. Out: the text, as one file with the recurrence's own (`layer_file`), or beside it (`layer_beside`). What does
not depend on the spec stands in `layer_parts`; what is printed here are the lines that follow from the declarations.
"""

from __future__ import annotations

import re

from seqc.diagnostics import Unsupported
from seqc.emit.beside import chunks
from seqc.emit.layer_init import activated, constructor, read_outputs
from seqc.emit.layer_parts import CACHE, CONVOLUTION, ROWS, SEQUENCES, STACK
from seqc.emit.layer_plan import LayerPlan
from seqc.emit.layer_weights import loading_text, stack_text
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
    text = _apart(plan, layer_text(plan), kernels)
    said = head[head.index('"""') + 3 : head.rindex('"""')].rstrip("\n").splitlines()
    doc = docstring([*_about(plan), "", "The recurrence:", "", *said])
    names = _names(plan) + [plan.sig.class_name, f"{plan.sig.class_name}Result", plan.sig.spec, f"{plan.sig.spec}_step"]
    notes = ["# What is called has types; kernels and operators have none that a checker could follow."]
    notes += ["# mypy: ignore-errors"]
    return join(
        "\n".join([_header(plan), doc, "", *_imports(imports), "", *notes, "", f"__all__ = {_listed(names)}"]),
        section("the layer", text),
        kernels,
    )


def _apart(plan: LayerPlan, text: str, kernels: str) -> str:
    """The layer's text, its private names changed where the recurrence's text has them too."""
    both = {name for chunk in chunks(text) for name in chunk.names} & {n for chunk in chunks(kernels) for n in chunk.names}
    for name in sorted(both):
        if not name.startswith("_"):
            message = f"the layer and the recurrence of `{plan.sig.spec}` would both define `{name}`"
            raise Unsupported.of("layer-name", message, help="give the spec another name")
        text = re.sub(rf"(?<![\w.]){name}\b", f"_layer{name}", text)
    return text


def layer_beside(plan: LayerPlan, module: str) -> str:
    """A file of the layer alone, which imports the recurrence from a module of this name."""
    found = f"from {module} import {plan.sig.class_name}, _whole_sizes"
    return join(
        "\n".join([
            _header(plan), docstring(_about(plan)), "", *_imports([]), "", found, "",
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


def _imports(others: list[str]) -> list[str]:
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
            raise Unsupported.of("layer-name", message, help="rename the dim in the spec")


def _given(plan: LayerPlan) -> dict[str, str]:
    """The words for what the caller of the layer passes: in heads, in calls, and as it lies in rows."""
    timed = {x.name for x in plan.sig.inputs}
    names = [_local(name) for name in plan.given]
    return {
        "head": "".join(f"{name}: Tensor, " for name in names),
        "heads": "".join(f"{name}: Any, " for name in names),
        "pass": "".join(f", {name}" for name in names),
        "take": "".join(f", rows.take({n})" if name in timed else f", {n}" for name, n in zip(plan.given, names, strict=True)),
        "second": "".join(f", {d}" for d in plan.second),
    }


def _local(name: str) -> str:
    """What an argument of the recurrence is called inside of the layer."""
    return f"{name}_" if name in _WORDS else name


# ---- the layer itself ----


def _layer(plan: LayerPlan) -> str:
    name = plan.sig.class_name
    parts = [
        f"class {name}Layer(_Sequences):",
        docstring(_words(plan), 4),
        "",
        constructor(plan),
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
            lines.append(f"    {p.name} = {activated(p, p.name)}, for the spec declares it in [{p.low:g}, {p.high:g}]")
        if p.unit:
            lines.append(f"    {p.name} = {p.name} / |{p.name}|, for the spec declares a norm of 1")
    outputs = ", ".join(o.name for o in read_outputs(plan))
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
        value = activated(p, own if len(p.dims) == 1 else whole)
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


def _after(plan: LayerPlan) -> list[str]:
    """What becomes of the recurrence's result: the states are kept, the outputs read."""
    states = [f"{s.name}=result.{s.name}_T" for s in plan.sig.states]
    kept = [lay("states.update(", states, ")", 8)] if states else []
    return [*kept, f"        return self.read(x, {', '.join(f'result.{o.name}' for o in read_outputs(plan))})"]


def _run(plan: LayerPlan) -> str:
    sig, given = plan.sig, _given(plan)
    lines = [
        f"    def run(self, x: Tensor, {given['head']}cache: {sig.class_name}Cache, cu_seqlens: Tensor | None) -> Tensor:",
        '        """[B, T, d_model], or a pack [1, steps, d_model] with its bounds -> the same with d_out."""',
        "        states = cache.states",
        _unpacked(plan, "self.inputs(x, states, cu_seqlens)"),
        _call(plan, "", True),
        *_after(plan),
    ]
    return "\n".join(line for line in lines if line)


def _step(plan: LayerPlan) -> str:
    head = ["self", "x: Tensor", *(f"{_local(name)}: Tensor" for name in plan.given), f"cache: {plan.sig.class_name}Cache",
            "inplace: bool = False"]
    lines = [
        lay("def step(", head, ") -> Tensor:", 4),
        docstring([
            "x [B, d_model] -> [B, d_out]: one step more. inplace: states are written where they lie, without gradients."
        ], 8),
        f"        states, x = cache.states, self.fit(x, \"B{_given(plan)['second']}\")",
        _unpacked(plan, "(one[:, 0] for one in self.inputs(x[:, None], states, None))"),
        _call(plan, ".step", False),
        *_after(plan),
    ]
    return "\n".join(line for line in lines if line)


def _read(plan: LayerPlan) -> str:
    outputs = read_outputs(plan)
    names = [_local(o.name) for o in outputs]
    lines = [
        lay("def read(", ["self", "x: Tensor", *(f"{name}: Tensor" for name in names)], ") -> Tensor:", 4),
        '        """The outputs of the recurrence, normed, gated and mapped back."""',
    ]
    flat = []
    for o, name in zip(outputs, names, strict=True):
        if o.dims:
            lines.append(f"        {name} = _normed(self.norm_{o.name}, {name})")
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
