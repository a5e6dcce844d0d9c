"""How much of a program's shared memory the tiles of a kernel need, as Python that an emitted file runs at a call.

In: the tile model's summaries of a block's kernels. Out: text. `_needs_triton` counts bytes from the sizes of the dims that
programs hold whole and that only a call knows; `_stages` lets no more loads be in flight than there is room for;
`_ready_triton` says whether there is room at all. The count is the tile model's: it errs on the safe side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from seqc.backends.triton_gpu.roles import ALL
from seqc.backends.triton_gpu.tuning.kernel_summary import KernelSummary, Tile
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.ir.block import BATCH, ROW
from seqc.ir.dims import base
from seqc.ir.program import Program

TEAM = "team_"  # of the names of kernels of which a program may take any number of sequences
NOMINAL = "sm_90"  # whose limit counts where there is no device to ask
IO = 2  # bytes of an element of the storage type that summaries are made for; in the text it is a variable

_DEVICE = '''
def _room(device):
    """Bytes of shared memory that a program may have on a device; on {machine} where there is none to ask."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return {bytes}
    told = torch.cuda.get_device_properties(device)
    return getattr(told, "shared_memory_per_block_optin", told.shared_memory_per_block)
'''
_ROOM = '''
def _needs_triton(io, {sizes}{batch}):
    """By kernel: bytes of shared memory for the tiles that it keeps, and for one turn's loads. io: those of an element."""
    {lengths}{stay}
    return {{
        {needs}
    }}


