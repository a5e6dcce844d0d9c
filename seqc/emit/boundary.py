"""The torch operators of an emitted file. In: a signature. Out: the text between the kernels and the public function.

That is: the forms of the recurrence and the choice among them; the operators `run`, `forward` (which also saves),
`backward` and `step`, their shapes for tracing and their derivatives. The operators stand in a namespace of the file's own, so
that several files, versions of a file and imports of one file live in one process without meeting.
"""

from __future__ import annotations

from seqc.emit.packs import bounds_text, sequences_text
from seqc.emit.signature import Kernels, Signature
from seqc.emit.sizes import dims, extent, layout_text, layouts, main_input, sizes_text, tellers
from seqc.emit.step import step_operator
from seqc.emit.text import group, lay, returned

DIGEST = "DIGEST_HERE_"  # stands in the text for the digest of the text; as long as it, and like nothing else there


def forms_text(sig: Signature) -> str:
    """The forms of the recurrence that the file holds, and the one function that chooses among them."""
    parts = [_FORM, sequences_text(sig)]
    for suffix, kernels in sig.backends.items():
        parts.append(_saved_text(sig, suffix, kernels))
        if not kernels.infer:
            parts.append(_INFER.format(suffix=suffix, count=len(sig.results)))
    if sig.triton:
        parts.append(_PREPARE_TRITON)
    forms = []
    for suffix in sig.backends:
        prepare = "_prepare_triton" if suffix == "triton" else "_prepare_torch"
        three = [f"_{part}_{suffix}" for part in ("infer", "forward", "backward")]
        if not sig.backends[suffix].packs:
            three = [f"*_one_by_one({', '.join(three)})"]
        forms.append(lay(f"_{suffix.upper()} = _Form(", [prepare, *three, f"_saved_{suffix}", f"_step_{suffix}"], ")"))
    parts += ["\n".join(forms), _choice_text(sig)]
    return "\n\n\n".join(part.strip() for part in parts)


def _saved_text(sig: Signature, suffix: str, kernels: Kernels) -> str:
    rows = [f"({group(kept.shape)}, {kept.dtype})" for kept in kernels.saved]
    packed = [f"({group(kept.packed or kept.shape)}, {kept.dtype})" for kept in kernels.saved] if kernels.packs else []
    words = ", ".join(kept.name for kept in kernels.saved) or "nothing"
    if rows and not packed:
        words += "; nothing of a pack, which runs again"
    return "\n".join(
        [
            lay(f"def _saved_{suffix}(", ["packed", *dims(sig), "io", "carry"], "):"),
            f'    """Shapes and dtypes of what forward saves: {words}."""',
            *(["    if packed:", lay("return [", packed, "]", 8)] if packed != rows else []),
            lay("return [", rows, "]", 4),
        ]
    )


def _choice_text(sig: Signature) -> str:
    lines = [
        "def _form(*tensors):",
        '    """The form that runs on some arguments, of a sequence or of one step: the one place where it is chosen."""',
    ]
    if sig.triton or sig.cpu:
        lines.append(f"    x = tensors[{sig.arguments.index(main_input(sig))}]")
    if sig.triton:
        test = 'x.device.type == "cuda"' + ("" if sig.triton.float64 else " and x.dtype != torch.float64")
        if sig.triton.limited:
            test += f" and _ready_triton({', '.join(['x', *(_size(sig, d) for d in sig.triton.limited)])})"
        lines += [f"    if {test}:", "        return _TRITON"]
    if sig.cpu:
        lines += ['    if x.device.type == "cpu" and _ready_cpu(*tensors):', "        return _CPU"]
    lines.append("    return _TORCH")
    if sig.triton and sig.triton.limited:
        lines += [
            "",
            "",
            f"def {form_alone(sig)}(*tensors):",
            '    """The form where no gradient follows: kernels of forward may fit where those of backward do not."""',
            f"    x = tensors[{sig.arguments.index(main_input(sig))}]",
            f"    if {test.removesuffix(')')}, alone=True):",
            "        return _TRITON",
            "    return _form(*tensors)",
        ]
    return "\n".join(lines)


