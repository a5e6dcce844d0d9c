"""Models with emitted recurrences as ONNX files: `seqc.onnx.export(model, (x,), "model.onnx")`.

In: a torch Module that calls emitted files, somewhere inside, and example arguments. Out: the program of `torch.onnx.export`,
in which each call of a recurrence is a standard operator: `LinearAttention` where its opset is asked for and one of its rules
fits, else `Scan`, whose body is the recurrence's step in plain torch operators. A call of a step becomes these operators
themselves. Needs the packages onnx and onnxscript (`pip install "seqc[onnx]"`); whoever runs the file needs neither torch nor
seqc.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import permutations
from os import PathLike
from types import ModuleType
from typing import Any

DOMAIN = "seqc"  # of the nodes that stand for calls until they are replaced
NATIVE = 23  # the last opset whose operators torch.onnx.export writes
LINEAR_ATTENTION = 27  # the first opset that has it: https://onnx.ai/onnx/operators/onnx__LinearAttention.html


class NoForm(ValueError):
    """A call that has no form in ONNX."""


def export(
    model: Any,
    args: tuple[Any, ...],
    path: str | PathLike[str] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    opset_version: int | None = None,
    **options: Any,
) -> Any:
    """The `torch.onnx.ONNXProgram` of a model, written to `path` where one is given.

    model: a torch.nn.Module; args, kwargs: example arguments; dynamic_shapes and options: as of `torch.onnx.export`, so that
    `dynamic_shapes=({0: "batch", 1: "steps"},)` leaves both open. opset_version: from 27 on, a recurrence that is one of the
    rules of `LinearAttention` is written as one. Raises ValueError for what has no such form: packs (`cu_seqlens`), and a
    recurrence without a step (it reads later inputs, or runs both ways); ModuleNotFoundError where a package is missing.
    """
    for name in ("onnx", "onnxscript"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f'seqc.onnx needs the package {name}: pip install "seqc[onnx]"', name=name)
    try:
        with _calls_as_nodes():
            program = _exported(model, args, opset_version, kwargs=dict(kwargs or {}), dynamic_shapes=dynamic_shapes, **options)
    except Exception as error:  # the exporter wraps what happens while it traces
        own = next((cause for cause in _causes(error) if isinstance(cause, NoForm)), None)
        raise error if own is None else own from None
    graph = program.model.graph
    for node in [node for node in graph if node.domain == DOMAIN]:
        emitted = next(one for one in _emitted() if _mark(one) == node.op_type)
        version = program.model.opset_imports[""]
        fit = _rule(emitted, node) if version >= LINEAR_ATTENTION else None
        made = _scan(emitted, node, version) if fit is None else _linear_attention(node, *fit)
        _put(graph, node, made)
    program.model.opset_imports.pop(DOMAIN, None)
    if path is not None:
        program.save(path)
    return program


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _exported(model: Any, args: tuple[Any, ...], version: int | None, **options: Any) -> Any:
    """`torch.onnx.export`, by way of an opset that it writes itself where a later one is asked for."""
    import torch

    program = torch.onnx.export(
        model, args, opset_version=version and min(version, NATIVE), dynamo=True, **{"verbose": False} | options
    )
    assert program is not None
    if version is not None and version > NATIVE:
        import onnx
        import onnx_ir as ir

        program.model = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(program.model), version))
    return program


def _emitted() -> list[ModuleType]:
    """The emitted files that are loaded."""
    needed = {"_OPS", "_AXES", "_call", "_fake_run", "_step_torch"}
    return [one for one in list(sys.modules.values()) if isinstance(one, ModuleType) and needed <= vars(one).keys()]


def _mark(emitted: ModuleType) -> str:
    """What a call of an emitted file is called as a node."""
    return str(getattr(emitted._OPS, "operators", emitted._OPS).name)  # more than 64 tensors come in lists


def _kinds(emitted: ModuleType) -> str:
    """Of each argument, in order: T, it has a time axis; B, it is a state; -, it is the same for all sequences."""
    found = (axes.split() for axes in emitted._AXES.values())
    return "".join("T" if axes[:2] == ["B", "T"] else "B" if axes[:1] == ["B"] else "-" for axes in found)


@contextmanager
def _calls_as_nodes() -> Iterator[None]:
    """While the model is traced, calls of a recurrence are nodes of a domain of their own, and steps are plain torch."""
    import torch

    before = [(one, one._call) for one in _emitted()]

    def traced(emitted: ModuleType, usual: Callable[..., Any]) -> Callable[..., Any]:
        def call(operator: Any, *arguments: Any) -> Any:
            if operator == emitted._OPS.step.default:
                carry = emitted._carry(arguments[0])
                return emitted._step_torch(*(x.to(carry) if x.is_floating_point() else x for x in arguments))
            if operator != emitted._OPS.run.default:
                return usual(operator, *arguments)
            *tensors, cu_seqlens, reverse = arguments
            if cu_seqlens is not None:
                raise NoForm(f"{_mark(emitted)}: a pack of sequences has no form in ONNX: export a batch")
            results = emitted._fake_run(*tensors, cu_seqlens, reverse)
            return torch.onnx.ops.symbolic_multi_out(
                f"{DOMAIN}::{_mark(emitted)}", tensors, {"reverse": int(reverse)}, dtypes=[x.dtype for x in results],
                shapes=[x.shape for x in results], version=1,
            )

        return call

    for one, usual in before:
        vars(one)["_call"] = traced(one, usual)
    try:
        yield
    finally:
        for one, usual in before:
            vars(one)["_call"] = usual


def _put(graph: Any, node: Any, made: Sequence[Any]) -> None:
    """The nodes instead of a node; the last has its outputs, or as many last ones have one each."""
    graph.insert_before(node, made)
    new = [value for one in made for value in one.outputs if value.metadata_props.get("result")]
    new.sort(key=lambda value: int(value.metadata_props.pop("result")))
    for old, value in zip(node.outputs, new, strict=True):
        value.name, value.shape, value.type = old.name, old.shape, old.type
        old.name = f"{old.name}_before"
        old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _result(value: Any, place: int) -> Any:
    """The value as the node's result of this number."""
    value.metadata_props["result"] = str(place)
    return value


