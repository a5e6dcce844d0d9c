"""Derivatives at the boundary of an emitted file. In: a signature. Out: the text of the plain form, all of whose derivatives
torch knows, and of the operators' kernels for autograd, which take the derived gradient where a first derivative is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.emit.signature import Signature
from seqc.emit.sizes import main_input
from seqc.emit.text import lay


def plain_text(sig: Signature) -> str:
    """The recurrence as a loop of plain steps: what second derivatives and forward mode are taken of."""
    if sig.no_plain:
        return _NO_PLAIN.format(why=sig.no_plain).strip()
    names = {
        "spec": sig.spec, "inputs": sum(a.timed for a in sig.table), "given": sig.stateless, "outputs": len(sig.outputs),
        "count": len(sig.arguments), "forwards": "reverse" if sig.backwards else "not reverse",
    }  # fmt: skip
    names |= {"timed": "inputs", "shifted": "", "step": "_plain_step(*(x[t] for x in steps), "}
    if not sig.reads:
        return _PLAIN.format(**names).strip()
    main, inputs = sig.arguments.index(main_input(sig)), sum(a.timed for a in sig.table)
    names["one"] = sig.reads.index((main, 0)) if main < inputs else main - inputs + len(sig.reads)
    if any(place == inputs for place, _ in sig.reads):
        names["timed"] = f"(*inputs, tensors[{main}].new_ones(inputs[0].shape[:2]))"
    names |= {"reads": "", "step": "_differentiated_step(*(x[t] for x in steps), "}
    if any(back != 0 for _, back in sig.reads):
        names["reads"] = _READS + lay("_READS = [", [f"({place}, {back})" for place, back in sig.reads], "]")
        several = _AT_WINDOW if any(isinstance(back, range) for _, back in sig.reads) else ""
        names["shifted"] = _AT.format(several=several, **names)
        names["step"] = "_differentiated_step(*(at(t, *read) for read in _READS), "
    return f"{_OWN_STEP.format(**names).strip()}\n\n\n{_PLAIN.format(**names).strip()}"


def batched_arguments(sig: Signature) -> list[bool]:
    """Whether an argument has a batch axis, for each."""
    return [a.batched for a in sig.table]


def autograd_text(sig: Signature, names: Mapping[str, object]) -> str:
    """The autograd kernels of `run`, `forward` and `backward`. names: what the texts of the boundary are filled with."""
    more: dict[str, object] = {"again": str(names["again"]).format(**names), "needed": int(f"{names['given_count']}") + 1}
    more |= _ON_CPUS if on_cpus(sig) else _BY_OPERATORS
    return _AUTOGRAD.format(**{**names, **more, "direct": str(more["direct"]).format(**names)}).strip()


def on_cpus(sig: Signature) -> bool:
    """Whether calls on CPUs that record a gradient go past torch's dispatcher: not in a file for GPUs."""
    return sig.cpu is not None or sig.triton is None


_NO_PLAIN = '''
def _plain(*_):
    raise NotImplementedError("{why}")
'''

_PLAIN = '''
def _plain(*arguments):
    """What `run` gives, by single steps in plain torch operators, all of whose derivatives torch knows."""
    *tensors, cu_seqlens, reverse = arguments
    if cu_seqlens is not None:
        return _plain_pack(tensors, cu_seqlens, reverse)
    if 0 in tensors[0].shape[:2]:
        return [*_fake_run(*arguments)[:{outputs}], *(x.clone() for x in tensors[{given}:])]
    inputs, params, states = tensors[:{inputs}], tensors[{inputs}:{given}], tensors[{given}:]
    steps = [x.unbind(1) for x in {timed}]
    order = range(inputs[0].shape[1])
    order = order if {forwards} else order[::-1]
    rows = {{}}
{shifted}    for t in order:
        results = {step}*params, *states)
        rows[t], states = results[:{outputs}], results[{outputs}:]
    outputs = [torch.stack(column, 1) for column in zip(*(rows[t] for t in sorted(rows)))]
    return [*outputs, *states]


def _plain_pack(tensors, cu_seqlens, reverse):
    """The same of a pack, one sequence after the other."""
    found, bounds = [], cu_seqlens.tolist()
    for i, (start, end) in enumerate(zip(bounds[:-1], bounds[1:])):
        own = [x[:, start:end] for x in tensors[:{inputs}]]
        own += [x[i : i + 1] if _OWN[k] == "B" else x for k, x in enumerate(tensors[{inputs}:], {inputs})]
        found.append(_plain(*own, None, reverse))
    nothing = _fake_run(*tensors, cu_seqlens, reverse)
    if not found:
        return list(nothing)
    behind = [x[:, bounds[-1] :] if k < {outputs} else x[:0] for k, x in enumerate(nothing)]  # the last sequence
    return [torch.cat(parts, int(k < {outputs})) for k, parts in enumerate(zip(*found, behind))]
'''