def form_alone(sig: Signature) -> str:
    """What chooses the form where no gradient follows."""
    return "_form_alone" if sig.triton and sig.triton.limited else "_form"


def _size(sig: Signature, dim: str) -> str:
    """The size of a dim, from the first argument that has it, with a time axis or without."""
    for at, axes in enumerate(layouts(sig).values()):
        if dim in axes:
            x = "x" if at == sig.arguments.index(main_input(sig)) else f"tensors[{at}]"
            return f"{x}.shape[{axes.index(dim) - len(axes)}]"
    return str(next(d.default for d in sig.dims if d.name == dim))


def operators_text(sig: Signature) -> str:
    """The operators: their code for real tensors, for tracing, and for autograd; and their registration."""
    main = main_input(sig)
    axes = layouts(sig)
    shapes = [f"{main}.new_zeros({group([f'*{main}.shape[:2]', *map(extent, o.dims)])})" for o in sig.outputs]
    shapes += [f"{main}.new_zeros({group(list(axes[name]))}, dtype=_carry({main}))" for name in sig.initial]
    fake_run = [
        lay("def _fake_run(", [*sig.arguments, "cu_seqlens", "reverse"], "):"),
        '    """What `run` returns, all zeros: for tracing, and for a sequence of no steps."""',
        lay(f"{', '.join(dims(sig))} = _sizes(", [*tellers(sig), "cu_seqlens"], ")", 4),
        returned(shapes, 4),
    ]
    names = {
        "spec": sig.spec,
        "digest": DIGEST,
        "arguments": " ".join(sig.arguments),
        "results": " ".join(sig.results),
        "main": sig.arguments.index(main),
        "given": len(tellers(sig)),
        "count": len(sig.arguments),
        "given_count": len(sig.arguments) + 1,
        "calls": len(sig.arguments) + 2,
        "after": len(sig.arguments) + 3,
        "argument_list": ", ".join(sig.arguments),
        "result_list": ", ".join(sig.results),
        "outputs": len(sig.outputs),
        "total": len(sig.results),
        "alone": form_alone(sig),
        "kinds": "T" * len(sig.inputs) + "-" * (len(sig.params) + len(sig.states)),
        "ends": "T" * len(sig.outputs) + "-" * len(sig.states),
    }
    parts = [
        layout_text(sig),
        bounds_text(sig),
        sizes_text(sig),
        sizes_text(sig, time=False),
        _DTYPES,
        _ON_DEVICE if sig.triton else _NO_DEVICE,
        "\n".join(fake_run),
        _OPERATORS.format(**names),
        _AUTOGRAD.format(**names),
        step_operator(sig, form_alone(sig)),
        _REGISTER.format(**names),
    ]
    return "\n\n\n".join(part.strip() for part in parts)


_FORM = '''
class _Form(NamedTuple):
    """One way to run the recurrence; `prepare` brings tensors into the dtypes and the layout that it takes."""

    prepare: Callable
    infer: Callable
    forward: Callable
    backward: Callable
    saved: Callable
    step: Callable


def _prepare_torch(carry, *tensors):
    """Contiguous, in the carried dtype."""
    return [x if x.dtype == carry and x.is_contiguous() else x.to(carry).contiguous() for x in tensors]
'''

_PREPARE_TRITON = '''
def _prepare_triton(carry, *tensors):
    """The kernels read tensors as they are stored; this is where Triton is first needed."""
    _load_triton()
    return [x.contiguous() for x in tensors]
'''

_INFER = '''
def _infer_{suffix}(*tensors):
    """Forward without what backward needs."""
    return _forward_{suffix}(*tensors)[:{count}]
'''

_DTYPES = '''
def _carry(x):
    """The dtype of states and sums, whatever the storage dtype of the inputs."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _dense(x, dtype):
    """x as the operators promise it: in this dtype, contiguous."""
    return x if x.dtype == dtype and x.is_contiguous() else x.to(dtype).contiguous()


def _copy(x, dtype):
    """A contiguous copy: an operator never returns its argument."""
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


'''