def _stages(kernel, most, x, {sizes}):
    """How many turns' loads a kernel may have in flight: as many as fit beside what it keeps."""
    kept, loads = _needs_triton(x.element_size(), {sizes})[kernel]
    return max(1, min(most, (_room(x.device) - kept) // max(loads, 1)))


_READY = {{}}  # device, dtype, sizes and whether no gradient follows -> whether the kernels fit


def _ready_triton(x, {sizes}, alone=False):
    """Whether the kernels' tiles fit the device at these sizes: all of them, or those that a call takes where no gradient
    follows. It is asked at every call, and remembers."""
    {given} = {whole}
    key = x.device, x.dtype, {sizes}, alone
    if key not in _READY:
        room, needs = _room(x.device), _needs_triton(x.element_size(), {sizes})
        kernels = {infer} if alone else {each}
        need = max(({least} for k in kernels), default=0)
        _READY[key] = need <= room
        if need > room and not alone:
            warnings.warn(
                f"{spec}: with {told} a program of the Triton kernels needs {{need}} bytes of shared memory, and may have "
                f"{{room}} on {{x.device}}: plain torch runs. Kernels for such sizes alone, or what stands against them: "
                f"seqc compile SPEC {fixed}",
                stacklevel=2,
            )
    return _READY[key]
'''
_STAY = """
    stays = 0 if torch.version.hip else 2 if io == 4 else 1  # what is kept from turn to turn: in registers on AMD, and of
    # fp32 both parts that three products in tf32 take"""


def open_dims(program: Program, summaries: Iterable[KernelSummary], fixed: bool = False) -> tuple[str, ...]:
    """Dims of any size that tiles in shared memory hold, or pieces of them, in declared order. fixed: those of one size too."""
    held: set[str] = set()
    for one in summaries:
        whole = {d.name for d in one.dims if d.role in ("whole", "passed")}
        held |= {base(d) for tile in (*one.scratch, *one.kept, *_staged(one)) for d in tile.dims if d in whole}
    return tuple(name for name, dim in program.dims.items() if name in held and (fixed or len(dim.choices) != 1))


def room_text(
    spec: str, summaries: Mapping[str, KernelSummary], blocks: Mapping[str, Mapping[str, int]],
    open_: Sequence[str], names: Mapping[str, str], tiles: Mapping[str, str], lengths: Mapping[str, str],
    infer: Sequence[str] = (),
) -> str:
    """The functions. blocks: by kernel, the elements of each cut dim that a program takes; names, tiles: dim -> variables of
    its size and of its tile's length; lengths: open dim -> that length, as an expression; infer: the kernels that a call takes
    where no gradient follows."""
    needs = []
    for name, summary in summaries.items():
        known = {d.name: str(d.size) for d in summary.dims} | {d: str(n) for d, n in blocks[name].items()}
        known |= {d: tiles[_whole(d)] for d in known if _whole(d) in open_ and d not in blocks[name]}
        known |= {BATCH: tiles[BATCH]} if name.startswith(TEAM) else {}
        known |= {d: str(summary.rows) for d in known if base(d) == ROW}
        scratch, kept, staged = (_bytes(tiles, known) for tiles in (summary.scratch, summary.kept, _staged(summary)))
        stays = [f"stays * {term}" for term in kept]
        counted = [[*scratch, *stays], staged]
        if summary.pieces is not None:
            known |= {d.name: f"min({tiles[_whole(d.name)]}, _COLUMNS)" for d in summary.dims if d.name.endswith(ALL)}
            told = [f"max(stays, 1) * {term}" for term in _bytes(summary.pieces.told, known)]
            both = (_bytes(tiles, known) for tiles in (summary.pieces.held, summary.pieces.again))
            counted = [scratch, told, *([f"stays * {term}" for term in terms] for terms in both)]
        needs.append(f'"{name}": ({", ".join(" + ".join(terms) or "0" for terms in counted)}),')
    sizes, team = [names[d] for d in open_], [name for name in summaries if name.startswith(TEAM)]
    return _ROOM.format(
        spec=spec,
        sizes=", ".join(sizes),
        given=", ".join(sizes),
        whole=", ".join(f"int({x})" for x in sizes),
        lengths="\n    ".join(f"{tiles[d]} = {lengths[d]}" for d in open_),
        infer=quoted([name for name in summaries if name in infer]),
        each=f"[k for k in needs if k not in {quoted(team)}]" if team else "needs",
        batch=f", {tiles[BATCH]}=16" if team else "",
        least=f"_least_triton(k, needs, x, {', '.join(sizes)})" if team else "sum(needs[k])",
        stay=_STAY if any(one.kept or one.pieces for one in summaries.values()) else "",
        needs="\n        ".join(needs),
        told=", ".join(f"{d} = {{{names[d]}}}" for d in open_),
        fixed=" ".join(f"--dim {d}={{{names[d]}}}" for d in open_),
    ).strip()


def device_text() -> str:
    """What the functions ask of a device."""
    machine = target_named(NOMINAL)
    return _DEVICE.format(machine=f"an {machine.machine}", bytes=machine.shared_per_program).strip()


def _whole(d: str) -> str:
    """The declared dim behind one that a program holds whole."""
    return base(d).removesuffix(ALL)


def quoted(names: Sequence[str]) -> str:
    """A tuple of strings."""
    listed = ", ".join(f'"{x}"' for x in names)
    return f"({listed}{',' if len(names) == 1 else ''})"


def _staged(summary: KernelSummary) -> tuple[Tile, ...]:
    """Loads that wait in shared memory: where there is no matrix product, they go to registers."""
    return summary.staged if summary.dots else ()


def _bytes(tiles: Iterable[Tile], lengths: Mapping[str, str]) -> list[str]:
    """Terms such as `512 * BK * (2 * io + 8)`: tiles of the same lengths together."""
    found: dict[tuple[int, tuple[str, ...]], tuple[int, int]] = {}
    for tile in tiles:
        fixed, factors = 1, []
        for code in (lengths[d] for d in tile.dims):
            if code.isdigit():
                fixed *= int(code)
            else:
                factors.append(code)
        key = (fixed, tuple(sorted(factors)))
        narrow, wide = found.get(key, (0, 0))
        found[key] = (narrow + 1, wide) if tile.bytes == IO else (narrow, wide + tile.bytes)
    terms = []
    for (fixed, names), (narrow, wide) in found.items():
        io = "io" if narrow == 1 else f"{narrow} * io"
        each = f"({io} + {wide})" if narrow and wide else io if narrow else str(wide)
        terms.append(" * ".join([*([str(fixed)] if fixed > 1 else []), *names, each]))
    return terms
