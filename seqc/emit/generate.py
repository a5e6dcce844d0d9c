"""The closed loop of an emitted file: the function that runs it, and the Module's method.

In: a signature with a loop. Out: text.
"""

from __future__ import annotations

from seqc.emit.call import caller
from seqc.emit.signature import Closed, Signature
from seqc.emit.sizes import layouts, main_input
from seqc.emit.text import docstring, lay


def generate_text(sig: Signature) -> str:
    """The function, and what makes prompts as long as the run."""
    loop = sig.loop
    assert loop is not None
    fed = ", ".join(loop.fed)
    words = [
        f"Run {sig.spec} as a closed loop: over what is given of {fed}, then over what it makes itself.",
        "",
        "steps: of the whole run, with those of the prompt; outputs are [B, steps, ...].",
        f"{fed}: [B, P, ...], the P steps that the run begins with, 0 of them or more; other inputs have all steps.",
        f"given: [steps] or [B, steps], true at the steps where {fed} is given; it then has all steps, and what stands at the",
        "    others is never read.",
        "cu_seqlens, reverse, axis: as of a call; steps are those of the row, and a run from the last step back begins with",
        "    the last ones. cu_prompts: of a pack, the bounds of prompts that stand one after the other, [1, P, ...].",
        f"The states are those of `{loop.sig.spec}`, which this function calls: pass them on to go on.",
    ]
    made = [f"{name}={name}" for name in loop.fed]
    arrays = ", ".join([loop.given, *loop.fed.values()])
    back = "not reverse" if sig.backwards else "reverse"
    ways = ["steps", "given", "cu_seqlens", "cu_prompts", back, "axis", f"{main_input(sig)}.dtype"]
    call = [f"{a.name}={a.name}" for a in caller(loop.sig)] + (["seed=seed"] if sig.keys else [])
    lines = [
        _head(sig, loop, f"{sig.spec}_generate", True, 0),
        docstring(words, 4),
        lay(f"{arrays} = _prompted(", [*ways, *made], ")", 4),
        lay(f"return {loop.sig.spec}(", [*call, "cu_seqlens=cu_seqlens", "reverse=reverse", "axis=axis"], ")", 4),
    ]
    axes = layouts(loop.sig)
    ranks = ", ".join(f'"{name}": {len(axes[own]) - 2}' for name, own in loop.fed.items())
    prompted = _PROMPTED.format(spec=sig.spec, ranks=f"{{{ranks}}}", own=len(axes[loop.given]) - 2).strip()
    return prompted + "\n\n\n" + "\n".join(lines)


def generate_method(sig: Signature, own: dict[str, str]) -> list[str]:
    """The Module's method. own: names of arguments that the Module holds."""
    loop = sig.loop
    if loop is None:
        return []
    names = [*(a.name for a in caller(sig) if not a.default), *(a.name for a in caller(loop.sig) if a.default)]
    call = [f"{name}={own.get(name, name)}" for name in names]
    call += [f"{name}={name}" for name in ("steps", "given", "cu_seqlens", "cu_prompts", "reverse")]
    call += ["axis=self.axis if axis is None else axis", *(["seed=seed"] if sig.keys else [])]
    return [
        "",
        _head(sig, loop, "generate", False, 4),
        f'        """The closed loop; see `{sig.spec}_generate`."""',
        lay(f"return {sig.spec}_generate(", call, ")", 8),
    ]


def _head(sig: Signature, loop: Closed, name: str, params: bool, indent: int) -> str:
    table = [a for a in caller(sig) if not a.default and (params or a.batched)]
    given = [f"{a.name}: Tensor" for a in table]
    keys = ["steps: int", "given: Tensor | None = None"]
    keys += [f"{a.name}: Tensor | None = None" for a in caller(loop.sig) if a.default and (params or a.batched)]
    keys += ["seed: int | Tensor | None = None"] if sig.keys else []
    keys += ["cu_seqlens: Tensor | None = None", "cu_prompts: Tensor | None = None", "reverse: bool = False"]
    keys += ["axis: int | None = None"]
    own = [] if params else ["self"]
    return lay(f"def {name}(", [*own, *given, "*", *keys], f") -> {loop.sig.class_name}Result:", indent)


