"""The Python side of the kernels: functions that allocate, launch, and add up what programs left in parts.

In: a `Schedule`, its printed kernels, and the tiles. Out: the text of `_forward_triton`, `_infer_triton`,
`_backward_triton` and `_step_triton` with the signatures of `seqc.emit.signature`, and what forward saves. Sums over
programs are plain `sum`s of partial results in a fixed order: no atomics, so a run gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from seqc.backends.triton_gpu.extents import KEPT, TAB
from seqc.backends.triton_gpu.fetching import WALKS
from seqc.backends.triton_gpu.gradient_sums import GradientSums
from seqc.backends.triton_gpu.gradients_asked_for import WRITTEN, serves
from seqc.backends.triton_gpu.kernel import SPANS, Array
from seqc.backends.triton_gpu.print_items import OUTPUTS, SAVE
from seqc.backends.triton_gpu.print_kernel import Printed
from seqc.backends.triton_gpu.roles import ALL
from seqc.backends.triton_gpu.segments import neighbours
from seqc.backends.triton_gpu.spans import CALL, SPAN
from seqc.backends.triton_gpu.texts import host_code
from seqc.emit.names import dim_name, safe_name
from seqc.emit.signature import Dtype, Saved
from seqc.emit.text import lay, returned, unpack, wrapped
from seqc.ir.dims import base

STATE_TYPE = '''
# True: kernels hand on the states of blocks, and their cotangents, in fp32 for bf16 inputs too, which is twice the traffic.
STATES_IN_FP32 = False


def _state_type(io):
    """The type in which kernels hand on what is a state, or a cotangent of one, for every block. io: that of the inputs."""
    return torch.bfloat16 if io == torch.bfloat16 and not STATES_IN_FP32 else torch.float32
'''

WARPS = '''
def _warps(programs, x, most, held):
    """Warps of a program that walks step after step. held: elements of its states.

    All warps compute alike what a step has of a channel or of a row alone. Where programs leave multiprocessors idle, `most`
    warps end a step soonest; where more than three share one, the fewest whose threads hold 16 elements compute least.
    """
    units = torch.cuda.get_device_properties(x.device).multi_processor_count if x.device.type == "cuda" else 132
    return most if programs <= 3 * units else max(1, min(most, held // (16 * 32)))
'''

FEW = "_FEW_STEPS"
SAVING_DOC = "Outputs, final states, and what the gradient needs."
QUIET_DOC = "Outputs and final states."
RUN_DOC = "Outputs and final states; and what the gradient needs, or None where the first argument says that none follows."
KEYS = ("cu_seqlens=cu_seqlens", "reverse=reverse")

SUPPORT = '''
def _pad(extent, least=1):
    """The tile length that holds `extent` elements: a power of two."""
    return max(least, 1 << max(extent - 1, 0).bit_length())


def _types(*tensors):
    """(type of the operands of matrix products, precision of fp32 products), for inputs of these types."""
    kinds = {x.dtype for x in tensors}
    operands = tl.bfloat16 if torch.bfloat16 in kinds else tl.float16 if torch.float16 in kinds else tl.float32
    return operands, "ieee" if torch.version.hip else "tf32x3"

'''


def warps_of_call(programs: int, units: int, most: int, held: int) -> int:
    """What `_warps` gives on a device of so many units."""
    return most if programs <= 3 * units else max(1, min(most, held // (16 * 32)))


class Launcher(GradientSums):
    """Prints the functions of one schedule."""

    # ---- launching ----

    def launch(self, printed: Printed) -> list[str]:
        """One launch, every argument in place."""
        arguments = ["None" if a is None else self.handed(a, printed) for a in printed.given] + ["cu_seqlens"]
        arguments += [self.runtime(x) for x in printed.runtime]
        named = [f"{name}={self.dims[d]}" for d, name in printed.dims]
        rows = self.rows_per_block()
        named += [f"{name}={rows if d == 't' else self.blocks[d]}" for d, name in printed.tiles]
        names = {**{d: self.dims[d] for d in self.program.dims}, "t": str(rows), "s": str(rows)}
        named += [f"{name}={host_code(n, names)}" for name, n in printed.scalars]
        stages = self.stages(printed)
        special = {"STAGES": stages, "PARTS": self.parts(printed)}
        if printed.columns:
            tile = self.blocks[printed.columns]
            special["COLUMNS"] = self.either(lambda one: neighbours(tile, self.tiles[one.kernel.name].warps), printed)
        named += [f"{x}={special.get(x, x)}" for x in printed.settings]
        named += [f"{x}={self.saves() if x == SAVE and on else on}" for x, on in printed.switches.items()]
        named += [f"num_warps={self.either(self.warps, printed)}", f"num_stages={stages}", "enable_fp_fusion=True"]
        lines = [f"{printed.name}[({self.grid(printed)},)]("]
        lines += wrapped([*arguments, *named], 108)
        return [*lines, ")"]

    def stages(self, printed: Printed) -> str:
        """How many turns' loads are in flight, as far as there is room."""
        most = self.either(lambda one: str(self.tiles[one.kernel.name].stages), printed)
        if most == "1" or not (self.open and printed.in_dots):
            return most
        name = self.either(_quoted_name, printed).strip("()")
        return f"_stages({name}, {most}, {self.main}, {', '.join(self.dims[d] for d in self.open)})"

    def warps(self, printed: Printed) -> str:
        """The warps of a program: a number, or what only a call knows (`_warps`)."""
        most = self.tiles[printed.kernel.name].warps
        axes = [self.roles.axes(decl.dims) for decl in self.program.states.values()]
        steps = self.schedule.block.rows == 1 and not printed.in_dots and printed.kernel.name in WALKS
        if not steps or most == 1 or max(map(len, axes), default=0) < 2:
            return str(most)
        held = [" * ".join(self.blocks[base(d)] for d in own) for own in axes if own]
        return f"{self.helper('_warps')}({self.grid(printed)}, {self.any}, {most}, {' + '.join(held)})"

    def handed(self, array: Array, printed: Printed) -> str:
        """What a launch gives as one of a kernel's arrays: the initial states, where no others are kept for backward."""
        name = self.local(array.name)
        whole = self.schedule.spans == CALL and SPANS in array.axes and printed.kernel.span_in_grid
        return f"{name} if {KEPT} else {self.local(f'{array.source}_0')}" if whole else name

    def saves(self) -> str:
        """Whether a launch keeps states for a gradient."""
        tests = [self.save] * self.joined + [f"{KEPT} > 0"] * (self.schedule.spans == CALL)
        return " and ".join(tests) or "True"

    def runtime(self, name: str) -> str:
        """A run-time argument of a kernel."""
        return str(self.schedule.spans) if name == "EVERY" and self.schedule.spans != CALL else name

    def parts(self, printed: Printed) -> str:
        """How many parts a long product falls into: one a warp, of 16 elements or more."""
        whole = [self.blocks[d] for d, _ in printed.tiles if d.endswith(ALL)]
        if not whole or printed.kernel.in_fours:
            return "1"
        return f"min({self.tiles[printed.kernel.name].warps}, {whole[0]} // 16)"

    def chosen(self, ways: Sequence[Sequence[Sequence[Printed]]]) -> list[str]:
        """`way = ..`: which way does the work."""
        whole = ways[0][0][0]
        lines: list[str] = []
        for groups in ways:
            counts = [
                f"{self.either(_quoted_name, one)}: {self.programs(one, whole, group)}" for group in groups for one in group]
            flat = f"{{{', '.join(counts)}}},"
            lines += [flat] if len(flat) <= 108 else ["{", *wrapped(counts, 104), "},"]
        return [f"way = {self.helper('_way')}(", f"{TAB}_PACE, {self.any}, NT,", *(TAB + line for line in lines), ")"]

    def by_way(self, what: str, there: Sequence[str]) -> list[str]:
        """What "forward", "infer" or "backward" stands for, in the way that takes least time. there: arrays that exist."""
        ways = self.ways(what)
        lines: list[str] = []
        before = [self.printed[name] for name in self.schedule.before.get(what, ())]
        if before:
            lines += self.launches(what, [[one] for one in before], there)
            there = [*there, *(a.name for one in before for a in one.arrays)]
            sizes = self.resized(ways[0][0], {})
            changed = self.resized(before, sizes)
            lines += [line for d, found in sizes.items() if d in changed for line in found]
        own = self.work(what, there)
        if len(ways) == 1:
            return lines + own
        lines += self.chosen(ways)
        for i, groups in enumerate(ways[1:], 1):
            lines += [f"{'if' if i == 1 else 'elif'} way == {i}:", *(TAB + x for x in self.launches(what, groups, there))]
        return [*lines, "else:", *(TAB + x for x in own)]

    def types(self) -> list[str]:
        """Types of operands, by the names that kernels take them by."""
        inputs = ", ".join(safe_name(x) for x in self.program.inputs) or self.any
        return [f"DOT, PRECISION = _types({inputs})"]

    def sizes_before(self, first: Sequence[Printed]) -> list[str]:
        """The tile lengths of the kernels that come first, where they stand before all else."""
        return self.sizes(first)

    def work(self, what: str, there: Sequence[str]) -> list[str]:
        """The launches of the first way, before each the arrays that it leaves parts in, and behind it their sums."""
        return self.launches(what, self.ways(what)[0], there)

    # ---- functions ----

    def forward(self) -> list[str]:
        """`_forward_triton` and `_infer_triton`: one function with a switch, where their kernels are one text with a switch."""
        infer = self.printed.get("infer")
        if infer is not None and not (self.joins() and self.printed["forward"].text == infer.text):
            return [self.run("_forward_triton", "forward"), self.run("_infer_triton", "infer")]
        self.joined, self.quiet = True, {} if infer is None else {"forward": infer}
        texts = [self.run("_run_triton", "forward")]
        self.joined, self.quiet = False, {}
        keys = ", ".join(KEYS)
        for name, save, doc in (("_forward_triton", True, SAVING_DOC), ("_infer_triton", False, QUIET_DOC)):
            lines = [f"return _run_triton({save}, *tensors, {keys})"]
            if not save:
                lines[0] += f"[:{len(self.program.outputs) + len(self.program.states)}]"
                if self.schedule.single is not None:
                    few = [f"if tensors[0].shape[1] <= {FEW}:", f"{TAB}return _steps_triton(*tensors, {keys})"]
                    lines = [*few, *lines]
            texts.append(_function(name, ["*tensors"], doc, lines, calls=True))
        return texts

    def joins(self) -> bool:
        """Whether one function may do forward with and without what a gradient needs."""
        return True

    def run(self, name: str, what: str) -> str:
        """One of these functions. what: "forward" or "infer"; in one with a switch, "forward"."""
        program, save = self.program, what == "forward"
        arguments = self.arguments
        results = [*program.outputs, *(f"{s}_T" for s in program.states)]
        saved = self.saved_names() if save else []
        every = self.kernels_of(what)
        names = [self.local(x) for x in (*results, *saved)]
        lines = self.taken_one_by_one(arguments) if self.schedule.single is not None and not save else []
        lines += [*self.unpack(every, True, self.rows_per_block(), len(self.ways(what)) > 1), *self.types()]
        lines += self.sizes_before(self.ways(what)[0][0])
        arrays = {a.name: a for k in every for a in k.arrays}
        made = [a for a in arrays.values() if a.role in ("output", "final")]
        for a in arrays.values():
            if a.role in ("output", "final") or a.name in saved:
                lines.append(self.allocate(a) + (f" if {self.save} else None" if self.joined and a.name in saved else ""))
        assert {a.name for a in made} == set(results), (results, list(arrays))
        lines += [*self.by_way(what, saved), f"return {unpack(names)}"]
        doc = RUN_DOC if self.joined else SAVING_DOC if save else QUIET_DOC
        first = [self.save] if self.joined else []
        return _function(name, [*first, *(safe_name(a) for a in arguments)], doc, lines, calls=True)

    def taken_one_by_one(self, arguments: Sequence[str]) -> list[str]:
        """The way around blocks for few steps."""
        call = lay("return _steps_triton(", [*(safe_name(a) for a in arguments), *KEYS], ")", 4)
        return [f"if {self.any}.shape[1] <= {FEW}:", *call.split("\n")]

    def steps(self, few: int) -> str:
        """`_steps_triton`: any number of steps, one after the other, and up to how many that is how they are taken."""
        program, printed = self.program, self.printed["steps"]
        arguments = self.arguments
        results = [*program.outputs, *(f"{s}_T" for s in program.states)]
        lines = self.unpack([printed], False, 1)
        lines += [*self.types(), *self.sizes([printed])] if "DOT" in printed.settings else self.sizes([printed])
        lines += [self.allocate(a) for a in printed.arrays if a.role in ("output", "final")]
        lines += [*self.launch(printed), f"return {unpack([self.local(x) for x in results])}"]
        doc = "Outputs and final states, step by step."
        function = _function("_steps_triton", [safe_name(a) for a in arguments], doc, lines, calls=True)
        words = f"so many steps, taken one by one, are modelled no slower than a block of {self.rows_per_block()}"
        return f"{FEW} = {few}  # {words}\n\n\n{function}"

    def step(self) -> str:
        """`_step_triton`: a sequence of one step."""
        program = self.program
        if program.no_step:
            names = [safe_name(x) for x in self.arguments]
            return _function("_step_triton", names, "Refused.", [f'raise NotImplementedError("{program.no_step}")'])
        given = [safe_name(a.name) for a in self.table if a.timed]
        others = [safe_name(a.name) for a in self.table if not a.timed]
        results = [self.local(x) for x in (*program.outputs, *(f"{s}_T" for s in program.states))]
        rows = [f"{x}.unsqueeze(1)" for x in given] + others
        whole = "_steps_triton" if self.schedule.single is not None else "_infer_triton"
        lines = lay(f"{unpack(results)} = {whole}(", rows, ")", 4)[4:].split("\n    ")
        outputs = [f"{self.local(o)}.squeeze(1)" for o in program.outputs]
        lines.append(f"return {unpack([*outputs, *results[len(outputs) :]])}")
        return _function("_step_triton", [*given, *others], "One step: a sequence of one.", lines)

    def backward(self) -> str:
        """`_backward_triton`."""
        program = self.program
        arguments = self.arguments
        given = self.saved_names() + [f"d_{o}" for o in program.outputs]
        given += [f"d_{s}_T" for s in program.states]
        every = self.kernels_of("backward")
        lines = [*self.unpack(every, False, self.rows_per_block(), len(self.ways("backward")) > 1), *self.types()]
        lines += self.sizes_before(self.ways("backward")[0][0])
        lines += self.by_way("backward", given)
        moved = [a for a in self.table if a.gradient]
        apart = {a.name for a in moved if a.of in self.schedule.outer}
        apart |= {a.name for a in moved for k in every if self.serves(k) < self.every and a.of in self.serves(k)}
        for a in moved:
            own = self.input_gradient(a.name) if a.kind == "input" else []
            own += self.param_gradient(a.name, program.params[a.of]) if a.kind == "param" else []
            lines += [f"if {self.switch(a.of)}:", *(TAB + x for x in own)] if a.name in apart and own else own
        answers = [self.local(f"d_{a.name}") + f" if {self.switch(a.of)} else None" * (a.name in apart) for a in moved]
        lines += returned(answers, 0).split("\n")
        names = [safe_name(a) for a in (*arguments, *given)]
        more = [f"needs=(True,) * {len(moved)}"]
        return _function("_backward_triton", names, "Gradients of every argument of forward.", lines, calls=True, more=more)

    @cached_property
    def every(self) -> frozenset[str]:
        """The arguments with a gradient."""
        return frozenset(a.of for a in self.table if a.gradient)

    def switch(self, of: str) -> str:
        """Whether an argument's gradient is asked for."""
        return f"needs[{[a.of for a in self.table if a.gradient].index(of)}]"

    def serves(self, printed: Printed) -> frozenset[str]:
        """The arguments whose gradient needs what a kernel of a backward pass writes; none for other kernels."""
        return self._serves.get(printed.kernel.name, frozenset())

    @cached_property
    def _serves(self) -> dict[str, frozenset[str]]:
        return serves(self.ways("backward"), self.schedule.outer, self.every)

    def launches(self, what: str, groups: Sequence[Sequence[Printed]], there: Iterable[str]) -> list[str]:
        """Phases one after the other, tile lengths and arrays before them. there: arrays that exist."""
        lines: list[str] = []
        made, sizes = set(there), self.resized(self.ways(what)[0][0], {})
        lean = self.schedule.lean if self.schedule.hands_on(what) else ()
        for group in groups:
            new = self.resized(group, sizes)
            sizes |= new
            lines += [line for d in new for line in new[d]]
            fresh = {a.name: a for k in group for a in k.arrays if a.role in (*WRITTEN, "saved") and a.name not in made}
            made |= fresh.keys()
            own = [self.allocate(replace(a, dtype="io") if a.name in lean else a) for a in fresh.values()]
            own += [line for k in group for line in self.launch(k)]
            own += [line for a in fresh.values() if (line := self.add_up(a, len(groups) > 1))]
            asked = frozenset(x for k in group for x in self.serves(k) if what == "backward")  # a kernel may be of both
            if asked and asked < self.every:
                switches = [self.switch(a.of) for a in self.table if a.of in asked]
                own = [f"if {' or '.join(switches)}:", *(TAB + line for line in own)]
            for a in self.given_where_saved(group, fresh) if self.joined and self.schedule.spans == 1 else ():
                handed = replace(a, dtype="io") if a.name in self.schedule.lean else a
                lines += [f"if not {self.save}:", TAB + self.allocate(handed)]
            lines += own
        return lines

    def given_where_saved(self, group: Sequence[Printed], fresh: Iterable[str]) -> list[Array]:
        """Arrays that kernels hand on to others, and that the function has made already where a gradient follows."""
        found = {a.name: a for k in group for a in k.arrays if a.role == "saved"}
        needed = {a.name for k in group for a in k.given if a is not None and OUTPUTS in k.switches and not k.switches[OUTPUTS]}
        return [a for name, a in found.items() if name not in fresh and name in needed and name in self.saved_names()]

    def saved(self) -> tuple[Saved, ...]:
        """What forward gives to backward."""
        rows = self.rows_per_block() * self.schedule.spans
        blocks, packed = ([f"B * ((T + {rows - 1}) // {rows})"], [f"T // {rows} + B"]) if rows > 1 else (["B", "T"], ["1", "T"])
        if self.schedule.spans == CALL and self.schedule.saved:
            sizes = {d: dim_name(d) for d in self.program.dims}
            blocks = packed = [f"{self.helper(SPAN)}({', '.join(self.spans(sizes, 'packed'))})[2]"]
        out = []
        for s in self.schedule.saved:
            dims = [dim_name(d) for d in self.program.states[s].dims]
            alone = self.schedule.spans == 1 and s in self.schedule.narrow
            dtype: Dtype = "_state_type(io)" if alone else "carry"
            out.append(Saved(self.saved_state(s), (*blocks, *dims), dtype, (*packed, *dims)))
        for array in self.schedule.values:
            dims = [dim_name(d) for d in array.axes[2:]]
            out.append(Saved(self.local(array.name), ("B", "T", *dims), "io", ("1", "T", *dims)))
        return tuple(out)

    def saved_state(self, state: str) -> str:
        """What a state's values are called that forward gives to backward."""
        return f"{state}_every" if self.schedule.spans != 1 else f"{state}_in"

    def saved_names(self) -> list[str]:
        """The names of what forward gives to backward."""
        return [*map(self.saved_state, self.schedule.saved), *(a.name for a in self.schedule.values)]


def _quoted_name(printed: Printed) -> str:
    return f'"{printed.kernel.name}"'


def _function(
    name: str, arguments: list[str], doc: str, lines: list[str], calls: bool = False, more: Sequence[str] = ()
) -> str:
    star = [] if any(x.startswith("*") for x in arguments) else ["*"]
    arguments = [*arguments, *([*star, "cu_seqlens=None", "reverse=False", *more] if calls else [])]
    head = [f"def {name}("] + wrapped(arguments) + ["):"]
    short = f"def {name}({', '.join(arguments)}):"
    if len(short) <= 116:
        head = [short]
    return "\n".join([*head, f'{TAB}"""{doc}"""', *(TAB + line for line in lines)]) + "\n"
