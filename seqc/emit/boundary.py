"""The torch operators of an emitted file. In: a signature. Out: the text between the kernels and the public function.

That is: the forms of the recurrence and the choice among them; the operators `run`, `forward` (which also saves),
`backward` and `step`, their shapes for tracing and their derivatives. The operators stand in a namespace of the file's own, so
that several files, versions of a file and imports of one file live in one process without meeting.
"""

from __future__ import annotations

from seqc.emit.derivatives import autograd_text, plain_text
from seqc.emit.ends import ends_fields
from seqc.emit.moved import moved_fields, moved_text
from seqc.emit.packs import bounds_text, rows_behind, sequences_text
from seqc.emit.places import bound, places_text, prepared
from seqc.emit.register import register_text
from seqc.emit.signature import Kernels, Signature
from seqc.emit.sizes import clock, dims, extent, layout_text, layouts, main_input, sizes_text, tellers
from seqc.emit.step import step_operator
from seqc.emit.text import group, lay, returned
from seqc.emit.transforms import transforms_text
from seqc.ir.dims import unprimed

DIGEST = "DIGEST_HERE_"  # stands in the text for the digest of the text; as long as it, and like nothing else there


def forms_text(sig: Signature) -> str:
    """The forms of the recurrence that the file holds, and the one function that chooses among them."""
    parts = [_FORM.format(**prepared(sig)), sequences_text(sig)]
    for suffix, kernels in sig.backends.items():
        parts.append(_saved_text(sig, suffix, kernels))
        if kernels.packs and not kernels.infer:
            parts.append(_INFER.format(suffix=suffix, count=len(sig.results)))
    if sig.triton:
        parts.append(_PREPARE_TRITON)
    forms = []
    for suffix in sig.backends:
        prepare = "_prepare_triton" if suffix == "triton" else "_prepare_torch"
        kernels = sig.backends[suffix]
        infer = "infer" if kernels.infer or kernels.packs else "forward"
        three = [f"_{part}_{suffix}" for part in (infer, "forward", "backward")]
        three = three if kernels.packs else [f"*_one_by_one({', '.join(three)})"]
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
    kernels = '*tensors, kernels=("forward", "backward")' if sig.cpu else "*tensors"
    lines = [
        f"def _form({kernels}):",
        '    """The form that runs on some arguments, of a sequence or of one step: the one place where it is chosen."""',
    ]
    if sig.triton or sig.cpu:
        lines.append(f"    x = tensors[{sig.arguments.index(main_input(sig))}]")
    if sig.triton:
        test = 'x.device.type == "cuda"' + ("" if sig.triton.float64 else " and x.dtype != torch.float64")
        if sig.triton.limited:
            test += f" and _ready_triton({', '.join(['x', *(extent(sig, d, 'x') for d in sig.triton.limited)])})"
        lines += [f"    if {test}:", "        return _TRITON"]
    if sig.cpu:
        lines += ['    if x.device.type == "cpu" and _ready_cpu(*tensors, kernels):', "        return _CPU"]
    lines.append("    return _TORCH")
    if sig.triton and sig.triton.limited:
        lines += [
            "",
            "",
            f"def {form_alone(sig)}({kernels}):",
            '    """The form where no gradient follows: kernels of forward may fit where those of backward do not."""',
            f"    x = tensors[{sig.arguments.index(main_input(sig))}]",
            f"    if {test.removesuffix(')')}, alone=True):",
            "        return _TRITON",
            f"    return _form(*tensors{', kernels=kernels' if sig.cpu else ''})",
        ]
    return "\n".join(lines)


def form_alone(sig: Signature) -> str:
    """What chooses the form where no gradient follows."""
    return "_form_alone" if sig.triton and sig.triton.limited else "_form"


def chosen_alone(sig: Signature, kernels: str) -> str:
    """The call that chooses it for the arguments `tensors`. kernels: those of native code that run."""
    asked = f', kernels=("{kernels}",)' if sig.cpu else ""
    return f"{form_alone(sig)}(*tensors{asked})"


