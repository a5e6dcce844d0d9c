"""Names inside one kernel, each given once: what a kernel writer would call it, with a number where that is taken."""

from __future__ import annotations

from seqc.backends.triton_gpu.roles import ALL, rank_tile
from seqc.emit.names import safe_name
from seqc.ir.dims import base, is_rank, piece, rank_size, unpieced

FIXED = (
    "T", "NT", "BT", "B", "N_STEPS", "N_BLOCKS", "STEP", "STAGES", "DOT", "PRECISION", "tl", "triton",
    "PARTS", "COLUMNS", "FIRST", "HELD", "AT_ONCE", "i_some", "SAVE", "OUTPUTS",
    "i_p", "i_l", "i_t", "i_n", "i_s", "i_0", "o_t", "m_t", "o_r", "first", "first_block", "p_cu_seqlens",
)  # fmt: skip


class Names:
    """Allocates names; the dims come first, so that they keep theirs."""

    def __init__(self, dims: tuple[str, ...]) -> None:
        self.taken = set(FIXED)
        self.calls: set[str] = set()  # the primitives of `device` that the printed text calls
        self.used: set[str] = set()  # what the printed text names: the arguments that it needs are among it
        self.numbers: dict[str, int] = {}  # wanted name -> a number up to which all are taken
        whole = [d for d in dims if d.endswith(ALL)]
        ranks = [d for d in dims if is_rank(d)]
        dims = tuple(d for d in dims if d not in (*whole, *ranks))
        self.dims = {d: self.fresh(safe_name(d)) for d in dims}
        self.dims["B"], self.dims["t"] = "B", "BT"
        self.low: dict[str, str] = {}
        for d in ("B", *dims):
            self.low[d] = self._low(d)
        self.low["t"] = "t"
        self.taken |= {f"{kind}_{low}" for kind in "iom" for low in self.low.values()}
        self.block = {d: self.fresh(f"B{self.dims[d]}") for d in ("B", *dims)}
        self.block["t"] = "BT"
        self.count = {d: self.fresh(f"N{self.dims[d]}") for d in ("B", *dims)}
        for d in ranks:  # the size tells itself
            self.dims[d], self.block[d], self.low[d] = str(rank_size(d)), str(rank_tile(d)), f"r{rank_size(d)}"
            self.taken |= {f"{kind}_{self.low[d]}" for kind in "om"}
        for d in whole:  # all units of a dim: its extent, positions of their own
            dim = d.removesuffix(ALL)
            self.dims[d], self.low[d] = self.dims[dim], f"{self.low[dim]}_all"
            self.taken |= {f"{kind}_{self.low[d]}" for kind in "om"}
            self.block[d], self.count[d] = self.fresh(f"B{self.dims[d]}_ALL"), self.fresh(f"N{self.dims[d]}_ALL")

    def _low(self, dim: str) -> str:
        low = self.dims[dim].lower()
        return self.dims[dim] if low in ("t", "s", "n", "p", "r", *self.low.values()) else low

    def fresh(self, wanted: str) -> str:
        """`wanted`, or with the least number that makes it new."""
        wanted = unpieced(wanted)
        name, number = wanted, self.numbers.get(wanted, 0)  # the numbers below were taken when it was last asked for
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        self.numbers[wanted] = max(number - 1, 0)
        return name

    def use(self, name: str, *more: str) -> str:
        """The name of an argument, for a text that is printed, which has the others too."""
        self.used |= {name, *more}
        return name

    def call(self, function: str) -> str:
        """The name of a primitive of `device`, for a text that calls it."""
        self.calls.add(function)
        return function

    def extent(self, dim: str) -> str:
        """The extent of a dim: `K`; of time in a block: `BT`."""
        return self.use(self.dims[base(dim)])

    def tile(self, dim: str) -> str:
        """The length of the tile axis: `BK`."""
        return self.use(self.block[base(dim)])

    def offsets(self, dim: str) -> str:
        """The positions along the tile axis: `o_k`."""
        return f"o_{self.low[base(dim)]}{piece(dim) or ''}"

    def mask(self, dim: str) -> str:
        """Which of them lie within the dim: `m_k`."""
        return f"m_{self.low[base(dim)]}{piece(dim) or ''}"

    def program(self, dim: str) -> str:
        """The program's index of a grid dim, or of its piece of a blocked dim: `i_h`."""
        return f"i_{self.low[base(dim)]}"
