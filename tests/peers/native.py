"""Every peer case in native code: `python -m tests.peers.native [CASE ..]`. Minutes, for each case is compiled."""

from __future__ import annotations

import sys

from tqdm import tqdm

from seqc.diagnostics import SeqcBug, Unsupported
from tests.peers.mappings import PEERS
from tests.peers.running import compare, emitted


def main(cases: list[str]) -> int:
    """Run the named cases (all without names); the number that failed."""
    failed = 0
    for peer in tqdm([peer for peer in PEERS if not cases or peer.case in cases]):
        try:
            compare(peer, emitted(peer, "cpu"))
        except (AssertionError, RuntimeError, SeqcBug, Unsupported) as problem:
            failed += 1
            tqdm.write(f"{peer.case} by {peer.spec}: {type(problem).__name__}: {str(problem).strip()[:500]}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
