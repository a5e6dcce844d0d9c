"""The operator for one step. In: a signature. Out: the text of its kernel, its shapes for tracing and its derivative.

A step takes and gives what `run` does, without the time axis. Where no gradient is asked for it is one opaque call of
the form that the device chooses; otherwise it is a run of one step, and has the gradient of it.
"""

from __future__ import annotations

from seqc.emit.moved import moved_fields
from seqc.emit.places import bound
from seqc.emit.signature import Signature
from seqc.emit.sizes import clock, dims, layouts, main_input, tellers
from seqc.emit.text import group, lay, returned
from seqc.ir.dims import unprimed


def step_operator(sig: Signature, form: str) -> str:
    """The kernel, the fake and the autograd kernel of the operator `step`. form: the call that chooses it."""
    main, axes = main_input(sig), layouts(sig)
    shapes = [f"{main}.new_empty({group(['B', *map(unprimed, o.dims)])})" for o in sig.outputs]
    shapes += [f"{main}.new_empty({group(list(axes[name]))}, dtype=_carry({main}))" for name in sig.initial]
    fake = [
        lay("def _fake_step(", list(sig.arguments), "):"),
        '    """What `step` returns: for tracing, and for no sequences."""',
        lay(f"{', '.join(dims(sig, False))} = _step_sizes(", list(tellers(sig)), ")", 4),
        returned(shapes, 4),
    ]
    names: dict[str, object] = {"main": sig.arguments.index(main), "results": ", ".join(sig.results)}
    names |= {"inputs": sum(a.timed for a in sig.table), "outputs": len(sig.outputs), "count": len(sig.table), "form": form}
    names |= moved_fields(sig) | {"bind": bound(sig), "like": "x" if main == clock(sig) else "like"}
    names["plain"] = "_differentiated_step" if sig.reads else "_plain_step"
    names["checked"] = "    _check_places(tensors)\n" if any(a.whole for a in sig.table) else ""
    names["writes"] = ", ".join(f"_{suffix.upper()}: _write_{suffix}" for suffix in sig.backends)
    one = _NO_STEP if sig.no_step else _ONE_STEP
    parts = ["\n".join(fake), _STEP.format(**names), one.format(**names), *([_WRITING.format(**names)] if sig.writes else [])]
    return "\n\n\n".join(part.strip() for part in parts)


_STEP = '''
@_autocast_off
def _step(*tensors):
    """Operator `step`: {results}."""
{bind}    if x.shape[0] == 0:
        return [*_fake_step(*tensors)]
{checked}    form, carry = {form}, _carry({like})
    if form is _TORCH:
        results = _unshared(tensors, _plain_step(*tensors))
    else:
        results = form.step(*form.prepare(carry, *tensors))
    return [*(_dense(o, {like}.dtype) for o in results[:{outputs}]), *(_dense(s, carry) for s in results[{outputs}:])]


def _unshared(tensors, results):
    """The results, copied where one shares memory with an argument or with another result."""
    taken, out = {{x.untyped_storage().data_ptr() for x in tensors}}, []
    for x in results:
        place = x.untyped_storage().data_ptr()
        out.append(x.clone() if place in taken else x)
        taken.add(place)
    return out


@_autocast_off
def _plain_step(*tensors):
    """One step in plain torch operators."""
    x = tensors[{main}]
    results = _step_torch(*_prepare_torch(_carry(x), *tensors))
    return [*(o.to(x.dtype) for o in results[:{outputs}]), *results[{outputs}:]]
'''

_ONE_STEP = '''
def _differentiable_step(*tensors):
    """The results of one step; their gradient is that of a run of one step."""
    if _needs_plain(tensors):
        return {plain}(*tensors)
    if _needs_gradient(tensors):
        run = [*(x[:, None] for x in tensors[:{inputs}]), *tensors[{inputs}:], None, False]
        results = _applied(_Derivative, _OPS.forward.default, False, *run)
        return [*(o[:, 0].clone() for o in results[:{outputs}]), *results[{outputs}:]]  # an operator gives no view
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.step.default(*tensors)
'''

_WRITING = '''
_WRITES = {{{writes}}}


@_autocast_off
def _step_in_place(*tensors):
    """One step that writes rows into the tables that it is given; None where it must be an operator."""
    if torch.compiler.is_compiling() or _needs_gradient(tensors) or _needs_plain(tensors):
        return None
    if torch._C._are_functorch_transforms_active() or tensors[{main}].shape[0] == 0:
        return None
{bind}{checked}    form, carry = {form}, _carry({like})
    with torch._C._AutoDispatchBelowAutograd():
        results = _WRITES[form](*form.prepare(carry, *tensors))
    return [*(_dense(o, {like}.dtype) for o in results[:{outputs}]), *results[{outputs}:]]
'''

_NO_STEP = '''
def _differentiable_step(*tensors):
    return _plain_step(*tensors)
'''