_NO_DEVICE = '''
def _autocast_off(function):
    """Autocast has done its part before an operator is called; inside, dtypes are the operator's own."""

    def call(*tensors):
        device = tensors[0].device.type
        if not torch.is_autocast_enabled(device):
            return function(*tensors)
        with torch.autocast(device, enabled=False):
            return function(*tensors)

    return call
'''

_ON_DEVICE = '''
def _autocast_off(function):
    """Autocast has done its part before an operator is called; inside, dtypes are the operator's own.

    Triton launches on the device that is current: while an operator runs, that is its tensors' own.
    """

    def call(*tensors):
        device = tensors[0].device
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return call(*tensors)
        if not torch.is_autocast_enabled(device.type):
            return function(*tensors)
        with torch.autocast(device.type, enabled=False):
            return function(*tensors)

    return call
'''

_OPERATORS = '''
def _fake_forward(*arguments):
    """What `forward` returns, all zeros."""
    x, cu_seqlens, form = arguments[{main}], arguments[{count}], _form(*arguments[:{count}])
    saved = form.saved(cu_seqlens is not None, *_sizes(*arguments[:{given}], cu_seqlens), x.dtype, _carry(x))
    return *_fake_run(*arguments), [x.new_zeros(shape, dtype=dtype) for shape, dtype in saved]


def _fake_backward(*arguments):
    """What `backward` returns, all zeros."""
    return [x.new_zeros(x.shape) for x in arguments[:{count}]]


@_autocast_off
def _run(*arguments):
    """Operator `run`: {result_list}."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[{main}]
    form, carry, steps = {alone}(*tensors), _carry(x), _steps(cu_seqlens, tensors[{main}])
    if steps < x.shape[1]:
        results = _run(*_own_rows(tensors, "{kinds}", steps), cu_seqlens, reverse)
        return [*(_resized(o, (1, x.shape[1], *o.shape[2:])) for o in results[:{outputs}]), *results[{outputs}:]]
    if 0 in x.shape[:2]:
        return [*_fake_run(*arguments)[:{outputs}], *(_copy(s, carry) for s in tensors[{given}:])]
    results = form.infer(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    return [*(_dense(o, x.dtype) for o in results[:{outputs}]), *(_dense(s, carry) for s in results[{outputs}:])]


@_autocast_off
def _forward(*arguments):
    """Operator `forward`: {result_list}, and a list of what backward needs."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[{main}]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[{main}])
    if steps < x.shape[1]:
        *results, saved = _forward(*_own_rows(tensors, "{kinds}", steps), cu_seqlens, reverse)
        shapes = [y.shape for y in (*_fake_run(*arguments)[:{outputs}], *results[{outputs}:], *_fake_forward(*arguments)[-1])]
        results = [_resized(y, shape) for y, shape in zip([*results, *saved], shapes, strict=True)]
        return *results[:{total}], results[{total}:]
    if 0 in x.shape[:2]:
        return *_run(*arguments), _fake_forward(*arguments)[-1]
    results = form.forward(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    outputs, states, saved = results[:{outputs}], results[{outputs}:{total}], results[{total}:]
    return *(_dense(o, x.dtype) for o in outputs), *(_dense(s, carry) for s in states), list(saved)


@_autocast_off
def _backward(*arguments):
    """Operator `backward`: the gradients of {argument_list}."""
    tensors, (cu_seqlens, reverse, saved) = arguments[:{count}], arguments[{count}:{after}]
    cotangents = arguments[{after}:]
    x = tensors[{main}]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[{main}])
    if steps < x.shape[1]:
        own = _own_rows(tensors, "{kinds}", steps)
        saved = [_resized(s, y.shape) for s, y in zip(saved, _fake_forward(*own, cu_seqlens, reverse)[-1], strict=True)]
        cotangents = _own_rows(cotangents, "{ends}", steps)
        gradients = _backward(*own, cu_seqlens, reverse, saved, *cotangents)
        return [_resized(d, y.shape) for d, y in zip(gradients, tensors, strict=True)]
    if 0 in x.shape[:2]:
        final = zip(tensors[{given}:], cotangents[{outputs}:], strict=True)
        return [*_fake_backward(*tensors)[:{given}], *(_copy(d, s.dtype) for s, d in final)]
    everything = *form.prepare(carry, *tensors), *saved, *form.prepare(carry, *cotangents)
    gradients = form.backward(*everything, cu_seqlens=cu_seqlens, reverse=reverse)
    return [_dense(d, x.dtype) for x, d in zip(tensors, gradients, strict=True)]
'''

