"""The dtypes of what a person gives an emitted file, and the call beneath. In: a signature. Out: the text of the rule.

Inputs share a dtype, but for gates; autocast decides, where it is on. What is of another kind is an error that says what to do.
"""

from __future__ import annotations

from seqc.emit.signature import Signature
from seqc.emit.sizes import main_input
from seqc.emit.text import either, group, join, lay


def reals(sig: Signature) -> list[str]:
    """The inputs of real numbers that a call must give."""
    return [a.name for a in sig.table if a.kind == "input" and not a.whole and not a.default]


def cast_text(sig: Signature) -> str:
    """The dtype rule of the inputs."""
    names = reals(sig)
    gates = " ".join(x.name for x in sig.required if x.gate)
    if not names:
        return join(_DTYPES.format(spec=sig.spec, names="", gates=""), _CALL)
    main = main_input(sig)
    fits = [
        lay("def _cast(", names, "):"),
        '    """The inputs in the dtypes that the operators take."""',
        "    try:",
        f"        main = {main}.dtype",
        either([
            *(f"{name}.dtype != main" for name in names if name != main),
            "main not in _FLOATS",
            f"({main}.device.type in _AUTOCAST and torch.is_autocast_enabled({main}.device.type))",
        ], 8),
        lay("return _fit(", names, ")", 12),
        "    except AttributeError:  # one is no tensor",
        lay("raise _dtype_error(", [f"{name}={name}" for name in names], ") from None", 8),
        f"    return {group(names) if len(names) == 1 else ', '.join(names)}",
    ]
    rule = _FIT.format(spec=sig.spec, main=names.index(main))
    return join("\n".join(fits), rule, _DTYPES.format(spec=sig.spec, names=" ".join(names), gates=gates), _CALL)


_FIT = '''
def _fit(*inputs):
    """The inputs, cast where autocast asks for it; TypeError where their dtypes do not fit together.

    Under autocast gates become float32 and the others the autocast dtype, as a matrix product's would; float64 stays.
    """
    if not _FLOATS.issuperset(x.dtype for x in inputs):
        raise _dtype_error(**dict(zip(_INPUTS, inputs, strict=True)))
    device, main = inputs[{main}].device.type, inputs[{main}].dtype
    if device in _AUTOCAST and torch.is_autocast_enabled(device) and main != torch.float64:
        main = torch.get_autocast_dtype(device)
        inputs = [x.to(torch.float32 if name in _GATES else main) for name, x in zip(_INPUTS, inputs, strict=True)]
    for name, x in zip(_INPUTS, inputs):
        if x.dtype != main and not (name in _GATES and x.dtype == torch.float32):
            raise TypeError(f"{spec}: {{name}} is {{x.dtype}}, {{_INPUTS[{main}]}} is {{main}}; inputs share a dtype")
    return inputs
'''

_DTYPES = '''
def _dtype_error(**tensors):
    """The first tensor whose dtype is not served, as an error that says what to do."""
    name, x = next((name, x) for name, x in tensors.items() if getattr(x, "dtype", None) not in _FLOATS)
    if not isinstance(x, Tensor):
        kind = {{"NoneType": "None", "ndarray": "an array of numpy"}}.get(type(x).__name__, f"a {{type(x).__name__}}")
        help = {{"ndarray": f": torch.from_numpy({{name}})", "list": f": torch.tensor({{name}})"}}.get(type(x).__name__, "")
        return TypeError(f"{spec}: {{name}} is {{kind}}; it is a tensor [{{_AXES[name].replace(' ', ', ')}}]{{help}}")
    dtype = x.dtype
    what = "inputs" if name in _INPUTS else "initial states" if name.endswith("_0") else "parameters"
    if dtype.is_complex:
        help = "give real and imaginary parts as arguments of their own (x.real, x.imag)"
    elif dtype.is_floating_point:
        help = "convert it first, with its scale: x.to(torch.bfloat16)"
    else:
        help = "convert it first: x.to(torch.float32)"
    kinds = f"{{what}} are floating-point numbers of 64, 32 or 16 bits"
    return TypeError(f"{spec}: {{name}} is {{dtype}}; {{kinds}}: {{help}}")


def _to_carry(name, x, carry):
    """An initial state in the dtype that states have."""
    if x.dtype not in _FLOATS:
        raise _dtype_error(**{{name: x}})
    return x.to(carry)


_FLOATS = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))
_INPUTS = tuple("{names}".split())
_GATES = frozenset("{gates}".split())
'''

_CALL = '''
def _call(operator, *arguments):
    """The operator's results; under `no_grad` without the stop at autograd that inference mode leaves out by itself."""
    needed = torch.compiler.is_compiling() or torch.is_grad_enabled() or forward_ad._current_level >= 0  # tangents
    if needed or torch.is_inference_mode_enabled():
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)
'''