# ---- Scan ----


def _scan(emitted: ModuleType, node: Any, version: int) -> list[Any]:
    """A Scan over axis 1, whose states are the recurrence's."""
    import onnx_ir as ir

    kinds = _kinds(emitted)
    params, timed, states = ([x for x, kind in zip(node.inputs, kinds, strict=True) if kind == one] for one in "-TB")
    body, functions = _body(emitted, node, kinds, version)
    outer = dict(zip(body.inputs[len(states) + len(timed) :], params, strict=True))
    for inner, value in outer.items():
        inner.replace_all_uses_with(value)
    del body.inputs[len(states) + len(timed) :]
    assert not functions, "the body of a Scan is inlined"
    outputs, back = len(node.outputs) - len(states), [node.attributes["reverse"].as_int()]
    made = ir.node(
        "Scan", [*states, *timed], num_outputs=len(node.outputs), name=f"{node.name}_scan",
        attributes={
            "body": body, "num_scan_inputs": len(timed), "scan_input_axes": [1] * len(timed), "scan_output_axes": [1] * outputs,
            "scan_input_directions": back * len(timed), "scan_output_directions": back * outputs,
        },
    )
    for i, value in enumerate(made.outputs):  # of a Scan the states come first
        _result(value, i - len(states) if i >= len(states) else outputs + i)
    return [made]


def _body(emitted: ModuleType, node: Any, kinds: str, version: int) -> tuple[Any, Any]:
    """The step of a recurrence as a graph: states, inputs of the step, params -> states, outputs."""
    import onnx_ir as ir
    import torch

    carried, count = kinds.count("B"), len(node.outputs) - kinds.count("B")
    dtypes = {ir.DataType.FLOAT: torch.float32, ir.DataType.DOUBLE: torch.float64, ir.DataType.FLOAT16: torch.float16,
              ir.DataType.BFLOAT16: torch.bfloat16, ir.DataType.INT64: torch.int64, ir.DataType.INT32: torch.int32,
              ir.DataType.BOOL: torch.bool}
    inner = dtypes[node.outputs[0].dtype]

    class Step(torch.nn.Module):
        def forward(self, *given: Any) -> tuple[Any, ...]:
            states, rest = given[:carried], list(given[carried:])
            timed = [rest.pop(0) for _ in range(kinds.count("T"))]
            order = {"T": iter(timed), "-": iter(rest), "B": iter(states)}
            tensors = [next(order[kind]) for kind in kinds]
            carry = emitted._carry(tensors[0])
            results = emitted._step_torch(*(x.to(carry) if x.is_floating_point() else x for x in tensors))
            return (*(s.to(carry).clone() for s in results[count:]), *(o.to(inner) for o in results[:count]))

    shapes: list[tuple[list[int | None], Any]] = []
    ahead: dict[str, list[int | None]] = {"B": [None], "T": [None], "-": []}
    for kind, front in (("B", 1), ("T", 2), ("-", 0)):  # of a step, the batch alone stands before the dims
        given = [x for x, own in zip(node.inputs, kinds, strict=True) if own == kind]
        shapes += [([*ahead[kind], *(s if isinstance(s, int) else None for s in x.shape[front:])], x.dtype) for x in given]
    example = tuple(torch.zeros([3 if s is None else s for s in shape], dtype=dtypes[dtype]) for shape, dtype in shapes)
    free = tuple({i: torch.export.Dim.DYNAMIC for i, s in enumerate(shape) if s is None} for shape, _ in shapes)
    step = Step().eval()
    try:
        step(*example)
    except NotImplementedError as error:
        raise NoForm(f"no form in ONNX: {error}") from error
    program = _exported(step, example, version, dynamic_shapes=(free,))
    graph = program.model.graph
    values = [*graph.inputs, *graph.initializers.values(), *(v for one in graph for v in one.outputs)]
    held = dict(graph.initializers)
    graph.initializers.clear()
    for i, value in enumerate(values):
        value.name = f"{node.name}_{i}"
    for value in held.values():
        graph.initializers[value.name] = value
    return graph, program.model.functions


