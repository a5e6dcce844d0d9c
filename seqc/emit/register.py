"""The registration of an emitted file's operators. In: a signature. Out: text that defines them in a namespace of their own.

A schema has at most 64 arguments. Where a spec has more, the operators' tensors come and go in lists; they are called alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.emit.signature import Signature

MOST = 64  # arguments of a schema, and results of one


def register_text(sig: Signature, names: Mapping[str, object]) -> str:
    """The registration. names: what the texts of the boundary are filled with."""
    several = "({{given}})" if len(sig.results) > 1 else "Tensor[]"
    if len(sig.arguments) + len(sig.results) + 4 <= MOST:  # those of `backward`, which has most
        defined, wrap = _NAMED.replace("SEVERAL", several), "{}"
        before, operators = "", "getattr(torch.ops, name)"
    else:
        defined, wrap = _IN_LISTS, "_listed({}, operator)"
        before, operators = _LISTED.format(**names).strip() + "\n\n\n", "_Listed(getattr(torch.ops, name))"
    text = _REGISTER.format(
        **names, defined=defined.strip("\n").format(**names), operators=operators,
        kernel=wrap.format("kernel"), fake=wrap.format("fake"), derivative=wrap.format("derivative"),
        rule="_listed_rule(_rule(operator), operator)" if before else "_rule(operator)",
    )  # fmt: skip
    return before + text.strip()


_REGISTER = '''
def _register():
    """Define the operators in a namespace that no other file or import of this file has; it lives as long as torch."""
    name, tries = "seqc_{spec}_{digest}", 0
    while hasattr(getattr(torch.ops, name), "run"):
        tries += 1
        name = f"seqc_{spec}_{digest}_{{tries}}"
    library = torch.library.Library(name, "DEF")
{defined}
    operators = {{
        "run": (_run, _differentiable_run, _fake_run),
        "forward": (_forward, _differentiable_forward, _fake_forward),
        "backward": (_backward, _differentiable_backward, _fake_backward),
        "step": (_step, _differentiable_step, _fake_step),
    }}
    for operator, (kernel, derivative, fake) in operators.items():
        library.impl(operator, {kernel}, "CPU")
        library.impl(operator, {kernel}, "CUDA")
        library.impl(operator, {derivative}, "Autograd")
        torch.library.register_fake(f"{{name}}::{{operator}}", {fake}, lib=library)
        torch.library.register_vmap(f"{{name}}::{{operator}}", {rule}, lib=library)
    getattr(torch.ops, name).library = library  # compiled graphs call the operators by name
    return {operators}


_OPS = _register()
'''

_NAMED = '''
    arguments = [f"Tensor {{x}}" for x in "{arguments}".split()]
    results = [f"Tensor {{x}}" for x in "{results}".split()]
    cotangents = [f"Tensor? d_{{x}}" for x in "{results}".split()]
    once, given = ", ".join(arguments), ", ".join(results)
    taken = f"{{once}}, Tensor? cu_seqlens, bool reverse"
    library.define(f"run({{taken}}) -> SEVERAL")
    library.define(f"forward({{taken}}) -> ({{given}}, Tensor[] saved)")
    library.define(f"backward({{taken}}, Tensor[] saved, bool[] needs, {{', '.join(cotangents)}}) -> Tensor[]")
    library.define(f"step({{once}}) -> SEVERAL")
'''

_IN_LISTS = '''
    taken = "Tensor[] arguments, Tensor? cu_seqlens, bool reverse"
    library.define(f"run({{taken}}) -> Tensor[]")
    library.define(f"forward({{taken}}) -> (Tensor[] results, Tensor[] saved)")
    library.define(f"backward({{taken}}, Tensor[] saved, bool[] needs, Tensor?[] cotangents) -> Tensor[]")
    library.define("step(Tensor[] arguments) -> Tensor[]")
'''

_LISTED = '''
def _grouped(arguments):
    """The arguments of an operator in the lists of its schema."""
    tensors, more = list(arguments[:{count}]), arguments[{count}:]
    return [tensors, *more[:4], *([list(more[4:])] if len(more) > 4 else [])]


def _spread(tensors, *more):
    """The same without the lists, but for what forward saves."""
    return [*tensors, *more[:4], *(more[4] if len(more) > 4 else ())]


def _listed(kernel, operator):
    """A kernel as the schema has it."""

    def call(*arguments):
        found = kernel(*_spread(*arguments))
        return (list(found[:-1]), found[-1]) if operator == "forward" else list(found)

    return call


def _listed_rule(rule, operator):
    """A batching rule as the schema has it."""

    def call(info, dims, *arguments):
        found = rule(info, _spread(*dims), *_spread(*arguments))
        return tuple((list(x[:-1]), x[-1]) for x in found) if operator == "forward" else found

    return call


class _Listed:
    """The operators, called as if each tensor were an argument of its own: there are more than a schema may have."""

    def __init__(self, operators):
        self.operators = operators
        self.run, self.forward, self.backward, self.step = (
            _Flat(getattr(operators, name).default) for name in ("run", "forward", "backward", "step")
        )


class _Flat:
    """One of them; `default` calls it."""

    def __init__(self, operator):
        self.operator = operator

    def default(self, *arguments):
        found = self.operator(*_grouped(arguments))
        return (*found[0], found[1]) if isinstance(found, tuple) else found
'''
