"""Published times of hand-written kernels, for a report to print beside modelled ones.

Nothing of them is measured here, and most are of other GPUs than the report's target: they say what others reach, not by how
much a kernel is ahead.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """Milliseconds of one system at one shape, as its own or another project's benchmark page has them. training: forward and
    backward together; None where only forward was published."""

    spec: str
    shape: str
    system: str
    device: str
    forward: float
    training: float | None
    source: str
    called: str = ""
    """How the kernels were called, where that was not as a spec has it: `gates` and norms of q and k in the kernels."""

    @property
    def words(self) -> str:
        """`flash-linear-attention on GB200: 1.77 ms forward, 7.67 with backward (..)`."""
        also = "" if self.training is None else f", {self.training:.2f} with backward"
        return f"{self.system} on {self.device}: {self.forward:.2f} ms forward{also} ({self.source})"


FLA, FLA_PAGE = "flash-linear-attention", "benchmarks of flash-linear-attention 0.6"
GDN_PAGE, CULA = "benchmarks of FlashQLA and cuLA", "cuLA, BENCHMARK_H200"
FLASH_KDA, GATES, NORMS = "FlashKDA, BENCHMARK_H20", "gates", "norms"
PEERS = (
    Peer("retention", "B1 T8192 H96 D128", FLA, "GB200", 0.79, 2.62, FLA_PAGE),
    Peer("gla", "B1 T8192 H96 D128", FLA, "GB200", 1.77, 7.67, FLA_PAGE),
    Peer("gated_delta_rule", "B1 T8192 H96 D128", FLA, "GB200", 1.27, 4.74, FLA_PAGE),
    Peer("gated_delta_rule", "B1 T8192 H96 D128", FLA, "H800", 2.03, None, GDN_PAGE, NORMS),
    Peer("gated_delta_rule", "B2 T16384 H16 D128", FLA, "H800", 1.34, None, GDN_PAGE, NORMS),
    Peer("gated_delta_rule", "B4 T2048 H16 D128", FLA, "H800", 0.62, None, GDN_PAGE, NORMS),
    Peer("kda", "B1 T8192 H96 D128", FLA, "H800", 3.27, None, GDN_PAGE, GATES),
    Peer("kda", "B2 T16384 H16 D128", FLA, "H800", 2.30, None, GDN_PAGE, GATES),
    Peer("kda", "B1 T512 H64 D128", FLA, "H200", 0.576, None, CULA, GATES),
    Peer("kda", "B1 T512 H64 D128", "cuLA", "H200", 0.230, None, CULA),
    Peer("kda", "B1 T8192 H64 D128", FLA, "H200", 1.82, None, CULA, GATES),
    Peer("kda", "B1 T8192 H64 D128", "cuLA", "H200", 1.76, None, CULA),
    Peer("kda", "B1 T16384 H64 D128", FLA, "H200", 3.60, None, CULA, GATES),
    Peer("kda", "B1 T16384 H64 D128", "cuLA", "H200", 3.52, None, CULA),
    Peer("kda", "B1 T8192 H96 D128", FLA, "H20", 4.839, None, FLASH_KDA, GATES),
    Peer("kda", "B1 T8192 H64 D128", FLA, "H20", 3.166, None, FLASH_KDA, GATES),
    Peer("gated_delta_rule", "B1 T8192 H96 D128", FLA, "H20", 3.199, None, FLASH_KDA, NORMS),
    Peer("gated_delta_rule", "B1 T8192 H64 D128", FLA, "H20", 2.006, None, FLASH_KDA, NORMS),
)  # fmt: skip


def beside(spec: str, shape: str) -> tuple[Peer, ...]:
    """What was published of a spec's recurrence at a shape."""
    return tuple(one for one in PEERS if (one.spec, one.shape) == (spec, shape))
