"""Packs and directions at the boundary of an emitted file. In: a signature. Out: the text that checks `cu_seqlens`, and
the text that makes functions of whole batches and one direction serve packs and both.
"""

from __future__ import annotations

from collections.abc import Iterable

from seqc.emit.ends import ends_fields_of_packs
from seqc.emit.moved import moved_fields
from seqc.emit.signature import Signature
from seqc.emit.sizes import clock
from seqc.ir.arguments import Argument


def bounds_text(sig: Signature) -> str:
    """The functions that check `cu_seqlens`, and those that keep the rows behind the last sequence from native code."""
    return _BOUNDS.format(spec=sig.spec).strip() + ("\n\n" + _ROWS_BEHIND.rstrip() if _needs_own_rows(sig) else "")


def _needs_own_rows(sig: Signature) -> bool:
    """Whether a form takes a pack as one row and leaves what it likes behind the last sequence: native code does."""
    return any(kernels.packs for suffix, kernels in sig.backends.items() if suffix != "triton")


def rows_behind(sig: Signature) -> dict[str, str]:
    """What the operators do where the row of a pack is longer than its sequences. Plain torch takes what each sequence has, and
    kernels of a GPU leave zeros behind the last one; there the bounds are checked alone."""
    steps = f"_steps(cu_seqlens, tensors[{sig.arguments.index(clock(sig))}])"
    if not _needs_own_rows(sig):
        checked = f"    {steps}  # raises where they are no bounds\n"
        return {"checks": checked, **dict.fromkeys(("name_steps", "steps", *_OWN), "")}
    return {"checks": "", "name_steps": ", steps", "steps": f", {steps}", **_OWN}


def sequences_text(sig: Signature) -> str:
    """The functions that run the sequences of a pack one by one, if a form of the file needs them."""
    if all(kernels.packs for kernels in sig.backends.values()):
        return ""
    gradients = "_ARGUMENTS" if sig.all_gradients else "_GRADIENTS"
    line = "" if sig.all_gradients else f'_GRADIENTS = "{_kinds(a for a in sig.table if a.gradient)}"\n'
    names = {
        **moved_fields(sig),
        "gradients": gradients,
        "line": line,
        "zeros": "[torch.zeros_like(x) for x in {picked}tensors{picked_end}[:{before}]]".format(**moved_fields(sig)),
        "arguments": _kinds(sig.table),
        "results": "T" * len(sig.outputs) + "B" * len(sig.states),
        "count": len(sig.arguments),
        "given": sig.stateless,
        "outputs": len(sig.outputs),
        "total": len(sig.results),
    }
    return _ONE_BY_ONE.format(**names, **ends_fields_of_packs(sig)).strip()


def _kinds(rows: Iterable[Argument]) -> str:
    return "".join("T" if a.timed else "B" if a.batched else "-" for a in rows)


def shifted_text(name: str) -> str:
    """The function that adds gradients of an input that was read at another step. name: what a backend calls it."""
    return _SHIFTED.replace("NAME", name).strip()


_SHIFTED = '''
def NAME(total, part, by, cu_seqlens):
    """total[:, t] += part[:, t + by] for all t whose t + by is a step of the same sequence."""
    size = total.shape[1] - abs(by)
    if size <= 0:
        return
    here, there = (slice(0, size), slice(by, None)) if by > 0 else (slice(-by, None), slice(0, size))
    moved = part[:, there]
    if cu_seqlens is not None:
        steps = torch.arange(total.shape[1], dtype=cu_seqlens.dtype, device=total.device)
        own = torch.searchsorted(cu_seqlens, steps, right=True)
        same = (own[here] == own[there]).view(-1, *[1] * (total.dim() - 2))
        moved = torch.where(same, moved, 0.0)
    total[:, here] += moved
'''

_BOUNDS = '''
CHECK_BOUNDS = False  # whether the bounds of packs on a GPU are read and checked too: a call then waits for it


def _sequences(cu_seqlens, x):
    """The number of sequences of the pack x [1, T, ...]; an error where `cu_seqlens` cannot be its bounds."""
    if not isinstance(cu_seqlens, torch.Tensor):
        kind = type(cu_seqlens).__name__
        raise TypeError(f"{spec}: cu_seqlens is a {{kind}}; it is a tensor: torch.tensor({{cu_seqlens}})")
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{spec}: cu_seqlens is {{cu_seqlens.dtype}}; it is torch.int32 or torch.int64")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] == 0:
        shape = list(cu_seqlens.shape)
        raise ValueError(f"{spec}: cu_seqlens has shape {{shape}}; for N sequences it is [N + 1]: their bounds")
    if cu_seqlens.device != x.device:
        raise ValueError(f"{spec}: cu_seqlens is on {{cu_seqlens.device}}, the inputs are on {{x.device}}")
    if x.shape[0] != 1:
        why = "with cu_seqlens the sequences stand one after the other in one row"
        raise ValueError(f"{spec}: the inputs have B = {{x.shape[0]}}; {{why}}: [1, T, ...]")
    return cu_seqlens.shape[0] - 1


def _steps(cu_seqlens, x):
    """How many steps of the row T the sequences of a pack have; ValueError where its bounds are wrong.

    The bounds of a GPU are not read, for it would have to be waited for: there the answer is T, and kernels leave zeros
    behind the last sequence.
    """
    steps = x.shape[1]
    if cu_seqlens is None or (cu_seqlens.device.type != "cpu" and not CHECK_BOUNDS):
        return steps
    bounds = cu_seqlens.tolist()
    if bounds[0] != 0 or bounds[-1] > steps or bounds != sorted(bounds):
        want = f"it begins with 0, never decreases, and ends with T = {{steps}} or less"
        raise ValueError(f"{spec}: cu_seqlens is {{cu_seqlens}}; {{want}}")
    return bounds[-1]
'''

