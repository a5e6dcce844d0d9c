"""What is kept of sparse parameters, in an emitted file. In: a signature. Out: the text of the functions that say it, and the
lines of a call that put 0 in place of what is left out.

A mask goes to the operators beside its parameter, so that kernels may skip what it leaves out. Autograd sees `torch.where`
around the operators: what is left out has a gradient of exactly 0, whatever it holds.
"""

from __future__ import annotations

import textwrap

from seqc.emit.signature import Param, Signature
from seqc.emit.text import docstring

WIDTH = 112
_TESTS = {
    "band": "(i - j).abs() <= {0}", "blocks": "i // {0} == j // {0}", "lower": "j <= i", "off diagonal": "i != j",
}


def ruled(sig: Signature) -> list[Param]:
    """The parameters with rules by position, one for each mask: the two parts of a complex one have one."""
    found = {p.support.mask: p for p in reversed(sig.params) if p.support is not None and p.support.rules}
    return [p for p in sig.params if p in found.values()]


def supports_text(sig: Signature) -> str:
    """The functions that make the masks of rules, and the positions of the edges of graphs."""
    return "\n\n\n".join(part for p in ruled(sig) for part in (_edges(p), _function(p)) if part)


def _edges(p: Param) -> str:
    """The edges of a parameter's graph, as distances between positions, row by row."""
    assert p.support is not None
    rules = [rule for rule in p.support.rules if rule.kind == "edges"]
    lines = []
    for i, rule in enumerate(rules):
        gaps = [b - a for a, b in zip((0, *rule.edges), rule.edges, strict=False)]
        text = textwrap.wrap(" ".join(map(str, gaps)), WIDTH)
        place = f"positions row * {rule.shape[1]} + column"
        words = f"# {rule.words}: {place} of what is kept, each as its distance from the last one"
        lines += [words, f'{_edges_name(p, i)} = torch.tensor([int(x) for x in """', *text,
                  '""".split()], dtype=torch.int64).cumsum(0)']
    return "\n".join(lines)


def _edges_name(p: Param, i: int) -> str:
    return f"_EDGES_{p.name}" + (f"_{i}" if i else "")


def _function(p: Param) -> str:
    """The mask of a parameter, with its shape, without the batch of one that belongs to a sample."""
    assert p.support is not None
    place = [p.dims.index(d) for d in p.support.rules[0].at]
    row, column = (x - len(p.dims) for x in place)
    rank = len(p.dims) + p.per_batch
    lines = [
        f"def _kept_{p.name}(x):",
        docstring([f"Where {p.name} is kept: {', '.join(rule.words for rule in p.support.rules)}."], 4),
        f"    if x.dim() != {rank}:",
        "        return x  # its shape is refused",
        f"    rows, columns, device = x.shape[{row}], x.shape[{column}], x.device",
    ]
    positions = [rule for rule in p.support.rules if rule.kind != "edges"]
    if positions:
        lines.append("    i, j = torch.arange(rows, device=device)[:, None], torch.arange(columns, device=device)")
    tests: list[str] = []
    edges = 0
    for rule in p.support.rules:
        if rule.kind == "edges":
            lines += [
                f"    if (rows, columns) != {rule.shape}:",
                "        return x  # its shape is refused",
                "    edges = torch.zeros(rows * columns, dtype=torch.bool, device=device)",
                f"    edges[{_edges_name(p, edges)}.to(device)] = True",
            ]
            tests.append("edges.view(rows, columns)")
            edges += 1
        else:
            tests.append(_TESTS[rule.kind].format(rule.size))
    kept = " & ".join(f"({test})" if len(tests) > 1 and "." not in test.split("(")[0] else test for test in tests)
    lines.append(f"    kept = {kept}")
    kept = "kept"
    if place[0] > place[1]:
        kept, row, column = "kept.mT", column, row
    between = column - row - 1
    if between or column != -1:
        index = ["..."] + [":"] + ["None"] * between + [":"] + ["None"] * (-1 - column)
        kept = f"{kept}[{', '.join(index)}]"
    shape = "x.shape[1:]" if p.per_batch else "x.shape"
    if rank > 2 or p.per_batch:
        kept = f"{kept}.expand({shape})"
    return "\n".join([*lines, f"    return {kept}"])


def made_masks(sig: Signature) -> list[str]:
    """The lines of a call that make the masks which rules alone say."""
    return [f"    {p.support.mask} = _kept_{p.name}({p.name})" for p in ruled(sig) if p.support and not p.support.pruning]


def masked(sig: Signature) -> list[str]:
    """The lines of a call that put 0 in place of what is left out; sizes and dtypes of parameters have been checked."""
    lines: dict[str, None] = {}
    rules = {p.support.mask: p for p in ruled(sig) if p.support is not None}
    for p in sig.params:
        if p.support is None:
            continue
        mask = p.support.mask
        if p.support.pruning is not None:
            one = rules.get(mask)
            lines[f"    {mask} = {mask} if {mask}.dtype == torch.bool else {mask} != 0"] = None
            if one is not None:
                lines[f"    {mask} = {mask} & _kept_{one.name}({one.name})"] = None
        lines[f"    {p.name} = torch.where({mask}, {p.name}, 0.0)"] = None
    return list(lines)
