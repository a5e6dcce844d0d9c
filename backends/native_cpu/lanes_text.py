"""The C++ of the runs in lanes. In: `Lanes`. Out: a namespace with `lane_long`, which tells whether a sequence runs so, and
`run_lanes`, which runs one: the text of a step, spelled for a vector type, in loops that are the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from seqc.analysis.pieces import lags_of
from seqc.analysis.time_invariant import not_invariant
from seqc.backends.native_cpu.code import Text
from seqc.backends.native_cpu.lanes import LAGS, Lanes
from seqc.backends.native_cpu.lanes_runtime import ANSWERED, ANSWERS, ANSWERS_NEED, ENDED, ENDS, LANES, NEEDS
from seqc.backends.native_cpu.late_last import late_last
from seqc.backends.native_cpu.places import ident
from seqc.backends.native_cpu.values import called, literal, spelled
from seqc.ir.graph import Node, depends, leaves, topological
from seqc.ir.traverse import reached


class _Body:
    """The values of some roots as C++: those of parameters alone are members of `LaneNumbers`."""

    def __init__(self, lanes: Lanes, numbers: dict[Node, str]) -> None:
        self.lanes, self.numbers = lanes, numbers
        self.called: set[str] = set()

    def lines(self, roots: Mapping[str, Node], states: Mapping[str, str]) -> list[str]:
        """Statements that make the roots, `const V KEY`. states: the expression of each state that is read."""
        names: dict[Node, str] = {}
        lines = []
        order = topological(roots.values())
        moving = depends(roots.values(), [n for n in order if n.op == "leaf" and n.text("kind") != "param"])
        for n in order:
            if n not in moving:
                continue
            if n.op == "leaf":
                name = n.text("name")
                names[n] = states[name] if n.text("kind") == "state" else self._input(n)
            elif n.op == "expand":
                names[n] = names[n.args[0]]
            else:
                args = [names[a] if a in moving else self.number(a) for a in n.args]
                names[n] = f"x{len(names)}"
                self.called |= called(n.op)
                lines.append(f"const V {names[n]} = {spelled(n.op).format(*args)};")
        ends = {key: names[n] if n in moving else f"V{{}} + {self.number(n)}" for key, n in roots.items()}
        return [*lines, *(f"const V {key} = {text};" for key, text in ends.items())]

    def _input(self, n: Node) -> str:
        name, back = n.text("name"), n.number("offset")
        if name not in self.lanes.arrays:
            name, found = self.lanes.cut.shifts[name]
            back = lags_of(found)[0]
        return f"in_{ident(name)}[{back}]"

    def number(self, n: Node) -> str:
        """A value of parameters alone."""
        while n.op == "expand":
            n = n.args[0]
        if n.op == "const":
            return literal(float(f"{n.attr('value')}"))
        if n not in self.numbers:
            self.numbers[n] = f"n{len(self.numbers)}"
        return f"c.{self.numbers[n]}"


def _numbers(lanes: Lanes, numbers: Mapping[Node, str], title: str, uses: set[str]) -> list[str]:
    """The struct of what is made of parameters alone, and the function that makes it. uses: what of the runtime is called."""
    lines, names = list[str](), dict[Node, str]()
    for n in topological(numbers):
        if n.op == "const":
            names[n] = literal(float(f"{n.attr('value')}"))
        elif n.op == "leaf":
            names[n] = _spot(lanes, n.text("name"), {})
        elif n.op == "take":
            names[n] = _spot(lanes, n.args[0].text("name"), {n.text("dim"): _place(n)})
        elif n.op in ("expand", "rename"):
            names[n] = names[n.args[0]]
        else:
            names[n] = f"x{len(names)}"
            uses |= called(n.op)
            lines.append(f"  const auto {names[n]} = {spelled(n.op).format(*(names[a] for a in n.args))};")
    members = [f"  real {name};" for name in numbers.values()] or ["  real none;"]
    given = [f"real({names[n]})" for n in numbers] or ["real(0)"]
    head = f"INLINE LaneNumbers lane_numbers(const {title}& a, int channel) {{"
    return ["struct LaneNumbers {", *members, "};", head, *lines,
            f"  return {{{', '.join(given)}}};", "}"]


def _place(n: Node) -> str:
    at = n.number("at")
    return str(at) if at >= 0 else f"n_{ident(n.text('dim'))} - {-at}"


def _spot(lanes: Lanes, param: str, places: Mapping[str, str], array: str = "", row: str = "") -> str:
    """A number of a parameter, or of its gradient (array, from `row` on), at a channel and at places of its other dims."""
    dims = lanes.laid[param]
    terms = [row] if row else []
    for k, d in enumerate(dims):
        place = places.get(d, "channel" if lanes.channels.get(d, 1) > 1 else "0")
        stride = "".join(f" * n_{ident(x)}" for x in dims[k + 1 :] if lanes.channels.get(x, 2) > 1)
        terms += [f"{f'({place})' if ' ' in place and stride else place}{stride}"] if place != "0" else []
    return f"a.g_{ident(array or param)}[{' + '.join(terms) or '0'}]"


def lanes_text(lanes: Lanes) -> Text:
    """The C++ of the runs in lanes."""
    numbers: dict[Node, str] = {}
    body = _Body(lanes, numbers)
    program, states = lanes.program, list(lanes.program.states)
    old = {x: f"s[{k}]" for k, x in enumerate(states)}
    updates = {f"next_{k}": program.updates[x] for k, x in enumerate(states)}
    results = {f"result_{k}": n for k, n in enumerate(lanes.results.values())}
    sums = {f"sum_{k}": n for k, (_, _, n) in enumerate(lanes.sums)}
    links = {f"next_{k}": n for k, n in enumerate(lanes.links.values())}
    whole = late_last({**updates, **results, **sums}, program.updates)
    updates = {key: whole[key] for key in updates}
    links = late_last(links, lanes.links)
    moved = [f"s[{k}] = next_{k};" for k in range(len(states))]
    stored = [f"out[{k}] = result_{k};" for k in range(len(results))]
    stored += [f"sum[{k}] = sum[{k}] + sum_{k};" for k in range(len(sums))]
    held = {x: f"m[{k}]" for k, x in enumerate(lanes.links)}
    early = _early(lanes)
    inputs = sorted(lanes.arrays, key=lambda x: x not in early)
    bind = [f"const V* const in_{ident(x)} = in[{k}];" for k, x in enumerate(inputs)]
    linked = [*([] if lanes.cut.fixed else bind), *body.lines(links, held), *(f"m[{k}] = next_{k};" for k in range(len(links)))]
    steps = body.lines(whole, old)
    texts = [
        _function("lane_ends", "V* s", [*bind, *body.lines(updates, old), *moved]),
        _function("lane_steps", "V* s, V* out, V* sum", [*bind, *steps, *moved, *stored]),
        _function("lane_spans", "V* m", linked),
    ]
    # the links as a matrix: row of the state that is reached, column of that it comes from
    spots = [f"{{{states.index(i)}, {states.index(j)}}}" for i, j in lanes.cut.links]
    title = "Forward" if lanes.forth else "Backward"
    starts, ends = ("{}_0", "{}_T") if lanes.forth else ("d_{}_T", "d_{}_0")
    names = {
        "LAGS": str(LAGS), "INPUTS": str(len(inputs)), "STATES": str(len(states)), "OUTPUTS": str(max(len(results), 1)),
        "GIVEN": str(len(results)), "ALONE": str(len(results) - len(lanes.kept)), "LINKS": str(len(links)),
        "BESIDE": str(lanes.beside), "EARLY": str(len(early)), "SUMS": str(len(sums)), "TITLE": title,
        "CHANNELS": str(prod(lanes.channels.values())), "PLACES": ", ".join(spots),
        "FIXED": "true" if lanes.cut.fixed else "false", "AHEAD": ", ".join(str(lanes.arrays[x][1]) for x in inputs),
        "ARRAYS": ", ".join(f"a.g_{ident(lanes.arrays[x][0])}" for x in inputs),
        "STARTS": ", ".join(f"a.g_{ident(starts.format(x))}" if ".due" not in x else "nullptr" for x in states),
        "BACKS": ", ".join(str(lanes.backs[x]) for x in inputs),
        "RESULTS": ", ".join(f"a.g_{ident(x)}" for x in lanes.results) or "nullptr",
        "ENDS": ", ".join(f"a.g_{ident(ends.format(x))}" if ".due" not in x else "nullptr" for x in states),
        "ALTS": ", ".join(f"{{{', '.join(_other(lanes, x, k) for k in range(LAGS + 1))}}}" for x in inputs),
        "SIZED": " && ".join(["true", *(f"n_{ident(d)} == {size}" for d, size in lanes.sizes if not lanes.forth)]),
        "LEFT": "0" if lanes.forth else str(LAGS),
        "READS": ", ".join(f"{{{', '.join('true' if x in read else 'false' for x in inputs)}}}" for read in _reads(lanes)),
    }
    answers = len(early) > 0 and prod(lanes.channels.values()) == 1 and not not_invariant(lanes.cut.ends)
    own = (ANSWERS, ANSWERED, ENDED) if answers else ("", "", ENDS)
    text = LANES.replace("$ANSWERS$", own[0]).replace("$ANSWERED$", own[1]).replace("$ENDED$", own[2])
    for name, value in names.items():
        text = text.replace(f"${name}$", value)
    added = [_added(lanes, k) for k in range(len(lanes.sums))]
    saved = "    if (save) a.g_{}[(row + (onward ? {t} : T - 1 - {t})) * D + channel] = a.g_{}[i_B * D + channel];"
    added += [saved.format(ident(x), ident(y), t=t) for x, t, y in lanes.firsts]
    text = text.replace("$ADDED$", "\n".join(added))
    space = "lanes_forward" if lanes.forth else "lanes_backward"
    made = [*_numbers(lanes, numbers, title, body.called), *texts, text.strip()]
    whole_text = "\n".join([f"namespace {space} {{", *made, f"}}  // namespace {space}", ""])
    return Text(whole_text, NEEDS | body.called | (ANSWERS_NEED if answers else set()))


def _other(lanes: Lanes, name: str, back: int) -> str:
    """The array of an input that stands before the first step."""
    return f"a.g_{ident(lanes.early[name, back])}" if (name, back) in lanes.early else "nullptr"


def _added(lanes: Lanes, k: int) -> str:
    """The statement that gives a channel's sum to the gradient of a parameter; channels that share it add up."""
    array, at, _ = lanes.sums[k]
    param = array.removeprefix("d_")
    own = [d for d in lanes.laid[param] if d not in lanes.channels]
    extent = "".join(f" * n_{ident(d)}" for d in lanes.laid[param])
    spot = _spot(lanes, param, dict.fromkeys(own, at), array, f"i_B{extent}")
    shared = prod(lanes.channels.values()) > 1 and not any(lanes.channels.get(d, 1) > 1 for d in lanes.laid[param])
    return f"    {spot} = {f'(d ? {spot} : real(0)) + ' if shared else ''}total[d][{k}];"


def _early(lanes: Lanes) -> set[str]:
    """The inputs that the states or the spans read."""
    read = leaves([*lanes.program.updates.values(), *lanes.links.values()], "input")
    return {lanes.cut.shifts.get(n.text("name"), (n.text("name"), 0))[0] for n in read}


def _reads(lanes: Lanes) -> list[set[str]]:
    """The inputs that each state comes of, at the same step or later ones."""
    updates, shifts = lanes.program.updates, lanes.cut.shifts
    found = []
    for x in updates:
        states = reached([x], lambda s: [n.text("name") for n in leaves([updates[s]], "state")])
        read = (n.text("name") for n in leaves((updates[s] for s in states), "input"))
        found.append({shifts.get(name, (name, 0))[0] for name in read})
    return found


def _function(name: str, given: str, lines: list[str]) -> str:
    head = f"template <class V>\nINLINE void {name}(const LaneNumbers& c, const V (*in)[{LAGS + 1}], {given})"
    return "\n".join([f"{head} {{", *(f"  {line}" for line in lines), "}"])