_AUTOGRAD = '''
class _Derivative(torch.autograd.Function):
    """{spec} with its gradient; backward is an operator too, so autograd and compilers never look inside."""

    @staticmethod
    def forward(ctx, *arguments):
        *results, saved = _OPS.forward.default(*arguments)
        *given, ctx.reverse = arguments
        ctx.save_for_backward(*given, *saved)
        return tuple(results)

    @staticmethod
    def backward(ctx, *cotangents):
        kept = ctx.saved_tensors
        given, saved = kept[:{given_count}], list(kept[{given_count}:])
        return *_differentiable_backward(*given, ctx.reverse, saved, *cotangents), None, None


class _FirstDerivativeOnly(torch.autograd.Function):
    """The gradient, refusing to be differentiated again."""

    @staticmethod
    def forward(ctx, count, *flat):
        saved = list(flat[{calls} : {calls} + count])
        return tuple(_OPS.backward.default(*flat[:{calls}], saved, *flat[{calls} + count :]))

    @staticmethod
    def backward(ctx, *cotangents):
        raise RuntimeError("{spec}: asked for a second derivative; there are first ones only")


def _needs_gradient(tensors):
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def _differentiable_run(*arguments):
    if _needs_gradient(arguments[:{count}]):
        return list(_Derivative.apply(*arguments))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.run.default(*arguments)


def _differentiable_backward(*arguments):
    given, saved, cotangents = arguments[:{calls}], arguments[{calls}], arguments[{after}:]
    if _needs_gradient([*given[:{count}], *cotangents]):
        return list(_FirstDerivativeOnly.apply(len(saved), *given, *saved, *cotangents))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.backward.default(*arguments)
'''

_REGISTER = '''
def _register():
    """Define the operators in a namespace that no other file or import of this file has; it lives as long as torch."""
    name, tries = "seqc_{spec}_{digest}", 0
    while hasattr(getattr(torch.ops, name), "run"):
        tries += 1
        name = f"seqc_{spec}_{digest}_{{tries}}"
    library = torch.library.Library(name, "DEF")
    arguments = [f"Tensor {{x}}" for x in "{arguments}".split()]
    results = [f"Tensor {{x}}" for x in "{results}".split()]
    cotangents = [f"Tensor d_{{x}}" for x in "{results}".split()]
    once, given = ", ".join(arguments), ", ".join(results)
    taken = f"{{once}}, Tensor? cu_seqlens, bool reverse"
    library.define(f"run({{taken}}) -> " + (f"({{given}})" if len(results) > 1 else "Tensor[]"))
    library.define(f"forward({{taken}}) -> ({{given}}, Tensor[] saved)")
    library.define(f"backward({{taken}}, Tensor[] saved, {{', '.join(cotangents)}}) -> Tensor[]")
    library.define(f"step({{once}}) -> " + (f"({{given}})" if len(results) > 1 else "Tensor[]"))
    fakes = {{"run": _fake_run, "forward": _fake_forward, "backward": _fake_backward, "step": _fake_step}}
    kernels = {{"run": _run, "forward": _forward, "backward": _backward, "step": _step}}
    for operator, kernel in kernels.items():
        library.impl(operator, kernel, "CPU")
        library.impl(operator, kernel, "CUDA")
        torch.library.register_fake(f"{{name}}::{{operator}}", fakes[operator], lib=library)
    library.impl("run", _differentiable_run, "Autograd")
    library.impl("backward", _differentiable_backward, "Autograd")
    library.impl("step", _differentiable_step, "Autograd")
    getattr(torch.ops, name).library = library  # compiled graphs call the operators by name
    return getattr(torch.ops, name)


_OPS = _register()
'''
