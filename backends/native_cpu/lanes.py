"""One channel over a long time: the sequence is cut in pieces, and each lane of a vector runs one of them.

In: a `Plan` whose states, inputs and outputs are numbers, and which is linear in its states (`seqc.analysis.pieces`).
Out: C++: namespaces `lanes_forward` and `lanes_backward`, which run one long sequence, and the condition under which they do;
nothing where the plan is another. A sequence is read twice. First every piece runs from zero, which gives its end; its span
(what it makes of the states before it) runs beside it, or is a power of the step's matrix where that is the same at all
steps. Then the states before the pieces follow, one after the other, and every piece runs again. Rows of W steps of W pieces
are turned in registers, so that memory is read along the steps; a stretch that stays in the cache is done before the next.
How a sequence is cut depends on its length alone.

Backward is a recurrence of the same kind, which runs from the last step back: its states are the cotangents of the states,
its inputs what the step reads, what was saved of the states, and the cotangents of the outputs. Gradients of parameters are
sums over its steps, one for each lane.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from seqc.analysis.pieces import Pieces, pieces_of
from seqc.backends.native_cpu.places import ident
from seqc.backends.native_cpu.plan import Plan
from seqc.backends.native_cpu.values import literal, spelled
from seqc.ir.block import gradient_key
from seqc.ir.graph import BATCH, Node, const, depends, leaf, leaves, rebuild, substitute, topological
from seqc.ir.keys import next_key, prev_key, slope_key, slope_of
from seqc.ir.ops import TABLE, holds
from seqc.ir.ops.structure import at_position
from seqc.ir.program import Program, TensorDecl

FEW = 8  # states, and links that are run beside them: more would not stay in registers
LAGS = 4  # how far back an input is read: a vector has 4 lanes or more, but for float64 without AVX
SUMS = 16  # numbers that parameters have together, where backward runs in lanes


@dataclass(frozen=True)
class Lanes:
    """What runs in lanes. forth: forward, or backward. cut: of its program, a recurrence in the order of the run. arrays: input
    -> (array, steps before a place that it is read there); backs: how many steps back the run reads an input. results: array ->
    value of a step, those behind `kept` only where backward will need them; sums: array and place in it -> what is summed.
    sizes: dim -> the size that it must have."""

    forth: bool
    cut: Pieces
    arrays: Mapping[str, tuple[str, int]]
    backs: Mapping[str, int]
    results: Mapping[str, Node]
    kept: tuple[str, ...] = ()
    sums: tuple[tuple[str, str, Node], ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()

    @property
    def program(self) -> Program:
        """The recurrence."""
        return self.cut.whole

    @property
    def links(self) -> Mapping[str, Node]:
        """The spans' states, and what they become."""
        return self.cut.spans.updates

    @property
    def beside(self) -> int:
        """How many links run beside the states."""
        return 0 if self.cut.fixed else len(self.links)

    @property
    def instead(self) -> tuple[str, str]:
        """When a sequence runs in lanes, and how."""
        space = "lanes_forward" if self.forth else "lanes_backward"
        run = f"{space}::run_lanes<{{}}, {{}}>(a, call, rest, threads)"
        ways = [f"(way > 0 ? {run.format('true', x)} : {run.format('false', x)})" for x in ("true", "false")]
        if not self.forth:
            return f"{space}::lane_long(call.steps(rest))", f"way > 0 ? {run.format('false', 'true')} : {run.format('true', 'true')}"
        saves = "" if self.kept else "!save && "
        how = f"save ? {ways[0]} : {ways[1]}" if self.kept else ways[1]
        return f"{saves}{space}::lane_long(call.steps(rest))", how


def lanes_of(plan: Plan) -> Lanes | None:
    """What runs in lanes forward; None where the plan is another."""
    program = plan.program
    if not _fits(program):
        return None
    roots = [plan.forward[x] for x in (*program.outputs, *(next_key(s) for s in program.states))]
    read = leaves(roots, "input")
    if any(not 0 <= n.number("offset") <= LAGS for n in read):
        return None
    cut = _cut(program, roots)
    if cut is None:
        return None
    back = {x: max([n.number("offset") for n in read if n.text("name") == x], default=0) for x in program.inputs}
    results = {x: plan.forward[x] for x in program.outputs}
    saved = plan.every == 1 and not plan.kept
    kept = {f"{s}_kept": program.states[s].leaf() for s in plan.saved_states} if saved else {}
    kept = {x: n for x, n in kept.items() if n.dims == (BATCH,)}
    arrays = {x: (x, 0) for x in program.inputs}
    cut = replace(cut, whole=replace(program, updates={s: plan.forward[next_key(s)] for s in program.states}))
    whole = saved and len(kept) == len(plan.saved_states)
    return Lanes(True, cut, arrays, back, {**results, **(kept if whole else {})}, tuple(kept) if whole else ())


