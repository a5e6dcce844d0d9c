"""What the compiler decided for a spec, as text for a person. In: a compiled spec. Out: lines, made of `facts`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from seqc.driver.compile import Compiled
from seqc.driver.explain.alike import alike
from seqc.driver.explain.facts import facts
from seqc.driver.explain.phrases import amount, wrapped
from seqc.driver.signature_of import TITLES
from seqc.passes.plan.products_outside import RATIO

UNKNOWN = "no verdict recorded"  # how the words of a kernel begin of which the toolchain has said nothing
PAYS = f"one leaves the recurrence where that saves {RATIO:.0f} operations for each byte moved"
SECTIONS = {
    "taps": "sums over many lags, before the recurrence: convolutions along time in plain torch",
    "parallel": "products with parameters, for all steps at once (plain torch: all that needs no state)",
    "pruned": "left out, forward and backward",
    "ends": "kept for last values alone",
    "sparse": "sparse parameters",
}


def explanation(compiled: Compiled, targets: Iterable[str] = ()) -> str:
    """The facts as text."""
    told = facts(compiled, targets)
    lines = [f"{told['spec']}: {told['about']}" if told["about"] else told["spec"], "", "recurrence"]
    if told["direction"] == "both":
        lines.append(f"  two runs, from the first step on and from the last step back{told['joined']}; what follows is of each")
    for component in alike(told["components"]):
        lines += wrapped(f"{', '.join(component['states'])}: {component['class']}", 2)
        for name, text in component["transition"].items():
            lines += wrapped(f"transition of {name}: {text}", 6)
        for name, text in component["claims"].items():
            lines += wrapped(f"claim on {name}: {text}", 6)
    for text in (*(f"{subject}: {text}" for subject, text in told["rates"].items()), told["invariant"], told["stream"]):
        lines += wrapped(text, 2) if text else []
    carried = "states and sums are carried in fp32 whatever the inputs' dtype (in fp64 for fp64 inputs)"
    lines.append(f"  {carried}" if told["components"] else "  no state: every step is by itself")
    if told["gates"]:
        lines += wrapped(f"gates, kept in fp32 beside half-precision inputs: {', '.join(told['gates'])}", 2)
    for topic, head in SECTIONS.items():
        if told[topic]:
            lines += ["", head, *(wrapped(PAYS, 2) if topic == "parallel" else [])]
            lines += [line for subject, text in told[topic].items() for line in wrapped(f"{subject}: {text}", 2)]
    lines += ["", "derivatives", *(line for text in told["derivatives"] for line in wrapped(text, 2))]
    for name, one in told["parts"].items():
        lines += _part_lines(name, one, told)
    for name, why in told["missing"].items():
        lines += ["", f"{TITLES[name]}: none", *wrapped(why, 2)]
    if "closed loop" in told:
        loop = told["closed loop"]
        lines += ["", f"closed loop, `generate`: {', '.join(loop['fed back'])} from what the recurrence made"]
        words = {"step": "step by step"}
        lines += [f"  {TITLES[name]}: {words.get(form, form)}" for name, form in loop["forms"].items()]
        lines += [line for name, why in loop["missing"].items() for line in wrapped(f"{TITLES[name]}: none: {why}", 2)]
    return "\n".join(lines) + "\n"


def _part_lines(name: str, one: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """One part of the file: the form of each recurrence, what was decided, what a token costs, tiles."""
    lines = ["", f"{TITLES[name]}: {part_form(one)}"]
    for each in one.get("recurrences", []):
        lines += wrapped(f"{', '.join(each['states'])}: {form_of(each)}", 2)
        lines += [line for topic, texts in each["decisions"].items() for x in texts for line in wrapped(f"{topic}: {x}", 4)]
    for topic, decisions in one["decisions"].items():
        for text in decisions:
            lines += wrapped(f"{topic}: {text}", 2)
    token = one["token"]
    at = ", ".join(f"{d} = {n}" for d, n in told["extents"].items())
    assumed = " (assumed)" if told["assumed"] else ""
    lines += wrapped(
        f"one token at {at}{assumed}: {amount(token['operations forward'])} operations forward "
        f"({100 * token['share in matrix products']:.0f}% in matrix products), "
        f"{amount(token['operations backward'])} backward; {amount(token['bytes in and out'], 'B')} of inputs and outputs "
        f"and {amount(token['bytes of state'], 'B')} of state, in fp32",
        2,
    )
    if name == "cpu" and told["cpu"]:
        lines.append("  tiles, float32, chosen by the build for its dims and processor:")
        kinds: dict[str, list[str]] = {}
        for kind, words in told["cpu"].items():
            kinds.setdefault(words, []).append(kind)
        lines += [line for words, same in kinds.items() for line in wrapped(f"{', '.join(same)}: {words}", 4)]
    if name == "triton":
        lines += _gpu_lines(told["gpu"])
    return lines


def part_form(one: Mapping[str, Any]) -> str:
    """The form of a part of the file in words, or how many recurrences it has."""
    several = one.get("recurrences", [])
    return f"{len(several)} recurrences, one after the other" if several else form_of(one)


def form_of(part: Mapping[str, Any]) -> str:
    """The form of a recurrence in words."""
    return "step by step" if part["form"] == "step" else f"{part['form']}, {part['rows']} steps a block"


def _gpu_lines(told: Mapping[str, Any]) -> list[str]:
    """Rows and tiles for each target; a sentence that binds several kernels is told in full once."""
    lines: list[str] = []
    for target, one in told.items():
        if "clash" in one:
            lines += wrapped(f"no tiles for {target}: {one['clash']}", 2)
            continue
        lines += [f"  tiles for {target}, bf16:", *wrapped(one["why"], 4)]
        if "one by one" in one:
            few, rows = one["one by one"], one["rows"]
            count = "a single step is" if few == 1 else f"sequences of up to {few} steps are"
            lines += wrapped(f"{count} run step by step: modelled no slower than a block of {rows} rows", 4)
        seen: dict[str, str] = {}
        for kernel in one["kernels"]:
            before = seen.setdefault(kernel["binds"], kernel["kernel"])
            binds = kernel["binds"] if before == kernel["kernel"] else f"as {before}"
            lines += wrapped(f"{kernel['kernel']}: {kernel['tiles']}", 4)
            lines += wrapped(f"binds: {binds}", 8) if kernel["binds"] != "nothing binds" else []
            lines += [] if kernel["words"].startswith(UNKNOWN) else wrapped(kernel["words"], 8)
        unknown = [kernel["words"].removeprefix(UNKNOWN) for kernel in one["kernels"] if kernel["words"].startswith(UNKNOWN)]
        if unknown:
            some = "" if len(unknown) == len(one["kernels"]) else f" of {len(unknown)} of the {len(one['kernels'])} kernels"
            lines += wrapped(f"{UNKNOWN}{some}{unknown[0]}", 4)
    return lines
