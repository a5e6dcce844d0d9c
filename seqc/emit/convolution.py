"""A linear time-invariant recurrence as a convolution, in an emitted file.

    y = K * u + R h_0,    h_T = sum_t S_{T-1-t} u_t + P h_0

In: a signature with a `System`. Out: text. What one step makes of unit states, and of impulses, is asked of the recurrence
itself, so that no formula of a family is needed: diagonal, low rank, dense and companion transitions alike. Powers of the
transition come by doubling: of n steps, those of 2 n are made by one product. Steps are cut into blocks: outputs read the
states of one block, and those so many blocks later, by maps that the powers of whole blocks give. So no state of every step is
made: the kernel K and the last states take log T products and the states of about sqrt(T) steps, and the convolution is a
product of real FFTs. Everything is differentiated by torch, and by the recurrence's derived gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from seqc.emit.call import caller
from seqc.emit.convolution_texts import CONVOLVED, PAYS, SIDES
from seqc.emit.names import past_locals
from seqc.emit.signature import Signature
from seqc.emit.sizes import clock
from seqc.emit.text import docstring, group, lay
from seqc.ir.dims import unprimed


def text(sig: Signature) -> str:
    """The function, its choice, and what they need; "" for any other recurrence."""
    system = sig.system
    if system is None:
        return ""
    taken = [a for a in caller(sig) if not a.default]
    names = {a.name for a in sig.table if a.kind == "input"}
    given = [f"{a.name}: Tensor" for a in taken]
    keys = [f"{a.name}: Tensor | None = None" for a in caller(sig) if a.default]
    words = [
        f"What {sig.spec} gives, by FFT over the whole sequence: outputs and states up to rounding, and all gradients.",
        "",
        f"Arguments as of {sig.spec}. Later steps reach earlier ones by rounding alone.",
    ]
    inputs, rest = [a.name for a in taken if a.name in names], [a.name for a in caller(sig) if a.name not in names]
    head = lay(f"def {sig.spec}_convolution(", [*given, *(["*", *keys] if keys else [])], f") -> {sig.class_name}Result:")
    called = [f"[{', '.join(inputs)}]", f"[{', '.join(sig.initial)}]"]
    params = [f"{x}={x}" for x in rest if x not in sig.initial]
    lines = [head, docstring(words, 4), lay("return _convolved(", [*called, *params], ")", 4)]
    made = {
        "spec": sig.spec,
        "result": f"{sig.class_name}Result",
        "outputs": len(sig.outputs),
        "lag": system.lag,
        "flipped": sig.backwards,
        "inputs": group([f'"{x}"' for x in inputs]),
        "starts": group([f'"{x}"' for x in sig.initial]),
        "calls": system.calls,
        "work": system.work,
        "main": inputs.index(clock(sig)),
        "always": system.wanted,
        "begun": any(s.init not in ("0", "0.0", "-0.0") for s in sig.states),
        "native": bool(sig.cpu),
        "least": max(64, 4 * system.lag),
        "stacked": "_stacked" if system.beside else "list",
        "given": f"_unstacked(states, empty[{len(sig.outputs)}:])" if system.beside else "states",
        "ends": f"_unstacked(ends, empty[{len(sig.outputs)}:])" if system.beside else "ends",
        "apart": "()" if system.moved == system.read else "_STRUCK[2]",
        "links": sum(bool(how) for row in system.steps for how in row),
    }
    tables = [
        _table("_STRUCK", "mixed axes, with an impulse a place: of inputs, of states in steps, of states as they are read",
               [_axes(x) for x in (system.struck, system.moved, system.read)]),
        _table("_CARRIED", "new state: what each state adds to it", list(map(_words, system.steps))),
        _table("_READ", "output: what each state adds to it", list(map(_words, system.reads))),
        _table("_HEARD", "output: what each input adds to it", list(map(_words, system.heard))),
        _table("_LEFT", "last state: what each input adds to it", list(map(_words, system.left))),
    ]  # fmt: skip
    back = [group(list(map(_words, rows))) for rows in system.back]
    tables.append(_table("_BACK", "output: for each state, what it reads of each state a step later", back))
    body = CONVOLVED
    if system.beside:
        body += SIDES
        rows = [_axes(x) for x in system.beside]
        tables.insert(0, _table("_BESIDE", "each state: axes that all states share, and axes that lie side by side", rows))
    convolved = past_locals(sig.spec, lambda itself: body.format(**made, itself=itself).strip())
    texts = ["\n".join(lines), convolved, "\n\n".join(tables), PAYS.format(**made).strip()]
    return "\n\n\n".join(texts)


def choice(sig: Signature) -> list[str]:
    """The lines of the public function that ask for it, where the sizes of dims are known."""
    if sig.system is None:
        return []
    timed = [tuple(map(unprimed, a.dims)) for a in sig.table if a.timed]
    states = [tuple(map(unprimed, s.dims)) for s in sig.states]
    struck = [tuple(dims[i] for i in axes) for dims, axes in zip(timed, sig.system.struck, strict=True)]
    mixed = [axes for _, axes in sig.system.beside] or sig.system.moved
    moved = [tuple(dims[i] for i in axes) for dims, axes in zip(states, mixed, strict=True)]
    linked = [(i, j) for i in range(len(states)) for j in range(len(states)) if sig.system.beside or sig.system.steps[i][j]]
    links = [(*states[i], *moved[j]) for i, j in linked]
    counts = [_volume(x) or "0" for x in (states, timed, [tuple(map(unprimed, o.dims)) for o in sig.outputs], struck, links)]
    return [
        "    if CONVOLUTION and cu_seqlens is None and not reverse:",
        lay("if _convolution_pays(", [f"{clock(sig)}.device.type", "B", "T", *counts], "):", 8),
        lay(f"return {sig.spec}_convolution(", [f"{a.name}={a.name}" for a in caller(sig)], ")", 12),
    ]


def _volume(arrays: Sequence[tuple[str, ...]]) -> str:
    """How many elements arrays of these dims have, as an expression; `2 * H * N` for two alike."""
    found = Counter(" * ".join(dims) for dims in arrays)
    return " + ".join(" * ".join([*[str(n)] * (n > 1 or not dims), *[dims] * bool(dims)]) for dims, n in found.items()) or "0"


def method(sig: Signature, own: dict[str, str]) -> list[str]:
    """The Module's method."""
    if sig.system is None:
        return []
    held = set(own)
    given = [f"{a.name}: Tensor" for a in caller(sig) if not a.default and a.name not in held]
    keys = [f"{a.name}: Tensor | None = None" for a in caller(sig) if a.default and a.name not in held]
    call = [f"{a.name}={own.get(a.name, a.name)}" for a in caller(sig)]
    return [
        "",
        lay("def convolution(", ["self", *given, *(["*", *keys] if keys else [])], f") -> {sig.class_name}Result:", 4),
        f'        """The recurrence over a sequence, by FFT; see `{sig.spec}_convolution`."""',
        lay(f"return {sig.spec}_convolution(", call, ")", 8),
    ]


def _axes(rows: tuple[tuple[int, ...], ...]) -> str:
    return group([group([str(i) for i in row]) for row in rows])


def _words(row: tuple[str, ...]) -> str:
    return group([f'"{x}"' for x in row])


def _table(name: str, words: str, rows: list[str]) -> str:
    return "\n".join([f"# {words}", f"{name} = (", *(f"    {row}," for row in rows), ")"])