_ROWS_BEHIND = '''
def _resized(x, shape):
    """x cut to a shape, or with zeros up to it."""
    part = x[tuple(map(slice, shape))]
    if part.shape == torch.Size(shape):
        return part.contiguous()
    whole = x.new_zeros(shape)
    whole[tuple(map(slice, part.shape))] = part
    return whole


def _own_rows(tensors, kinds, steps):
    """The tensors, those with steps ("T" in kinds) without the rows behind the last sequence of a pack."""
    cut = [x is not None and kind == "T" for x, kind in zip(tensors, kinds)]
    return [x[:, :steps].contiguous() if own else x for x, own in zip(tensors, cut)]
'''

_ONE_BY_ONE = '''
# T: an entry per step; B: one per sequence; -: neither
_ARGUMENTS = "{arguments}"
{line}_RESULTS = "{results}"


def _turned(tensors, kinds, reverse):
    """The tensors, those with steps from the last to the first where `reverse`."""
    return [x.flip(1) if reverse and kind == "T" and x is not None else x for x, kind in zip(tensors, kinds)]


def _parts(tensors, kinds, i, steps):
    """What sequence i of a pack has of the tensors, as views."""
    views = {{"T": lambda x: x[:, steps], "B": lambda x: x[i : i + 1], "-": lambda x: x}}
    return [{view} for x, kind in zip(tensors, kinds)]


def _copies(tensors, kinds, part, reverse):
    """Sequence `part` of a pack, in memory of its own: a BLAS may round by the address at which an array begins."""
    own = zip(_parts(tensors, kinds, *part), kinds)
    return _turned([x if {shared} else x.clone() for x, kind in own], kinds, reverse)


def _each(cu_seqlens):
    """The sequences of a pack that have steps, as (index, slice). Reads the bounds: of a GPU's, it waits for them."""
    bounds = cu_seqlens.tolist()
    steps = map(slice, bounds[:-1], bounds[1:])
    return [(i, own) for i, own in enumerate(steps) if own.start < own.stop]


def _one_by_one(infer, forward, backward):
    """(infer, forward, backward) that take packs and `reverse`, of functions of whole batches that run forward.

    The sequences of a pack run one after the other. It saves nothing: backward runs them again.
    """

    def run(function, saves):
        def call(*tensors, cu_seqlens, reverse):
            if cu_seqlens is None:
                results = function(*_turned(tensors, _ARGUMENTS, reverse))
                return [*_turned(results, _RESULTS, reverse), *(results[{total}:] if saves else ())]
            results = [*_fake_run(*tensors, cu_seqlens, reverse)[:{outputs}], *(s.clone() for s in tensors[{given}:])]
            for part in _each(cu_seqlens):
                found = function(*_copies(tensors, _ARGUMENTS, part, reverse))
                for whole, own in zip(_parts(results, _RESULTS, *part), _turned(found, _RESULTS, reverse)):
                    whole.copy_(own)
            return results

        return call

    def run_back(*everything, cu_seqlens, reverse, needs):
        tensors, saved, cotangents = everything[:{count}], everything[{count}:-{total}], everything[-{total}:]
        if cu_seqlens is None:
            turned = _turned(tensors, _ARGUMENTS, reverse), _turned(cotangents, _RESULTS, reverse)
            return _turned(backward(*turned[0], *saved, *turned[1], needs=needs), {gradients}, reverse)
        gradients = {zeros}{starts}
        for part in _each(cu_seqlens):
            own = _copies(tensors, _ARGUMENTS, part, reverse)
            ends = _copies(cotangents, _RESULTS, part, reverse)
            found = _turned(backward(*own, *forward(*own)[{total}:], *ends, needs=needs), {gradients}, reverse)
            for whole, x, kind in zip(_parts(gradients, {gradients}, *part), found, {gradients}):
                if x is not None:
                    whole.add_(x) if kind == "-" else whole.copy_(x)
        return gradients

    return run(infer, False), run(forward, True), run_back
'''

_OWN = {
    "run_own": """    if steps < x.shape[1]:
        results = _run(*_own_rows(tensors, "{kinds}", steps), cu_seqlens, reverse)
        return [*(_resized(o, (1, x.shape[1], *o.shape[2:])) for o in results[:{outputs}]), *results[{outputs}:]]
""",
    "forward_own": """    if steps < x.shape[1]:
        *results, saved = _forward(*_own_rows(tensors, "{kinds}", steps), cu_seqlens, reverse)
        shapes = [y.shape for y in (*_fake_run(*arguments)[:{outputs}], *results[{outputs}:], *_fake_forward(*arguments)[-1])]
        results = [_resized(y, shape) for y, shape in zip([*results, *saved], shapes, strict=True)]
        return *results[:{total}], results[{total}:]
""",
    "back_own": """    if steps < x.shape[1]:
        own = _own_rows(tensors, "{kinds}", steps)
        saved = [_resized(s, y.shape) for s, y in zip(saved, _fake_forward(*own, cu_seqlens, reverse)[-1], strict=True)]
        cotangents = _own_rows(cotangents, "{ends}", steps)
        gradients = _backward(*own, cu_seqlens, reverse, saved, needs, *cotangents)
        return [_resized(d, y.shape) for d, y in zip(gradients, _asked(needs, {picked}tensors{picked_end}), strict=True)]
""",
}