_READS = '''
# what a step reads: a place among the inputs (behind the last: the ones of steps that exist), and how many steps back
'''

_OWN_STEP = '''
{reads}


@_autocast_off
def _differentiated_step(*tensors):
    """One step in plain torch operators, in the form that torch differentiates."""
    x = tensors[{one}]
    results = _differentiated_step_torch(*_prepare_torch(_carry(x), *tensors))
    return [*(o.to(x.dtype) for o in results[:{outputs}]), *results[{outputs}:]]
'''

_AT = '''
    def at(t, place, back):
{several}        there = t - back if {forwards} else t + back
        return steps[place][there] if 0 <= there < len(steps[0]) else torch.zeros_like(steps[place][t])

'''

_AT_WINDOW = '''        if isinstance(back, range):
            return torch.stack([at(t, place, lag) for lag in back], 1)
'''

_AUTOGRAD = '''
def _at_asked(needs, gradients):
    """Gradients at the places of those that were asked for; None at the others."""
    found = iter(gradients)
    return [next(found) if need else None for need in needs]


class _Derivative(torch.autograd.Function):
    """{spec} with its gradient; backward is an operator too, so autograd and compilers never look inside.

    and_saved: whether what backward needs is a result too.
    """

    @staticmethod
    def forward(ctx, forward, and_saved, *arguments):
        *results, saved = _below(forward, *arguments)
        *given, ctx.reverse = arguments
{mark}        ctx.set_materialize_grads(False)  # a result that a loss does not use has no cotangent, not one of zeros
        ctx.save_for_backward(*given, *saved)
        if not and_saved:
            return tuple(results)
        ctx.mark_non_differentiable(*saved)
        return *results, *saved

    @staticmethod
    def backward(ctx, *cotangents):
        kept = ctx.saved_tensors
        given, saved = kept[:{given_count}], list(kept[{given_count}:])
        needs = {picked}ctx.needs_input_grad[2:{needed}]{picked_end}
        arguments = *given, ctx.reverse, saved, list(needs), *cotangents[:{total}]
{gradients}        return None, None, *{placed}_at_asked(needs, gradients){placed_end}, None, None


class _SecondDerivative(torch.autograd.Function):
    """The gradient; its own gradient is that of the plain form."""

    @staticmethod
    def forward(ctx, count, needs, *flat):
        saved, cotangents = list(flat[{calls} : {calls} + count]), flat[{calls} + count :]
        ctx.reverse, ctx.needs = flat[{given_count}], needs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*flat[:{given_count}], *cotangents)
        return tuple(_below(_OPS.backward.default, *flat[:{calls}], saved, needs, *cotangents))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *weights):
        kept = ctx.saved_tensors
{again}        saved = [None] * (len(ctx.needs_input_grad) - 2 - len(left) - 2)
        return None, None, *left[:{count}], None, None, *saved, *left[{count}:]


def _backward_below(*arguments):
    """The gradients, as a function of what is recorded below: by autograd, or by the next level of torch.func."""
    if any(d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in arguments[{after}:]):
        return _batched_backward(*arguments)
    if torch._C._are_functorch_transforms_active():
        return _OPS.backward.default(*arguments)
    return _differentiable_backward(*arguments)


def _batched_backward(*arguments):
    """The gradients for cotangents of `torch.autograd.grad(is_grads_batched=True)`, one after the other."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    given, dims = list(arguments), [None] * len(arguments)
    for i, d in enumerate(given[{after}:], {after}):
        if d is not None and torch._C._functorch.is_legacy_batchedtensor(d):
            given[i], dims[i] = torch._remove_batch_dim(d, level, 1, 0), 0
    members = given[dims.index(0)].shape[0]
    return [torch._add_batch_dim(x, 0, level) for x in _in_turn(_backward_below, members, dims, given)[0]]


def _pulled(results, cotangents, wrt, create_graph=False):
    """The gradients of the results that have a cotangent; zeros where none of these depends on an argument."""
    used = [(r, d) for r, d in zip(results, cotangents, strict=True) if d is not None and r.requires_grad]
    if not used:
        return [torch.zeros_like(x) for x in wrt]
    ends, weights = zip(*used)
    return torch.autograd.grad(ends, wrt, weights, create_graph=create_graph, materialize_grads=True)


def _needs_gradient(tensors):
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _needs_plain(tensors):
    """Whether the plain form must run: for tangents (forward mode), or for torch.func's derivatives of derivatives."""
    if not torch._C._are_functorch_transforms_active():
        if forward_ad._current_level < 0:
            return False
        return any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors)
    kinds = [level.key().name for level in torch._C._functorch.get_interpreter_stack()]
    return "Jvp" in kinds or kinds.count("Grad") > 1


def _no_tangent():
    what = "a derivative in forward mode of a gradient that is recorded already"
    return NotImplementedError(f"{spec}: {{what}} is not served; take it of the call: torch.func.jvp")


def _applied(derivative, *arguments):
    """`derivative.apply`, inside a level of torch.func too: this is where it differentiates."""
    if not torch._C._are_functorch_transforms_active():
        return derivative.apply(*arguments)
    with torch._functorch.utils.enable_single_level_autograd_function():
        return super(torch.autograd.Function, derivative).apply(*arguments)


def _below(operator, *arguments):
    """The operator without its derivative; inside a level of torch.func the next one may record it again."""
    with torch._C._AutoDispatchBelowAutograd():
        if not torch._C._are_functorch_transforms_active():
            return operator(*arguments)
        with torch.enable_grad():
            return operator(*arguments)


{direct}def _differentiable_run(*arguments):
    tensors = arguments[:{count}]
    if _needs_plain(tensors):
        return _plain(*arguments)
    if _needs_gradient(tensors):
        return list(_applied(_Derivative, _OPS.forward.default, False, *arguments))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.run.default(*arguments)


def _differentiable_forward(*arguments):
    tensors = arguments[:{count}]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        results = _applied(_Derivative, _OPS.forward.default, True, *arguments)
        return *results[:{total}], list(results[{total}:])
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.forward.default(*arguments)


def _differentiable_backward(*arguments):
    given, (saved, needs), cotangents = arguments[:{calls}], arguments[{calls}:{after}], arguments[{after}:]
    tensors = [*given[:{count}], *cotangents]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        return list(_applied(_SecondDerivative, len(saved), needs, *given, *saved, *cotangents))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.backward.default(*arguments)
'''