def _tellers(sig: Signature) -> str:
    """Those of `arguments` that tell sizes: the first ones, unless an input may be left out."""
    places = [at for at, a in enumerate(sig.table) if not a.default]
    if places == list(range(len(places))):
        return f"*arguments[:{len(places)}]"
    return f"*(arguments[i] for i in {group(list(map(str, places)))})"


def operators_text(sig: Signature) -> str:
    """The operators: their code for real tensors, for tracing, and for autograd; and their registration."""
    main = main_input(sig)
    axes = layouts(sig)
    shapes = [f"{main}.new_zeros({group([f'*{clock(sig)}.shape[:2]', *map(unprimed, o.dims)])})" for o in sig.outputs]
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
        "given": sig.stateless,
        "tellers": _tellers(sig),
        "clock": sig.arguments.index(clock(sig)),
        "like": "x" if main == clock(sig) else "like",
        "bind": bound(sig),
        "checked": "    _check_places(tensors)\n" if any(a.whole for a in sig.table) else "",
        **moved_fields(sig),
        "count": len(sig.arguments),
        "given_count": len(sig.arguments) + 1,
        "calls": len(sig.arguments) + 2,
        "needs": len(sig.arguments) + 3,
        "after": len(sig.arguments) + 4,
        "argument_list": ", ".join(sig.arguments),
        "result_list": ", ".join(sig.results),
        "outputs": len(sig.outputs),
        "total": len(sig.results),
        "alone": chosen_alone(sig, "forward"),
        "kinds": "".join("T" if a.timed else "-" for a in sig.table),
        "ends": "T" * len(sig.outputs) + "-" * len(sig.states),
        "watched": group([*map(str, range(len(sig.outputs))), *(str(sig.results.index(f"{x}_T")) for x in sig.unread)]),
    }
    names |= {key: text.format(**names) for key, text in rows_behind(sig).items()}
    parts = [
        layout_text(sig),
        bounds_text(sig),
        sizes_text(sig),
        sizes_text(sig, time=False),
        _DTYPES,
        *filter(None, [moved_text(sig), places_text(sig)]),
        _ON_DEVICE if sig.triton else _NO_DEVICE,
        "\n".join(fake_run),
        _OPERATORS.format(**names),
        *([] if sig.no_plain else [_WATCHED.format(**names)]),
        _BACKWARD.format(**names, **ends_fields(sig), watch="" if sig.no_plain else _WATCH),
        step_operator(sig, chosen_alone(sig, "step")),
        plain_text(sig),
        autograd_text(sig, names),
        transforms_text(sig, names),
        register_text(sig, names),
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
    """Contiguous, in the carried dtype{told}."""
    return [{each} for x in tensors]
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
# kinds of devices that have autocast: asking another one for it is an error
_AUTOCAST = frozenset(filter(torch.amp.is_autocast_available, "cpu cuda hpu mps mtia xla xpu".split()))


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
        if device not in _AUTOCAST or not torch.is_autocast_enabled(device):
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
        if device.type not in _AUTOCAST or not torch.is_autocast_enabled(device.type):
            return function(*tensors)
        with torch.autocast(device.type, enabled=False):
            return function(*tensors)

    return call
'''

_OPERATORS = '''
def _fake_forward(*arguments):
    """What `forward` returns, all zeros."""
    x, cu_seqlens, form = arguments[{main}], arguments[{count}], _form(*arguments[:{count}])
    saved = form.saved(cu_seqlens is not None, *_sizes({tellers}, cu_seqlens), x.dtype, _carry(x))
    return *_fake_run(*arguments), [x.new_zeros(shape, dtype=dtype) for shape, dtype in saved]


def _asked(needs, values):
    """Those of the values, one for each gradient, whose gradient is asked for."""
    return [x for need, x in zip(needs, values, strict=True) if need]


def _fake_backward(*arguments):
    """What `backward` returns, all zeros."""
    return [x.new_zeros(x.shape) for x in _asked(arguments[{needs}], {picked}arguments[:{count}]{picked_end})]


@_autocast_off
def _run(*arguments):
    """Operator `run`: {result_list}."""
    *tensors, cu_seqlens, reverse = arguments
{bind}{checks}    form, carry{name_steps} = {alone}, _carry({like}){steps}
{run_own}{checked}    if 0 in x.shape[:2]:
        return [*_fake_run(*arguments)[:{outputs}], *(_copy(s, carry) for s in tensors[{given}:])]
    results = form.infer(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    return [*(_dense(o, {like}.dtype) for o in results[:{outputs}]), *(_dense(s, carry) for s in results[{outputs}:])]


@_autocast_off
def _forward(*arguments):
    """Operator `forward`: {result_list}, and a list of what backward needs."""
    *tensors, cu_seqlens, reverse = arguments
{bind}{checks}    form, carry{name_steps} = _form(*tensors), _carry({like}){steps}
{forward_own}{checked}    if 0 in x.shape[:2]:
        return *_run(*arguments), _fake_forward(*arguments)[-1]
    results = form.forward(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    outputs, states, saved = results[:{outputs}], results[{outputs}:{total}], results[{total}:]
    return *(_dense(o, {like}.dtype) for o in outputs), *(_dense(s, carry) for s in states), list(saved)
'''

_WATCHED = '''
_WATCHED = {watched}  # results without which a part of the recurrence has no cotangent


def _spoilt(gradients, cotangents):
    """Whether zero times infinity may have spoilt the gradients. A GPU is waited for, unless its work is recorded."""
    if not gradients or not any(cotangents[i] is None for i in _WATCHED):
        return False
    if gradients[0].device.type == "cpu":
        return not all(math.isfinite(d.sum()) for d in gradients)
    if gradients[0].device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return False
    return not torch.stack([d.isfinite().all() for d in gradients]).all()


def _apart(tensors, cu_seqlens, reverse, needs, cotangents):
    """The gradients by single steps, whose autograd leaves out what no cotangent reaches."""
    differentiable = torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False)
    with differentiable, torch.enable_grad():
        tensors = [x.detach(){asking} for x in tensors]
{asked}        return _pulled(_plain(*tensors, cu_seqlens, reverse), cotangents, _asked(needs, {wrt}))
'''

_WATCH = """    if _spoilt(gradients, cotangents):
        gradients = _apart(tensors, cu_seqlens, reverse, needs, cotangents)
"""

_BACKWARD = '''
def _filled(cotangents, carry, *arguments):
    """The cotangents, with zeros for those that are not there{told}."""
    outputs, states = cotangents[:{outputs}], cotangents[{outputs}:]
    if any(d is None for d in outputs):
        outputs = [z if d is None else d for d, z in zip(outputs, _fake_run(*arguments))]
    starts = zip(states, arguments[{given}:{count}], strict=True)
{filled}


@_autocast_off
def _backward(*arguments):
    """Operator `backward`: of the gradients of {argument_list} those that are asked for.

    needs: which are, for each; a cotangent that is not there is zero.
    """
    tensors, (cu_seqlens, reverse, saved, needs) = arguments[:{count}], arguments[{count}:{after}]
    cotangents = whole = arguments[{after}:]
{bind}{checks}    form, carry{name_steps} = _form(*tensors), _carry({like}){steps}
{back_own}    if any(d is None for d in cotangents):
        whole = _filled(cotangents, carry, *arguments[:{calls}])
    if 0 in x.shape[:2]:
        final = zip(tensors[{given}:], whole[{outputs}:], strict=True)
        gradients = [torch.zeros_like(x) for x in {picked}tensors{picked_end}[:{before}]]
        return _asked(needs, [*gradients, *({end} for s, d in final)])
    everything = *form.prepare(carry, *tensors), *saved, *{handed}
    gradients = _asked(needs, form.backward(*everything, cu_seqlens=cu_seqlens, reverse=reverse, needs=needs))
{watch}    return [_dense(d, x.dtype) for x, d in zip(_asked(needs, {picked}tensors{picked_end}), gradients, strict=True)]
'''