def lanes_back(plan: Plan) -> Lanes | None:
    """What runs in lanes backward; None where the plan is another."""
    forth = lanes_of(plan)
    if forth is None or plan.kept or plan.products or plan.factors or plan.every != 1:
        return None
    program, names, arrays = plan.program, dict[Node, Node](), dict[str, tuple[str, int]]()
    states = {s: TensorDecl(s, "state", (), init=const(0.0)) for s in program.states}
    for n in leaves(plan.backward.values()):
        kind, name = n.text("kind"), n.text("name")
        if kind == "param":
            continue
        if kind == "cot" and name not in program.output_decls:
            names[n] = leaf("state", next(s for s in states if next_key(s) == name), (BATCH,))
            continue
        back = n.number("offset") if kind == "input" else 0
        array = {"input": name, "state": f"{name}_kept", "cot": f"d_{name}"}.get(kind, "")
        if not array or n.dims != (BATCH,):
            return None
        own = f"{array}.at{back}"
        arrays[own], names[n] = (array, back), leaf("input", own, (BATCH,))
    graph = substitute(dict(plan.backward), names)
    updates = {s: graph.get(prev_key(s), const(0.0)) for s in states}
    slopes = {key: slope_of(key) for key in graph if not slope_of(key).carried}
    results = {f"d_{x.word('_at_', '_at_m')}": graph[key] for key, x in slopes.items() if x.name in program.inputs}
    sums: list[tuple[str, str, Node]] = []
    sizes: dict[str, int] = {}
    for name, d in program.params.items():
        if (whole := graph.get(slope_key(name))) is None:
            continue
        extents = [program.dims[x].default for x in d.dims]
        if len(extents) > 1 or None in extents or d.per_batch:
            return None
        for x, size in zip(d.dims, extents, strict=True):
            sizes[x] = size or 0
            sums += [(f"d_{name}", str(k), _folded(at_position(whole, x, k))) for k in range(size or 0)]
        sums += [] if d.dims else [(f"d_{name}", "0", whole)]
    if len(sums) > SUMS:
        return None
    inputs = {x: TensorDecl(x, "input", ()) for x in arrays}
    turned = replace(
        program, inputs=inputs, states=states, updates=updates, outputs={}, output_decls={}, definitions={}, spans={},
    )  # fmt: skip
    roots = [*updates.values(), *results.values(), *(n for _, _, n in sums)]
    cut = _cut(turned, roots)
    backs = dict.fromkeys(arrays, 0)
    return cut and Lanes(False, cut, arrays, backs, results, (), tuple(sums), tuple(sizes.items()))


def _fits(program: Program) -> bool:
    decls = [*program.inputs.values(), *program.states.values(), *program.output_decls.values()]
    if any(d.dims for d in decls) or any(d.plays != "input" for d in program.inputs.values()) or not program.inputs:
        return False
    return program.direction == "forward" and len(program.states) <= FEW


def _cut(program: Program, roots: Iterable[Node]) -> Pieces | None:
    """How the program is cut in pieces that lanes can run."""
    cut = pieces_of(program)
    if isinstance(cut, str) or cut.algebra != "sum" or cut.selects or not cut.links or (not cut.fixed and len(cut.links) > FEW):
        return None
    return cut if all(_plain(n) for n in topological([*roots, *cut.spans.updates.values()])) else None


def _folded(root: Node) -> Node:
    """A value whose choices between constants are made."""
    done: dict[Node, Node] = {}
    for n in topological([root]):
        new = rebuild(n, tuple(done[a] for a in n.args))
        if new.op == "where" and new.args[0].op == "eq" and all(a.op == "const" for a in new.args[0].args):
            new = new.args[1] if new.args[0].args[0] is new.args[0].args[1] else new.args[2]
        zero = [a.op == "const" and a.attr("value") == 0.0 for a in new.args]
        if new.op == "add" and any(zero):
            new = new.args[zero[0]]
        done[n] = new
    return done[root]


