"""`python -m benchmarks.fields`: recurrences of several fields beside the libraries that people use there, in one run.

In: a folder. Out: results.json and results.md of `python -m benchmarks` there, for SPECS and without single tokens, and above
them what is said in short: how many times as fast as each peer the first of ours is. `benchmarks.filters` (one long channel
beside scipy) and `benchmarks.convolutions` (S4 by FFT) stand on the page as they print. Peers: `benchmarks/requirements.txt`.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks import __main__ as tables
from benchmarks import convolutions, filters
from benchmarks.contender import FORWARD, TRAIN
from benchmarks.entry import OURS
from benchmarks.page import LOOP

SPECS = ("lif", "garch", "hmm", "rnnt", "gae", "lfilter", "hgrn", "mamba")  # the longest last
NOT_PEERS = (*OURS, LOOP)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the page; 1 where an answer is wrong."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.fields", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--out", type=Path, default=Path("bench_out"), help="folder of the results (default: bench_out)")
    made.add_argument("--minutes", type=float, default=5.0, help="begin no other spec after so many (default: 5)")
    made.add_argument("--rounds", type=int, default=5, help="alternating rounds (default: 5)")
    made.add_argument("--threads", type=int, default=1, help="cores and threads for everyone (default: 1)")
    made.add_argument("--quick", action="store_true", help="tiny shapes: does it run?")
    args = made.parse_args(arguments)
    words = ["--out", str(args.out), "--minutes", str(args.minutes)]
    words += ["--rounds", str(args.rounds), "--threads", str(args.threads)]
    words += ["--part", FORWARD, "--part", TRAIN, *(["--quick"] if args.quick else ["--size", "T=1024", "--size", "U=64"])]
    wrong = tables.main([*SPECS, *words])
    texts = []
    few = ["--samples", "4800", "--calls", "1"] if args.quick else []
    for module, more in ((filters, ["--rounds", "10", *few]), (convolutions, ["--rounds", str(args.rounds)])):
        said = io.StringIO()
        with redirect_stdout(said):
            wrong |= module.main([*more, *(["--shapes", "1"] if args.quick and module is convolutions else [])])
        texts.append(f"## `python -m {module.__name__}`\n\n```text\n{said.getvalue()}```\n")
    page = args.out / "results.md"
    body = page.read_text(encoding="utf-8")
    head = short(args.out / "results.json")
    page.write_text("\n".join([*head, body, *texts]), encoding="utf-8")
    print("\n".join([*head, *texts]))
    return wrong


def short(path: Path) -> list[str]:
    """The table of peers: time over that of ours."""
    lines = ["# Beside libraries of several fields", "", "| spec | | peer | times as fast |", "|---|---|---|---|"]
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        if row["contender"] not in NOT_PEERS and row["ratio"]:
            low, middle, high = row["ratio"]
            lines.append(f"| {row['label']} | {row['part']} | {row['contender']} | {middle:.3g} ({low:.3g} to {high:.3g}) |")
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main())
