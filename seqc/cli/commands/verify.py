"""`seqc verify`: the emitted code of a spec against the oracle, finite differences and itself. In: a spec and wishes.
Out: a line per comparison (or JSON), a progress bar on stderr; exit code 1 if one fails."""

from __future__ import annotations

import argparse
import json
import sys

from seqc.cli.commands.options import add_choices, add_json, add_spec, options


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_spec(parser)
    add_choices(parser)
    help = "where to run: cpu, cuda, or interpreter: Triton's kernels on the CPU (the default for --backend triton)"
    parser.add_argument("--device", metavar="NAME", help=help)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compile, run, compare."""
    from tqdm import tqdm

    from seqc.check.verify_emitted import INTERPRETER, check, count
    from seqc.driver.compile import compile_spec

    wishes = options(args)
    device = known_device(args.device or (INTERPRETER if wishes.backend == "triton" else "cpu"))
    compiled = compile_spec(args.spec, wishes)
    if wishes.backend == "cpu":
        has_compiler()
    findings = []
    with tqdm(total=count(compiled, device), desc=compiled.program.name, file=sys.stderr, disable=None, leave=False) as bar:
        for finding in check(compiled, wishes.dims, device):
            findings.append(finding)
            bar.update()
    good = all(finding.ok for finding in findings)
    place = "in Triton's interpreter" if device == INTERPRETER else f"on {device}"
    if args.json:
        rows = [{"what": f.what, "steps": f.steps, "error": f.error, "allowed": f.allowed, "ok": f.ok} for f in findings]
        print(json.dumps({"ok": good, "findings": rows}, indent=2))
        return 0 if good else 1
    for f in findings:
        print(f"{'ok  ' if f.ok else 'FAIL'}  T = {f.steps:<4d} error {f.error:8.1e} of {f.allowed:7.1e}  {f.what}")
    print(f"{args.spec}: {sum(f.ok for f in findings)} of {len(findings)} comparisons hold, run {place}")
    return 0 if good else 1


def has_compiler() -> None:
    """Raise Unsupported where native code cannot be built."""
    from seqc.backends.native_cpu.loader import _native_search
    from seqc.diagnostics import Unsupported

    if problem := _native_search()[2]:
        raise Unsupported.of("no-compiler", problem, help="`--backend torch` needs none; `seqc doctor` tells more")


def known_device(name: str, interpreter: bool = True) -> str:
    """A device that there is. interpreter: whether Triton's own counts as one. Raises Unsupported for any other."""
    from seqc.check.verify_emitted import INTERPRETER, gpus
    from seqc.diagnostics import Unsupported, near_miss

    kind, colon, number = name.partition(":")
    numbered = kind == "cuda" and (number.isdecimal() if colon else True)
    if name == "cpu" or (interpreter and name == INTERPRETER) or (numbered and int(number or 0) < gpus()):
        return name
    if numbered:
        found = gpus()
        message = f"there is no GPU `{name}` here"
        help = f"torch finds {found} of them" if found else "`seqc doctor` tells more"
        help = "`--device interpreter` runs Triton's kernels on the CPU" if interpreter and not found else help
    else:
        message = f"there is no device `{name}`"
        known = ("cpu", "cuda", *([INTERPRETER] if interpreter else []))
        help = "did you mean `cuda`?" if name.lower() in ("gpu", "nvidia") else near_miss(name, known)
        help = help or f"one of {', '.join(known)}"
    raise Unsupported.of("no-such-device", message, help=help)