def _plain(n: Node) -> bool:
    """Whether a value is a number of parameters, or one of each sequence by operators that vectors have."""
    if n.op == "expand":
        return set(n.dims) <= {BATCH}
    if set(n.dims) <= {BATCH} and (holds(n, "lanes") or n.op in ("leaf", "const")):
        return True
    if n.op == "take":
        return n.args[0].op == "leaf" and len(n.args[0].dims) == 1 and n.args[0].text("kind") == "param"
    if n.op == "leaf":
        return n.text("kind") == "param"
    return BATCH not in n.dims and not n.dims and TABLE[n.op].elementwise


class _Body:
    """The values of some roots as C++: those of parameters alone are members of `LaneNumbers`."""

    def __init__(self, lanes: Lanes, numbers: dict[Node, str]) -> None:
        self.lanes, self.numbers = lanes, numbers

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
                lines.append(f"const V {names[n]} = {spelled(n.op).format(*args)};")
        ends = {key: names[n] if n in moving else f"V{{}} + {self.number(n)}" for key, n in roots.items()}
        return [*lines, *(f"const V {key} = {text};" for key, text in ends.items())]

    def _input(self, n: Node) -> str:
        name, back = n.text("name"), n.number("offset")
        if name not in self.lanes.arrays:
            name, back = self.lanes.cut.shifts[name]
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


def _numbers(numbers: Mapping[Node, str], title: str) -> list[str]:
    """The struct of what is made of parameters alone, and the function that makes it."""
    lines, names = list[str](), dict[Node, str]()
    for n in topological(numbers):
        if n.op == "const":
            names[n] = literal(float(f"{n.attr('value')}"))
        elif n.op == "leaf":
            names[n] = f"a.g_{ident(n.text('name'))}" + ("" if n.dims else "[0]")
        elif n.op == "take":
            names[n] = f"{names[n.args[0]]}[{_place(n)}]"
        elif n.op in ("expand", "rename"):
            names[n] = names[n.args[0]]
        else:
            names[n] = f"x{len(names)}"
            lines.append(f"  const auto {names[n]} = {spelled(n.op).format(*(names[a] for a in n.args))};")
    members = [f"  real {name};" for name in numbers.values()] or ["  real none;"]
    given = [f"real({names[n]})" for n in numbers] or ["real(0)"]
    return ["struct LaneNumbers {", *members, "};", f"INLINE LaneNumbers lane_numbers(const {title}& a) {{", *lines,
            f"  return {{{', '.join(given)}}};", "}"]


def _place(n: Node) -> str:
    at = n.number("at")
    return str(at) if at >= 0 else f"n_{ident(n.text('dim'))} - {-at}"


