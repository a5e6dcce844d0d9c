"""Kernels of a program with tables, made of those of its core: a loop over the steps, with the tables' rows read and written.

In: a walk over rows, and the kernels that a backend made of the core. Out: `Kernels` of the whole. Forward keeps
the rows that were read and the other states; backward computes each step again, which costs as much as it did. Tables are
copied once a call, and changed in place after that. The functions know whole batches and one direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seqc.driver.compose.around import Around, header
from seqc.emit import Kernels, Saved, safe_name
from seqc.emit.expressions import Names
from seqc.emit.names import dim_name, emitted_name
from seqc.emit.text import group, lay
from seqc.ir.plan import Rows, Stage

HELPERS = '''
def _table_rows(table, place):
    """[B, ..]: of each sequence's table [B, size, ..] the rows at its places [B], or at several [B, K]."""
    batch = torch.arange(len(place), device=place.device)
    return table[batch, place] if place.dim() == 1 else table[batch[:, None], place]


def _table_set(table, place, rows):
    """Put rows in their places; of several for one place the last stays."""
    batch = torch.arange(len(place), device=place.device)
    for k in range(place.shape[1]) if place.dim() > 1 else [...]:
        table[batch, place[:, k] if place.dim() > 1 else place] = rows[:, k] if place.dim() > 1 else rows


def _table_taken(table, place):
    """The rows at their places, which are 0 afterwards: the last one first, for a place gives what it holds once."""
    batch = torch.arange(len(place), device=place.device)
    taken = []
    for at in place.unbind(1)[::-1] if place.dim() > 1 else [place]:
        taken.append(table[batch, at])
        table[batch, at] = 0.0
    return torch.stack(taken[::-1], 1) if place.dim() > 1 else taken[0]


def _table_add(table, place, rows):
    """Add rows to those at their places, one after the other."""
    batch = torch.arange(len(place), device=place.device)
    for k in range(place.shape[1]) if place.dim() > 1 else [...]:
        at = place[:, k] if place.dim() > 1 else place
        table[batch, at] = table[batch, at] + (rows[:, k] if place.dim() > 1 else rows)


def _table_step(table, place, rows):
    """The table with other rows, as a new one of ordinary operators."""
    batch = torch.arange(len(place), device=place.device)
    for k in range(place.shape[1]) if place.dim() > 1 else [...]:
        at = place[:, k] if place.dim() > 1 else place
        table = table.index_put((batch, at), rows[:, k] if place.dim() > 1 else rows)
    return table
'''

EVENTS = '''
def _events_{suffix}(inputs, params, tables, states, save):
    """(outputs, tables, states, rows that were read, states before each step), step by step."""
    tables = [x.clone().movedim(axis, 1) for x, axis in zip(tables, {axes})]
    columns = {{}}
    for t in {order}:
        now = [x[:, t] for x in inputs]
        reads = [_table_rows(tables[i], now[j]) for i, j in {reads}]
        given = [*(now[j][:, None].contiguous() for j in {inputs}), *(x[:, None].contiguous() for x in reads)]
        found = {infer}(*given, *params, *states)
        for table, j, rows in zip(tables, {places}, found[{outputs}:{rows}]):
            _table_set(table, now[j], rows[:, 0])
        columns[t] = found[:{outputs}], reads, states
        states = [x.contiguous() for x in found[{rows}:{results}]]
    columns = [columns[t] for t in sorted(columns)]
    outputs = [torch.cat(column, 1) for column in zip(*(one[0] for one in columns))]
    kept = [torch.stack(column, 1) for column in zip(*(one[1] for one in columns))] if save else []
    kept += [torch.stack(column) for column in zip(*(one[2] for one in columns))] if save else []
    return outputs, [x.movedim(1, axis).contiguous() for x, axis in zip(tables, {axes})], states, kept


def _events_back_{suffix}(inputs, params, reads, states, d_outputs, d_tables, d_states, needs):
    """The gradients of inputs that have one, params that have one, tables and states; each step is computed again.

    needs: of these inputs and params, whether their gradient is asked for.
    """
    d_tables = [x.clone().movedim(axis, 1) for x, axis in zip(d_tables, {axes})]
    needs = *needs[:{moved}], *[True] * {reading}, *needs[{moved}:], *[True] * len(d_states)
    sums, columns = [torch.zeros_like(params[i]) for i in {params}], {{}}
    for t in reversed({order}):
        now = [x[:, t] for x in inputs]
        given = [*(now[j][:, None].contiguous() for j in {inputs}), *(x[:, t, None].contiguous() for x in reads)]
        given += [*params, *(x[t] for x in states)]
        kept = _event_forward_{suffix}(*given)[{results}:]
        weights = [x[:, t, None].contiguous() for x in d_outputs]
        weights += [_table_taken(table, now[j])[:, None].contiguous() for table, j in zip(d_tables, {places})]
        found = _event_backward_{suffix}(*given, *kept, *weights, *d_states, needs=needs)
        columns[t], d_reads = found[:{moved}], found[{moved}:{read}]
        for (i, j), d in zip({reads}, d_reads):
            _table_add(d_tables[i], now[j], d[:, 0])
        sums = [a if b is None else a + b for a, b in zip(sums, found[{read}:{summed}])]
        d_states = [x.contiguous() for x in found[{summed}:]]
    columns = zip(*(columns[t] for t in sorted(columns)))
    columns = [None if column[0] is None else torch.cat(column, 1) for column in columns]
    return columns, sums, [x.movedim(1, axis).contiguous() for x, axis in zip(d_tables, {axes})], d_states