# ---- LinearAttention ----


def _rule(emitted: ModuleType, node: Any) -> tuple[str, dict[str, int], float] | None:
    """(the rule's name, role -> the place of the input, scale) of a recurrence that is a rule of LinearAttention, or None.

    It is decided by numbers: one step of both, in float64, on random values at the node's own sizes.
    """
    import torch

    axes = {name: tuple(a for a in text.split() if a not in ("B", "T")) for name, text in emitted._AXES.items()}
    *inputs, state = axes
    if len(axes[state]) != 3 or not 3 <= len(inputs) <= 5 or len(node.outputs) != 2 or node.attributes["reverse"].as_int():
        return None
    H, K, V = axes[state]
    if _kinds(emitted) != "T" * len(inputs) + "B" or not {axes[x] for x in inputs} <= {(H, K), (H, V), (H,)}:
        return None
    h, k, v = node.inputs[-1].shape[1:]
    sizes = {H: h, K: k, V: v}
    if not all(isinstance(size, int) for size in sizes.values()) or len(sizes) < 3:
        return None
    drawn = torch.Generator().manual_seed(0)
    shapes = {x: [2, *(sizes[d] for d in axes[x])] for x in (*inputs, state)}
    values = {x: torch.rand(shape, generator=drawn, dtype=torch.float64) - 1.0 for x, shape in shapes.items()}
    o, S = emitted._step_torch(*values.values())
    for rule, roles in RULES.items():
        for order in permutations(inputs) if len(inputs) == len(roles) else ():
            named = dict(zip(roles, order, strict=True))
            wanted = {"q": {(H, K)}, "k": {(H, K)}, "v": {(H, V)}, "g": {(H, K), (H,)}, "beta": {(H,)}}
            if any(axes[name] not in wanted[role] for role, name in named.items()):
                continue
            read, after = _step({role: values[name] for role, name in named.items()}, values[state])
            if not torch.allclose(after, S, rtol=1e-9, atol=1e-12):
                continue
            scale = float((o * read).sum() / read.square().sum())
            if torch.allclose(scale * read, o, rtol=1e-9, atol=1e-12):
                return rule, {role: inputs.index(name) for role, name in named.items()}, scale
    return None


RULES = {
    "linear": ("q", "k", "v"),
    "gated": ("q", "k", "v", "g"),
    "delta": ("q", "k", "v", "beta"),
    "gated_delta": ("q", "k", "v", "g", "beta"),
}


def _step(x: Mapping[str, Any], S: Any) -> tuple[Any, Any]:
    """A step of a rule, with a scale of 1, as the operator's documentation states it: (what is read, the state after)."""
    q, k, v = x["q"], x["k"], x["v"]
    if "g" in x:
        S = S * x["g"].reshape(*x["g"].shape[:2], -1, 1).exp()
    new = v - (k[..., None] * S).sum(-2) if "beta" in x else v
    S = S + k[..., None] * new[..., None, :] * (x["beta"][..., None, None] if "beta" in x else 1.0)
    return (q[..., None] * S).sum(-2), S


def _linear_attention(node: Any, rule: str, roles: Mapping[str, int], scale: float) -> list[Any]:
    """Heads go into the last axis and come back; the operator; states are as they are."""
    import numpy as np
    import onnx_ir as ir

    def reshaped(x: Any, shape: list[int], name: str) -> list[Any]:
        told = ir.node("Constant", [], name=f"{name}_shape", attributes={"value": ir.tensor(np.array(shape, np.int64))})
        return [told, ir.node("Reshape", [x, told.outputs[0]], name=name)]

    state = node.inputs[-1]
    heads, _, width = state.shape[1:]
    made: list[Any] = []
    flat: dict[str, Any] = {}
    for role, place in roles.items():
        x = node.inputs[place]
        if len(x.shape) == 4:
            made += reshaped(x, [0, 0, x.shape[2] * x.shape[3]], f"{node.name}_{role}")
            x = made[-1].outputs[0]
        flat[role] = x
    given = [flat["q"], flat["k"], flat["v"], state, flat.get("g"), flat.get("beta")]
    while given[-1] is None:
        given.pop()
    attributes = {"update_rule": rule, "q_num_heads": heads, "kv_num_heads": heads, "scale": scale}
    attention = ir.node("LinearAttention", given, num_outputs=2, name=f"{node.name}_attention", attributes=attributes)
    back = reshaped(attention.outputs[0], [0, 0, heads, width], f"{node.name}_o")
    _result(back[-1].outputs[0], 0)
    _result(attention.outputs[1], 1)
    return [*made, attention, *back]