def lanes_text(lanes: Lanes) -> str:
    """The C++ of the runs in lanes."""
    numbers: dict[Node, str] = {}
    body = _Body(lanes, numbers)
    program, states = lanes.program, list(lanes.program.states)
    old = {x: f"s[{k}]" for k, x in enumerate(states)}
    updates = {f"next_{k}": program.updates[x] for k, x in enumerate(states)}
    results = {f"result_{k}": n for k, n in enumerate(lanes.results.values())}
    sums = {f"sum_{k}": n for k, (_, _, n) in enumerate(lanes.sums)}
    moved = [f"s[{k}] = next_{k};" for k in range(len(states))]
    stored = [f"out[{k}] = result_{k};" for k in range(len(results))]
    stored += [f"sum[{k}] = sum[{k}] + sum_{k};" for k in range(len(sums))]
    links = {f"next_{k}": n for k, n in enumerate(lanes.links.values())}
    held = {x: f"m[{k}]" for k, x in enumerate(lanes.links)}
    early = _early(lanes)
    inputs = sorted(lanes.arrays, key=lambda x: x not in early)
    bind = [f"const V* const in_{ident(x)} = in[{k}];" for k, x in enumerate(inputs)]
    linked = [*([] if lanes.cut.fixed else bind), *body.lines(links, held), *(f"m[{k}] = next_{k};" for k in range(len(links)))]
    texts = [
        _function("lane_ends", "V* s", [*bind, *body.lines(updates, old), *moved]),
        _function("lane_steps", "V* s, V* out, V* sum", [*bind, *body.lines({**updates, **results, **sums}, old), *moved, *stored]),
        _function("lane_spans", "V* m", linked),
    ]
    # the links as a matrix: row of the state that is reached, column of that it comes from
    place = [f"{{{states.index(i)}, {states.index(j)}}}" for i, j in lanes.cut.links]
    title = "Forward" if lanes.forth else "Backward"
    starts, ends = ("{}_0", "{}_T") if lanes.forth else ("d_{}_T", "d_{}_0")
    names = {
        "LAGS": str(LAGS), "INPUTS": str(len(inputs)), "STATES": str(len(states)), "OUTPUTS": str(max(len(results), 1)),
        "GIVEN": str(len(results)), "ALONE": str(len(results) - len(lanes.kept)), "LINKS": str(len(links)),
        "BESIDE": str(lanes.beside), "EARLY": str(len(early)), "SUMS": str(len(sums)), "TITLE": title,
        "GROUPS": "4" if len(states) < 5 and lanes.forth else "2", "PLACES": ", ".join(place),
        "FIXED": "true" if lanes.cut.fixed else "false", "AHEAD": ", ".join(str(lanes.arrays[x][1]) for x in inputs),
        "ARRAYS": ", ".join(f"a.g_{ident(lanes.arrays[x][0])}" for x in inputs),
        "STARTS": ", ".join(f"a.g_{ident(starts.format(x))}" for x in states),
        "BACKS": ", ".join(str(lanes.backs[x]) for x in inputs),
        "RESULTS": ", ".join(f"a.g_{ident(x)}" for x in lanes.results) or "nullptr",
        "ENDS": ", ".join(f"a.g_{ident(ends.format(x))}" for x in states),
        "SIZED": " && ".join(["true", *(f"n_{ident(d)} == {size}" for d, size in lanes.sizes)]),
        "LEFT": "0" if lanes.forth else str(LAGS),
    }
    text = LANES
    for name, value in names.items():
        text = text.replace(f"${name}$", value)
    added = [f"  a.g_{ident(array)}[i_B{_extent(lanes, array)} + {at}] = total[{k}];" for k, (array, at, _) in enumerate(lanes.sums)]
    text = text.replace("$ADDED$", "\n".join(added))
    space = "lanes_forward" if lanes.forth else "lanes_backward"
    return "\n".join([f"namespace {space} {{", *_numbers(numbers, title), *texts, text.strip(), f"}}  // namespace {space}", ""])


def _extent(lanes: Lanes, array: str) -> str:
    """How many numbers a sequence has in an array of sums."""
    return f" * {sum(name == array for name, _, _ in lanes.sums)}"


def _early(lanes: Lanes) -> set[str]:
    """The inputs that the states or the spans read."""
    read = leaves([*lanes.program.updates.values(), *lanes.links.values()], "input")
    return {lanes.cut.shifts.get(n.text("name"), (n.text("name"), 0))[0] for n in read}


def _function(name: str, given: str, lines: list[str]) -> str:
    head = f"template <class V>\nINLINE void {name}(const LaneNumbers& c, const V (*in)[{LAGS + 1}], {given})"
    return "\n".join([f"{head} {{", *(f"  {line}" for line in lines), "}"])


