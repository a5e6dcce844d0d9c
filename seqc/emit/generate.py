"""The closed loop of an emitted file: the function that runs it, and the Module's method.

In: a signature with a loop. Out: text.
"""

from __future__ import annotations

from seqc.emit.call import caller
from seqc.emit.signature import Closed, Signature
from seqc.emit.sizes import main_input
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
        f"{fed}: [B, P, ...], the first P steps, 0 of them or more; other inputs have all steps.",
        f"given: [steps] or [B, steps], true at the steps where {fed} is given; it then has all steps, and what stands at the",
        "    others is never read.",
        f"The states are those of `{loop.sig.spec}`, which this function calls: pass them on to go on.",
    ]
    made = [f"{name}={name}" for name in loop.fed]
    arrays = ", ".join([loop.given, *loop.fed.values()])
    call = [f"{a.name}={a.name}" for a in caller(loop.sig)] + (["seed=seed"] if sig.keys else [])
    lines = [
        _head(sig, loop, f"{sig.spec}_generate", True, 0),
        docstring(words, 4),
        lay(f"{arrays} = _prompted(", ["steps", "given", f"{main_input(sig)}.dtype", *made], ")", 4),
        lay(f"return {loop.sig.spec}(", call, ")", 4),
    ]
    return _PROMPTED.format(spec=sig.spec).strip() + "\n\n\n" + "\n".join(lines)


def generate_method(sig: Signature, own: dict[str, str]) -> list[str]:
    """The Module's method. own: names of arguments that the Module holds."""
    loop = sig.loop
    if loop is None:
        return []
    names = [*(a.name for a in caller(sig) if not a.default), *(a.name for a in caller(loop.sig) if a.default)]
    call = [f"{name}={own.get(name, name)}" for name in names]
    call += ["steps=steps", "given=given", *(["seed=seed"] if sig.keys else [])]
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
    own = [] if params else ["self"]
    return lay(f"def {name}(", [*own, *given, "*", *keys], f") -> {loop.sig.class_name}Result:", indent)


_PROMPTED = '''
def _prompted(steps, given, dtype, **prompts):
    """Which steps are given, [B, steps], in the dtype, and the prompts with zeros up to the last step."""
    name, first = next(iter(prompts.items()))
    length = first.shape[1]
    if any(x.shape[:2] != first.shape[:2] for x in prompts.values()):
        shapes = ", ".join(f"{{key}} {{list(x.shape)}}" for key, x in prompts.items())
        raise ValueError(f"{spec}: prompts have one batch and one length: {{shapes}}")
    if length != steps and (length > steps or given is not None):
        why = "has more" if given is None else "has all of them where given= tells which count"
        raise ValueError(f"{spec}: a run of {{steps}} steps, and {{name}} {{why}}: {{list(first.shape)}}")
    if given is None:
        given = torch.arange(steps, device=first.device) < length
    if given.shape not in ((steps,), (first.shape[0], steps)):
        raise ValueError(f"{spec}: given has shape {{list(given.shape)}} for [{{steps}}] or [{{first.shape[0]}}, {{steps}}]")
    given = given.expand(first.shape[0], steps)
    rest = [torch.cat([x, x.new_zeros(x.shape[0], steps - length, *x.shape[2:])], 1) for x in prompts.values()]
    for i, x in enumerate(rest):
        if not x.is_floating_point():  # an index is looked at at every step
            rest[i] = torch.where(given.reshape(*given.shape, *[1] * (x.dim() - 2)) != 0, x, 0)
    return (given.to(dtype), *rest)
'''