_DIRECT = '''
def _plain_keys():
    """What dispatches an ordinary tensor of a CPU, made in inference mode or not."""
    keys = torch._C.DispatchKey
    sets = [torch._C.DispatchKeySet(x) for x in (keys.CPU, keys.AutocastCPU, keys.AutogradCPU, keys.ADInplaceOrView)]
    return frozenset(x.raw_repr() for x in (sets[0] | sets[1], sets[0] | sets[1] | sets[2] | sets[3]))


_PLAIN_KEYS, _PLAIN_KINDS = _plain_keys(), frozenset((Tensor, torch.nn.Parameter))


def _unwatched(tensors):
    """Whether torch's dispatcher would do nothing but call the kernel: these are ordinary tensors of a CPU, or None,
    and no mode, transform, trace or profiler looks at operators."""
    ask, tensors = torch._C, [x for x in tensors if x is not None]
    watched = ask._len_torch_dispatch_stack() or ask._len_torch_function_stack() or ask._get_tracing_state()
    watched = watched or ask._are_functorch_transforms_active() or ask._autograd._profiler_enabled()
    if watched or forward_ad._current_level >= 0 or not _PLAIN_KINDS.issuperset(map(type, tensors)):
        return False
    return _PLAIN_KEYS.issuperset(map(torch._C.DispatchKeySet.raw_repr, map(torch._C._dispatch_keys, tensors)))


def _call_run(*arguments):
    """The results of `run` for a caller; past torch's dispatcher where a gradient is recorded and nobody looks."""
    if torch.compiler.is_compiling() or type(arguments[-1]) is not bool or not _needs_gradient(arguments[:{count}]):
        return _call(_OPS.run.default, *arguments)
    if not _unwatched(arguments[:-1]):
        return _call(_OPS.run.default, *arguments)
    return _Derivative.apply(_forward, False, *arguments)


'''

_ON_CPUS = {
    "direct": _DIRECT.lstrip("\n"),
    "mark": "        ctx.direct = forward is _forward\n",
    "gradients": """        past = ctx.direct and not torch.is_grad_enabled() and _unwatched(cotangents)
        gradients = _below(_backward, *arguments) if past else _backward_below(*arguments)
""",
}
_BY_OPERATORS = {"direct": "", "mark": "", "gradients": "        gradients = _backward_below(*arguments)\n"}
