"""From a spec to a trained model on a CPU, within two minutes: `make demo`, or `python -m examples.demo`.

Compiles gated linear attention, says what was decided, compares the emitted file with the oracle and with the loop that
one would write, then trains a character model with it on Python's own standard library. Plots go to demo_out/. It watches
its own pace: on a slow or busy machine it races fewer lengths and trains fewer updates. Ctrl-C ends a part early, and what was
reached is kept and told.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from time import perf_counter
from types import ModuleType

import torch

import seqc
from examples import checks, corpus, plots, speed
from examples.char_model import CharModel
from examples.pace import Pace, busy, load
from examples.training import evaluate, train

SPEC = Path(__file__).resolve().parent.parent / "specs" / "gla.seq"
WIDTH, HEADS, BLOCKS = 128, 4, 2
BATCH, STEPS = 16, 256
SECONDS, RACES = 90.0, 0.6  # for everything, and the share of them that is over when the races end
JUDGED, LAST = 32, 6.0  # windows of held-out text; seconds for the continuation and the pictures
INTERRUPTED = 130
PROMPT = "def read_lines(path):\n    "


def main(arguments: list[str] | None = None) -> int:
    """The demo, step by step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder for the file and the plots")
    parser.add_argument("--updates", type=int, default=800, help="training updates (default: 800)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256, 1024, 2048], help="T of the speed test")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for everything, at most (default: {SECONDS:.0f})")
    args = parser.parse_args(arguments)
    pace = Pace(args.seconds) if arguments is None else Pace(args.seconds, perf_counter())
    try:
        return tell(args, pace)
    except KeyboardInterrupt:
        print(f"\nstopped; what was finished lies in {args.out}/", file=sys.stderr)
        return INTERRUPTED


def tell(args: argparse.Namespace, pace: Pace) -> int:
    """All parts; a part that Ctrl-C has ended early is told as far as it went."""
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    if busy():
        torch.set_num_threads(1)  # threads that wait for each other wait for other processes too
    module = compile_gla(args.out)
    check(module)
    times = race(module, args.lengths, args.out, pace)
    learn(module, args.updates, args.out, pace)
    if times:
        longest = max(times)
        eager, ours = times[longest]["forward+backward"]
        print(f"\nAt T = {longest} the compiled form trains {eager / ours:.1f} times as fast as the eager loop ({load()}).")
    written = [path.name for path in sorted(args.out.iterdir()) if path.suffix in (".py", ".png")]
    print(f"Written to {args.out}/: {', '.join(written)}; {pace.spent:.0f} s in all")
    return INTERRUPTED if pace.interrupted else 0


def headline(words: str) -> None:
    """A line that sets a part off."""
    print(f"\n---- {words} {'-' * max(0, 90 - len(words))}\n", flush=True)


def compile_gla(out: Path) -> ModuleType:
    """The emitted file, written, explained and imported as any other file is."""
    headline(f"seqc compile specs/{SPEC.name}")
    start = perf_counter()
    compiled = seqc.compile(SPEC)
    path = compiled.save(out / "gla_kernel.py")
    print(f"{path}: {compiled.source.count(chr(10))} lines in {perf_counter() - start:.1f} s")
    headline(f"seqc explain specs/{SPEC.name}")
    print(compiled.explain())
    found = spec_from_file_location("gla_kernel", path)
    assert found is not None and found.loader is not None
    module = sys.modules["gla_kernel"] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def check(module: ModuleType) -> None:
    """The emitted file against the oracle."""
    headline("the emitted file against the oracle (float64, step by step)")
    for dtype, allowed in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        results, gradients = checks.errors(SPEC, module, dtype, steps=130)
        print(f"{dtype!s:14s} relative error {results:.1e} of the results, {gradients:.1e} of the gradients")
        if not max(results, gradients) < allowed:
            raise SystemExit(f"the emitted file is wrong: errors above {allowed:.0e}")


def race(module: ModuleType, lengths: list[int], out: Path, pace: Pace) -> plots.Times:
    """The compiled form beside the eager loop, at as many lengths as a share of the time allows."""
    headline(f"speed on {torch.get_num_threads()} thread(s), float32, {speed.SHAPE}; {load()}")
    times: plots.Times = {}
    with pace.stoppable():
        race_lengths(module, sorted(lengths), pace, times)
    if times:
        plots.plot_speed(times, speed.SHAPE, out / "speed.png")
    return times


def race_lengths(module: ModuleType, lengths: list[int], pace: Pace, times: plots.Times) -> None:
    """The times of each length, into `times`; none beyond the first that would take longer than is left for this part."""
    each = 0.0  # seconds that a step of the last length took
    for T in lengths:
        if times and each * T > pace.left(RACES):
            print(f"T = {T:5d}   left out: about {each * T:.0f} s, and {max(pace.left(RACES), 0):.0f} s are left for this part")
            break
        start = perf_counter()
        times[T] = speed.compare(lambda *x: module.gla(*x).o, T, pace.left(RACES) / 2)
        each = (perf_counter() - start) / T
        words = [
            f"{name}: eager {1e3 * eager:7.1f} ms, seqc {1e3 * ours:6.2f} ms ({eager / ours:4.1f}x)"
            for name, (eager, ours) in times[T].items()
        ]
        print(f"T = {T:5d}   {'   '.join(words)}", flush=True)


def learn(module: ModuleType, updates: int, out: Path, pace: Pace) -> None:
    """The character model, trained, judged on files that it has not seen, and asked to go on."""
    text, held_out = corpus.standard_library()
    model = CharModel(module.GLA, corpus.SYMBOLS, WIDTH, HEADS, BLOCKS)
    size = sum(p.numel() for p in model.parameters())
    headline(f"a character model of {size:,} parameters on {len(text):,} characters of the standard library")
    start = perf_counter()
    before = evaluate(model, held_out, JUDGED, STEPS)
    judging = perf_counter() - start
    start = perf_counter()
    losses = train(model, text, updates, BATCH, STEPS, pace=pace, seconds=max(pace.left() - 2 * judging - LAST, 1.0))
    taken = perf_counter() - start
    after = evaluate(model, held_out, JUDGED, STEPS)
    plots.plot_loss(losses, before, after, out / "loss.png")
    made = f"{len(losses)} updates"
    if len(losses) < updates:
        made += f" (of {updates}: {'stopped' if pace.interrupted else 'time was up'})"
    print(f"held-out files: {before:.2f} bits per character before, {after:.2f} after {made} in {taken:.0f} s; {load()}")
    start = perf_counter()
    generator = torch.Generator().manual_seed(5)
    continued = model.continue_text(corpus.encode(PROMPT), 300, generator, seconds=LAST / 2)
    each = (perf_counter() - start) / len(continued)
    print(f"a continuation, one decoding step a character ({1e3 * each:.2f} ms each, whole model):\n")
    print("    " + (PROMPT + corpus.decode(continued)).replace("\n", "\n    "))


if __name__ == "__main__":
    sys.exit(main())