'''


class Events(Around):
    """The functions of a stage that walks over rows."""

    called = "event"

    def __init__(self, stage: Stage, kernels: Kernels, suffix: str) -> None:
        super().__init__(stage, kernels, suffix)
        self.tables = stage.tables
        self.place = {a.of: i for i, a in enumerate(x for x in self.table if x.kind == "input")}
        self.core_inputs, self.core_params = ([a for a in self.own if a.kind == kind] for kind in ("input", "param"))
        self.rows = [(i, rows) for i, one in enumerate(self.tables) for rows in one.reads]
        self.others = [s for s in self.program.states if s in self.inner.states]
        self.names = Names((*self.arguments, "torch", "B", "T"))
        self.local = {x: self.names.fresh(x) for x in ("outputs", "tables", "states", "kept", "columns", "sums", "found")}
        self.held = [f"{safe_name(one.state)}_0" for one in self.tables]  # the tables before the first step,
        self.carried = [f"{safe_name(s)}_0" for s in self.others]  # and the other states

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        reads = [Saved(rows.name, ("B", "T", *map(dim_name, self.inner.inputs[rows.name].dims))) for _, rows in self.rows]
        before = [Saved(f"{safe_name(s)}_before", ("T", "B", *map(dim_name, self.inner.states[s].dims))) for s in self.others]
        return Kernels(super().kernels().text, (*reads, *before), infer=True, float64=True, writes=True,
                       imports=self.run.imports, runtime=self.run.runtime, libraries=self.run.libraries)

    def _functions(self) -> list[str]:
        made = [self._inner_text(), *([HELPERS.strip()] if self.suffix == "torch" else []), self._events()]
        made += [self._forward("forward"), self._forward("infer"), self._step(), self._write(), self._backward()]
        return [*made, self._ready()] if self.suffix == "cpu" else made

    def _events(self) -> str:
        """The two loops."""
        count, rows = len(self.program.outputs), len(self.program.outputs) + len(self.tables)
        read = {rows.name for _, rows in self.rows}
        moved = sum(a.gradient and a.of not in read for a in self.core_inputs)
        backwards = self.program.direction == "backward"
        infer = "infer" if self.run.infer else "forward"
        return EVENTS.format(
            suffix=self.suffix, axes=_numbers(one.axis for one in self.tables), infer=f"_event_{infer}_{self.suffix}",
            order="range(inputs[0].shape[1])" + ("[::-1]" if backwards else ""),
            reads=group([f"({i}, {self.place[rows.place]})" for i, rows in self.rows]),
            inputs=_numbers(self.place[a.of] for a in self.core_inputs if a.of not in read),
            places=_numbers(self.place[one.written.place] for one in self.tables), outputs=count, rows=rows,
            results=rows + len(self.others), moved=moved,
            params=_numbers(i for i, a in enumerate(self.core_params) if a.gradient),
            reading=len(self.rows), read=moved + len(self.rows),
            summed=moved + len(self.rows) + sum(a.gradient for a in self.core_params),
        ).strip()  # fmt: skip

    def _groups(self) -> list[str]:
        """The arguments as the loops take them."""
        return list(map(group, (self.inputs, [safe_name(a.of) for a in self.core_params], self.held, self.carried)))

    def _ends(self, tables: str, states: str) -> list[str]:
        """What belongs to the states, in their order."""
        places = {one.state: f"{tables}[{i}]" for i, one in enumerate(self.tables)}
        places |= {s: f"{states}[{i}]" for i, s in enumerate(self.others)}
        return [places[s] for s in self.program.states]

    def _forward(self, name: str) -> str:
        save = name == "forward"
        lines = self._head(name, "Results" + (", and what backward needs." if save else "."))
        outputs, tables, states, kept = (self.local[x] for x in ("outputs", "tables", "states", "kept"))
        left = f"{outputs}, {tables}, {states}, {kept}"
        call = lay(f"{left} = _events_{self.suffix}(", [*self._groups(), str(save)], ")", 4)
        ends = lay("return (", [f"*{outputs}", *self._ends(tables, states), *([f"*{kept}"] if save else [])], ")", 4)
        return "\n".join([*lines, call, ends])

    def _backward(self) -> str:
        saved = [self.names.fresh("kept") for _ in range(len(self.rows) + len(self.others))]
        outputs = [self.names.fresh("d_output") for _ in self.program.outputs]
        ends = {s: self.names.fresh("d_end") for s in self.program.states}
        columns, sums, tables, states = (self.local[x] for x in ("columns", "sums", "tables", "states"))
        doc = "Gradients: the steps of forward, the last one first."
        taken = [*self.arguments, *saved, *outputs, *ends.values()]
        lines = header(f"_backward_{self.suffix}", taken, doc, more=[f"needs=(True,) * {len(self.moved)}"])
        inputs, params, _, _ = self._groups()
        cut = len(self.rows)
        given = [inputs, params, group(saved[:cut]), group(saved[cut:]), group(outputs)]
        given += [group([ends[one.state] for one in self.tables]), group([ends[s] for s in self.others])]
        read = {rows.name for _, rows in self.rows}
        moved = [a.of for a in self.core_inputs if a.gradient and a.of not in read]
        core = [a.of for a in self.core_params if a.gradient]
        place = {a.of: i for i, a in enumerate(self.moved)}
        given.append(group([f"needs[{place[x]}]" if x in place else "True" for x in (*moved, *core)]))
        lines.append(lay(f"{columns}, {sums}, {tables}, {states} = _events_back_{self.suffix}(", given, ")", 4))
        answers = []
        for a in self.moved:
            if a.kind != "state":
                where, names = (columns, moved) if a.kind == "input" else (sums, core)
                zero = f"torch.zeros_like({emitted_name(a)})"
                answers.append(f"{where}[{names.index(a.of)}]" if a.of in names else zero)
        return "\n".join([*lines, lay("return (", [*answers, *self._ends(tables, states)], ")", 4)])

    def _taken(self, reads: Mapping[str, str]) -> list[str]:
        """What the core takes in one step. reads: its rows."""
        return [*(reads.get(a.of) or safe_name(a.of) for a in (*self.core_inputs, *self.core_params)), *self.carried]

    def _stepped(self) -> tuple[list[str], str]:
        """The tables, positions first, and the line of a step's results but the tables."""
        tables = [f"{x}.movedim({one.axis}, 1)" for x, one in zip(self.held, self.tables, strict=True)]
        taken = self._taken({rows.name: f"_table_rows({tables[i]}, {safe_name(rows.place)})" for i, rows in self.rows})
        return tables, lay(f"{self.local['found']} = _event_step_{self.suffix}(", taken, ")", 4)

    def _write(self) -> str:
        """The step in place."""
        (tables, call), found, count = self._stepped(), self.local["found"], len(self.program.outputs)
        lines = [*self._head("write", "One step; rows are written into the tables."), call]
        for i, one in enumerate(self.tables):
            lines.append(f"    _table_set({tables[i]}, {safe_name(one.written.place)}, {found}[{count + i}])")
        held = {f"tables[{i}]": x for i, x in enumerate(self.held)}
        ends = [held.get(x, x) for x in self._ends("tables", f"{found}[{count + len(self.tables)}:]")]
        return "\n".join([*lines, lay("return (", [f"*{found}[:{count}]", *ends], ")", 4)])

    def _step(self) -> str:
        (tables, call), found, count = self._stepped(), self.local["found"], len(self.program.outputs)
        made = [f"_table_step({tables[i]}, {safe_name(one.written.place)}, {found}[{count + i}]).movedim(1, {one.axis})"
                for i, one in enumerate(self.tables)]  # fmt: skip
        lines = [*self._head("step", "One step; tables are copied."), call, lay(f"{self.local['tables']} = [", made, "]", 4)]
        ends = self._ends(self.local["tables"], f"{found}[{count + len(self.tables)}:]")
        return "\n".join([*lines, lay("return (", [f"*{found}[:{count}]", *ends], ")", 4)])

    def _shapes(self) -> list[str]:
        """With rows as far as they tell sizes."""
        return self._taken({rows.name: self._row(i, rows) for i, rows in self.rows})

    def _row(self, table: int, rows: Rows) -> str:
        """A tensor without memory, of the shape of rows that are read."""
        one, whole = self.tables[table], self.held[table]
        several = self.inner.inputs[rows.name].dims[len(self.program.states[one.state].dims) - 1 :]
        shape = f"{safe_name(rows.place)}.shape[-1:]" if several else "()"
        return f"{whole}.new_empty(({whole}.shape[0], *{shape}, *{whole}.shape[1:{one.axis}], *{whole}.shape[{one.axis + 1}:]))"


def _numbers(values: Iterable[int]) -> str:
    return group([str(x) for x in values])