_PROMPTED = '''
_FED = {ranks}  # of what is fed back: the axes behind those of the batch and the steps


def _prompted(steps, given, cu_seqlens, cu_prompts, back, axis, dtype, **prompts):
    """Which steps are given, in the dtype, and the prompts with zeros at all others. back: whether runs begin at the end."""
    name, first = next(iter(prompts.items()))
    lead, axis = first.shape[: first.dim() - _FED[name]], 1 if axis is None else axis
    if any(x.shape[: x.dim() - _FED[key]] != lead for key, x in prompts.items()):
        shapes = ", ".join(f"{{key}} {{list(x.shape)}}" for key, x in prompts.items())
        raise ValueError(f"{spec}: prompts have one batch and one length: {{shapes}}")
    if not -len(lead) <= axis < len(lead):
        raise ValueError(f"{spec}: axis is {{axis}}; {{name}} has {{len(lead)}} axes before its dims: {{list(first.shape)}}")
    axis %= len(lead)
    length, device = lead[axis], first.device
    shape = (*lead[:axis], steps, *lead[axis + 1 :], *first.shape[len(lead) : len(lead) + {own}])
    if cu_prompts is not None:
        at = _prompt_rows(steps, given, cu_seqlens, cu_prompts, back, axis, length)
        rest = [x.new_zeros(1, steps + 1, *x.shape[2:]).index_copy(1, at, x)[:, :steps] for x in prompts.values()]
        given = torch.zeros(steps + 1, device=device).index_fill(0, at, 1.0)[:steps]
    elif length != steps and (length > steps or given is not None or cu_seqlens is not None):
        why = "has all of them where given= tells which count" if given is not None else "has all of them beside cu_seqlens="
        why = "has more" if length > steps else why
        raise ValueError(f"{spec}: a run of {{steps}} steps, and {{name}} {{why}}: {{list(first.shape)}}")
    else:
        zeros = [x.new_zeros(*lead[:axis], steps - length, *x.shape[axis + 1 :]) for x in prompts.values()]
        rest = [torch.cat([z, x] if back else [x, z], axis) for z, x in zip(zeros, prompts.values())]
    if given is None:
        at = torch.arange(steps, device=device)
        given = at >= steps - length if back else at < length
    if given.shape not in ((steps,), shape):
        raise ValueError(f"{spec}: given has shape {{list(given.shape)}} for [{{steps}}] or {{list(shape)}}")
    given = given.reshape(-1, *[1] * (len(shape) - axis - 1)) if given.dim() == 1 else given
    given = given.expand(shape)
    for i, x in enumerate(rest):
        if not x.is_floating_point():  # an index is looked at at every step
            rest[i] = torch.where(given.reshape(*given.shape, *[1] * (x.dim() - given.dim())) != 0, x, 0)
    return (given.to(dtype), *rest)


def _prompt_rows(steps, given, cu_seqlens, cu_prompts, back, axis, length):
    """The step of the row at which each row of a pack of prompts belongs; `steps` for those that belong nowhere."""
    if cu_seqlens is None or given is not None or axis != 1 or cu_prompts.shape != cu_seqlens.shape:
        why = "they tell what is given of each of its sequences, and take no given= and no axis="
        raise ValueError(f"{spec}: cu_prompts are bounds in a pack, as many as cu_seqlens; {{why}}")
    own, runs = cu_prompts.diff(), cu_seqlens.diff()
    if (cu_prompts.device.type == "cpu" or CHECK_BOUNDS) and len(own):
        bounds = cu_prompts.tolist()
        if bounds[0] != 0 or bounds[-1] > length or bounds != sorted(bounds) or bool((own > runs).any()):
            want = f"it begins with 0, never decreases, ends with {{length}} or less, and no prompt is longer than its run"
            raise ValueError(f"{spec}: cu_prompts is {{cu_prompts}} beside cu_seqlens {{cu_seqlens}}; {{want}}")
    begin = cu_seqlens[1:] - own if back else cu_seqlens[:-1]
    begin = torch.nn.functional.pad(torch.where(own <= runs, begin, steps), (0, 1), value=steps)  # what follows the last prompt
    at = torch.arange(length, device=cu_prompts.device, dtype=cu_prompts.dtype)
    i = torch.searchsorted(cu_prompts, at, right=True) - 1
    return (begin[i] + at - cu_prompts[i]).clamp(max=steps).long()
'''