LANES = """
constexpr int GROUPS = $GROUPS$, SETS = 4, PIECES = SETS * GROUPS * W;  // pieces: the same for every number of threads
struct LaneStates { vec s[$STATES$][GROUPS], m[$BESIDE$ + 1][GROUPS], sum[$SUMS$ + 1][GROUPS]; };

// A stretch of a sequence: PIECES pieces of C steps, from step `from` on; the sequence lies at `row` and has T steps.
struct Stretch { i64 row, T, from, C; };

// Where the W steps from step t of a stretch lie.
template <bool onward>
INLINE i64 lane_place(const Stretch& at, i64 t) { return at.row + (onward ? at.from + t : at.T - W - at.from - t); }

// One set of a stretch's pieces; ends: from zero, with the spans beside; else the run itself.
template <bool onward, bool ends, bool save>
void lane_run(const $TITLE$& a, const LaneNumbers& c, const Stretch& at, int set, LaneStates& w) {
  const i64 C = at.C;
  const bool large = at.T * i64(sizeof(real)) > 1048576;
  const real* const arrays[] = {$ARRAYS$};
  real* const results[] = {$RESULTS$};
  constexpr int backs[] = {$BACKS$}, aheads[] = {$AHEAD$};  // steps that an input is read before; in memory, and in the run
  constexpr int read = ends ? $EARLY$ : $INPUTS$, given = save ? $GIVEN$ : $ALONE$;
  vec tile[$INPUTS$][GROUPS][W], before[$INPUTS$][GROUPS][$LAGS$], made[$OUTPUTS$][GROUPS][W];
  for (int n = 0; n < read; ++n)
    for (int g = 0; g < GROUPS; ++g)
      for (int k = 0; k < backs[n]; ++k)
        for (int l = 0; l < W; ++l) {
          const i64 t = at.from + ((set * GROUPS + g) * W + l) * C - 1 - k;
          before[n][g][k][l] = t < 0 ? real(0) : arrays[n][at.row + (onward ? t : at.T - 1 - t)];
        }
  for (i64 t = 0; t < C; t += W) {
    for (int n = 0; n < read; ++n)
      for (int g = 0; g < GROUPS; ++g) {
        UNROLL for (int l = 0; l < W; ++l) {
          const real* const p = arrays[n] + lane_place<onward>(at, ((set * GROUPS + g) * W + l) * C + t) + (onward ? aheads[n] : -aheads[n]);
          if constexpr (ends) __builtin_prefetch(p + (onward ? 6 * W : -6 * W));
          tile[n][g][l] = load(p);
        }
        turn<W / 2>(tile[n][g]);
      }
    UNROLL for (int j = 0; j < W; ++j) {
      UNROLL for (int g = 0; g < GROUPS; ++g) {
        vec in[$INPUTS$][$LAGS$ + 1], s[$STATES$], m[$BESIDE$ + 1], out[$OUTPUTS$], sum[$SUMS$ + 1];
        UNROLL for (int n = 0; n < read; ++n)
          UNROLL for (int k = 0; k <= backs[n]; ++k)
            in[n][k] = k <= j ? tile[n][g][onward ? j - k : W - 1 - j + k] : before[n][g][k - j - 1];
        UNROLL for (int i = 0; i < $STATES$; ++i) s[i] = w.s[i][g];
        if constexpr (ends) {
          lane_ends<vec>(c, in, s);
          if constexpr ($BESIDE$ > 0) {
            UNROLL for (int i = 0; i < $BESIDE$; ++i) m[i] = w.m[i][g];
            lane_spans<vec>(c, in, m);
            UNROLL for (int i = 0; i < $BESIDE$; ++i) w.m[i][g] = m[i];
          }
        } else {
          UNROLL for (int i = 0; i < $SUMS$; ++i) sum[i] = w.sum[i][g];
          lane_steps<vec>(c, in, s, out, sum);
          UNROLL for (int i = 0; i < $SUMS$; ++i) w.sum[i][g] = sum[i];
          UNROLL for (int i = 0; i < given; ++i) made[i][g][onward ? j : W - 1 - j] = out[i];
        }
        UNROLL for (int i = 0; i < $STATES$; ++i) w.s[i][g] = s[i];
      }
    }
    for (int n = 0; n < read; ++n)
      for (int g = 0; g < GROUPS; ++g)
        for (int k = backs[n] - 1; k >= 0; --k)
          before[n][g][k] = k < W ? tile[n][g][onward ? W - 1 - k : k] : before[n][g][k - W];
    if constexpr (!ends)
      for (int i = 0; i < given; ++i)
        for (int g = 0; g < GROUPS; ++g) {
          turn<W / 2>(made[i][g]);
          UNROLL for (int l = 0; l < W; ++l) {
            real* const p = results[i] + lane_place<onward>(at, ((set * GROUPS + g) * W + l) * C + t);
            store_early<true>(p, made[i][g][l], W, 0, large);
          }
        }
  }
}

constexpr int lane_links[][2] = {$PLACES$};

INLINE void lane_squared(real* m, const real* by) {  // m times a matrix of links
  real whole[$STATES$][$STATES$] = {}, left[$STATES$][$STATES$] = {}, right[$STATES$][$STATES$] = {};
  for (int k = 0; k < $LINKS$; ++k) {
    left[lane_links[k][0]][lane_links[k][1]] = m[k];
    right[lane_links[k][0]][lane_links[k][1]] = by[k];
  }
  for (int i = 0; i < $STATES$; ++i)
    for (int j = 0; j < $STATES$; ++j)
      for (int k = 0; k < $STATES$; ++k) whole[i][j] += left[i][k] * right[k][j];
  for (int k = 0; k < $LINKS$; ++k) m[k] = whole[lane_links[k][0]][lane_links[k][1]];
}

INLINE bool lane_long(i64 T) { return $SIZED$ && T >= 8 * W * PIECES; }
// Steps of a stretch: few stay in the cache, many are worth threads. Pieces do not begin a page apart: see W.
INLINE i64 lane_stretch(i64 T) { return (T < 1048576 ? 65536 : 262144) + W * PIECES; }

// The span of C steps, where a step's is the same at all: powers of one.
INLINE void lane_power(const LaneNumbers& c, i64 C, real* span) {
  real one[$LINKS$], again[$LINKS$];
  for (int k = 0; k < $LINKS$; ++k) one[k] = span[k] = real(lane_links[k][0] == lane_links[k][1]);
  lane_spans<real>(c, nullptr, one);
  for (i64 left = C; left; left >>= 1) {
    if (left & 1) lane_squared(span, one);
    std::copy_n(one, $LINKS$, again);
    lane_squared(one, again);
  }
}

template <bool onward, bool save>
int run_lanes(const $TITLE$& a, const Call& call, i64 i_B, i64 threads) {
  const i64 T = call.steps(i_B), row = call.row(i_B);
  const LaneNumbers c = lane_numbers(a);
  const std::unique_ptr<LaneStates[]> sets(new (std::nothrow) LaneStates[SETS]);
  if (!sets) return 1;
  Stretch at{row, T, 0, 0};
  const auto each = [&](auto run) {
#pragma omp parallel for num_threads(int(std::min<i64>(threads, SETS))) if (threads > 1 && at.C * PIECES > 131072)
    for (int set = 0; set < SETS; ++set) run(set);
  };
  const real* const starts[] = {$STARTS$};
  real s[$STATES$], span[$LINKS$] = {}, total[$SUMS$ + 1] = {};
  for (int i = 0; i < $STATES$; ++i) s[i] = starts[i][i_B];
  for (; (at.from += at.C * PIECES) + W * PIECES <= T - $LEFT$;) {
    const i64 C = std::min(T - $LEFT$ - at.from, lane_stretch(T)) / PIECES / W * W;
    if ($FIXED$ && C != at.C) lane_power(c, C, span);
    at.C = C;
    each([&](int set) {
      LaneStates w{};
      for (int k = 0; k < $BESIDE$; ++k)
        if (lane_links[k][0] == lane_links[k][1])
          for (int g = 0; g < GROUPS; ++g) w.m[k][g] = splat(real(1));
      lane_run<onward, true, false>(a, c, at, set, w);
      sets[set] = w;
    });
    for (int set = 0; set < SETS; ++set)
      for (int g = 0; g < GROUPS; ++g)
        for (int l = 0; l < W; ++l) {
          LaneStates& w = sets[set];
          real after[$STATES$];
          for (int i = 0; i < $STATES$; ++i) after[i] = w.s[i][g][l];
          for (int k = 0; k < $LINKS$; ++k)
            after[lane_links[k][0]] += ($FIXED$ ? span[k] : w.m[k < $BESIDE$ ? k : 0][g][l]) * s[lane_links[k][1]];
          for (int i = 0; i < $STATES$; ++i) w.s[i][g][l] = s[i], s[i] = after[i];
        }
    each([&](int set) { lane_run<onward, false, save>(a, c, at, set, sets[set]); });
    for (int i = 0; i < $SUMS$; ++i)
      for (int set = 0; set < SETS; ++set)
        for (int g = 0; g < GROUPS; ++g)
          for (int l = 0; l < W; ++l) total[i] += sets[set].sum[i][g][l];
    for (int i = 0; i < $STATES$; ++i) s[i] = sets[SETS - 1].s[i][GROUPS - 1][W - 1];
  }
  streamed();
  // the steps that are left, one by one
  const real* const arrays[] = {$ARRAYS$};
  real* const results[] = {$RESULTS$};
  constexpr int backs[] = {$BACKS$}, aheads[] = {$AHEAD$};
  for (i64 t = at.from; t < T; ++t) {
    real in[$INPUTS$][$LAGS$ + 1], out[$OUTPUTS$];
    for (int n = 0; n < $INPUTS$; ++n)
      for (int k = 0; k <= backs[n]; ++k) {
        const i64 place = onward ? t - k + aheads[n] : T - 1 - t + k - aheads[n];
        in[n][k] = place < 0 || place >= T ? real(0) : arrays[n][row + place];
      }
    lane_steps<real>(c, in, s, out, total);
    for (int i = 0; i < (save ? $GIVEN$ : $ALONE$); ++i) results[i][row + (onward ? t : T - 1 - t)] = out[i];
  }
  real* const ends[] = {$ENDS$};
  for (int i = 0; i < $STATES$; ++i) ends[i][i_B] = s[i];
$ADDED$
  return 0;
}
"""
