"""Weights of torch.nn.LSTM, GRU and RNN in a layer. In: a plan whose equations are one of these. Out: the text of methods."""

from __future__ import annotations

from seqc.emit.layer_plan import LayerPlan, Slot, Weights
from seqc.emit.text import docstring


def loading_text(plan: LayerPlan, w: Weights) -> str:
    """The method `load_torch` of the layer."""
    name, kind = plan.sig.class_name, f"torch.nn.{w.kind}"
    sizes = "".join(f"{d}=1, " for d in w.single) + f"{w.hidden}=hidden_size"
    parts = [f"self.norm_{o.name}" for o in plan.sig.outputs] + ["self.gate", "self.out"]
    parts += ["self.conv"] if plan.direct or any(p.mixes for p in plan.projected) else []
    width = "self.project.in_features" if w.inputs else f"self.recurrence.{_first(w)}.shape[-1]"
    dims = " and ".join(f'self.recurrence.dims["{d}"] == {size}' for d, size in (*((d, "1") for d in w.single),
                                                                              (w.hidden, "module.hidden_size")))
    ways = "both ways" if w.both else "forward"
    relu = f' or module.nonlinearity != "{w.nonlinearity}"' if w.nonlinearity else ""
    what = f"{kind}(nonlinearity='{w.nonlinearity}')" if w.nonlinearity else kind
    lines = [
        "    @torch.no_grad()",
        f"    def load_torch(self, module: {kind}, layer: int = 0) -> {name}Layer:",
        docstring([
            f"Take the weights of a layer of {what}, whose equations these are.", "",
            f"The layer has no parts that {w.kind} has not:",
            f"{name}Layer(input_size, {sizes}, norm=False, gate=False, out=False).",
            "TypeError for another module, ValueError where a size or a part differs.",
        ], 8),
        f"        if not isinstance(module, {kind}){relu}:",
        f'            raise TypeError(f"{plan.sig.spec} has the equations of {what}, and this is {{module}}")',
        f"        if any(part is not None for part in ({', '.join(parts)})):",
        f'            raise ValueError("{w.kind} has no convolution or projection: norm=False, gate=False, out=False")',
        "        inputs = getattr(module, f\"weight_ih_l{layer}\").shape[1]",
        f"        sizes = {dims}",
        f"        if not sizes or {width} != inputs:",
        f'            raise ValueError(f"{plan.sig.spec}: other sizes than {{module}}; {sizes}")',
        f"        if module.bidirectional is not {w.both} or module.proj_size:",
        f'            raise ValueError(f"{plan.sig.spec} runs {ways} and projects no state; {{module}}")',
        "",
        "        def part(name: str, gate: int, run: str = \"\") -> Tensor:",
        '            """Of a weight, or of a bias that may be missing, the rows of a gate."""',
        "            found = getattr(module, f\"{name}_l{layer}{run}\", None)",
        f"            x: Tensor = torch.zeros({w.gates} * module.hidden_size) if found is None else found",
        f"            return x.chunk({w.gates})[gate]",
        "",
        "        def put(target: Tensor, value: Tensor) -> None:",
        "            target.copy_(value.view_as(target))",
        "",
    ]
    if w.inputs:
        lines += [
            "        weights = zip(self.shapes.items(), torch.split(self.project.weight, self.widths), strict=True)",
            "        biases = zip(self.shapes.items(), torch.split(self.project.bias, self.widths), strict=True)",
            "        rows = {name: x.view(*shape, -1) for (name, shape), x in weights}",
            "        bias = {name: x.view(shape) for (name, shape), x in biases}",
            *(_filled(_rows("rows", x), f'part("weight_ih", {g})') for x, g in w.inputs.items()),
            *(_filled(_rows("bias", x), _sum("bias", slots)) for x, slots in w.rest.items() if slots),
        ]
    for run, mark in (("", ""), ("_reverse", '"_reverse"')) if w.both else (("", ""),):
        held = {**{p: ("weight", (slot,)) for p, slot in w.matrices.items()}, **{b: ("bias", s) for b, s in w.biases.items()}}
        for param, (what, slots) in held.items():
            name, _, place = param.partition("@")
            target = f"self.recurrence.{name}{run}" + _selected(place)
            lines.append(_filled(target, _sum(what, slots, mark)) if slots else f"        {target}.zero_()")
    return "\n".join([*lines, "        return self"])


def stack_text(plan: LayerPlan, w: Weights) -> str:
    """The class method `from_torch` of the stack."""
    name, kind = plan.sig.class_name, f"torch.nn.{w.kind}"
    sizes = "".join(f"{d}=1, " for d in w.single) + f"{w.hidden}=module.hidden_size"
    return "\n".join([
        "    @classmethod",
        f"    def from_torch(cls, module: {kind}) -> {name}Stack:",
        docstring([
            f"The layers of {kind}, one above the other, with its weights; batch first, and without its dropout."
        ], 8),
        "        one = next(module.parameters())",
        "        made = cls(",
        "            module.input_size, module.num_layers, residual=False, norm=False, gate=False, out=False,",
        f"            {sizes}, device=one.device, dtype=one.dtype,",
        "        )",
        "        for i, layer in enumerate(made.layers):",
        f"            assert isinstance(layer, {name}Layer)",
        "            layer.load_torch(module, i)",
        "        return made",
    ])


def _first(w: Weights) -> str:
    return next(p for p, (side, _) in w.matrices.items() if side == "ih").partition("@")[0]


def _selected(place: str) -> str:
    """`.select(axis, index)` of `axis@index`; nothing of an array that is one gate's."""
    return f".select({place.replace('@', ', ')})" if place else ""


def _rows(of: str, unit: str) -> str:
    """The rows of an input in the projection's weight or bias."""
    name, _, place = unit.partition("@")
    return f'{of}["{name}"]{_selected(place)}'


def _filled(target: str, value: str) -> str:
    """The line that copies a value, in the target's shape."""
    return f"        put({target}, {value})"


def _sum(what: str, slots: tuple[Slot, ...], run: str = "") -> str:
    """The parts of the slots, added."""
    after = f", {run}" if run else ""
    return " + ".join(f'part("{what}_{side}", {g}{after})' for side, g in slots)
