"""What the compiler decided for a spec as one page of HTML that needs nothing else: its text, its graph, its forms and costs.

In: a compiled spec. Out: HTML. The content is that of `seqc.driver.explain.facts`; the graph is the step's.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from seqc.driver.compile import Compiled
from seqc.driver.explain.facts import facts
from seqc.driver.explain.phrases import amount
from seqc.driver.explain.text import form_of, part_form
from seqc.driver.signature_of import TITLES
from seqc.ir.dot import COLOURS
from seqc.ir.picture import OUTPUT, picture

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #223; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; border-bottom: 1px solid #ccd; }
h3 { font-size: 1rem; margin: 1rem 0 .2rem; }
p { margin: .4rem 0; }
ul { margin: .2rem 0; padding-left: 1.3rem; }
pre, code { font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace; }
pre { background: #f6f7fa; padding: .7rem; overflow-x: auto; }
pre.about { color: #556; }
table { border-collapse: collapse; margin: .4rem 0; }
td, th { border: 1px solid #ccd; padding: .15rem .6rem; text-align: left; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.graph { overflow-x: auto; }
.graph svg { max-width: 100%; height: auto; }
.key span { padding: .1rem .5rem; border: 1px solid #889; border-radius: 4px; margin-right: .4rem; font-size: 13px; }
"""


def page(compiled: Compiled, targets: Iterable[str] = ()) -> str:
    """The page. targets: GPUs to tell of beside the one that the file is for."""
    return _document(facts(compiled, targets)["spec"], body(compiled, targets, 1))


def body(compiled: Compiled, targets: Iterable[str] = (), level: int = 2) -> str:
    """The page without its frame, to stand in another one. level: of its heading."""
    told, program = facts(compiled, targets), compiled.program
    doc = textwrap.dedent(program.doc).strip()
    parts = [
        f"<h{level}>{escape(told['spec'])}</h{level}>" + (f'<pre class="about">{escape(doc)}</pre>' if doc else ""),
        _section("The spec", f"<pre>{escape(program.source.strip())}</pre>"),
        _section("One step", _graph(compiled)),
        _section("The recurrence", _recurrence(told)),
        _section("What a token costs", _costs(told)),
    ]
    parts += [_section(f"{TITLES[name]}: {part_form(one)}", _decisions(one)) for name, one in told["parts"].items()]
    parts += [_section(f"{TITLES[name]}: none", f"<p>{_words(why)}</p>") for name, why in told["missing"].items()]
    if told["gpu"]:
        parts.append(_section("Kernels for GPUs", "".join(_kernels(target, one) for target, one in told["gpu"].items())))
    if told["cpu"]:
        parts.append(_section("Tiles on CPUs, float32", _list(f"{kind}: {words}" for kind, words in told["cpu"].items())))
    return "\n".join(parts)


def _document(title: str, content: str) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}: seqc</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style></head>\n'
        f"<body>\n{content}\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{_words(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _words(text: str) -> str:
    """A sentence, with what stands in backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _graph(compiled: Compiled) -> str:
    program = compiled.core if compiled.program.direction == "both" else compiled.program
    keys = {"input": COLOURS["input"], "param": COLOURS["param"], "state, one step ago": COLOURS["state"], "result": OUTPUT}
    shown = "".join(f'<span style="background:{colour}">{escape(key)}</span>' for key, colour in keys.items())
    return f'<p class="key">{shown}</p><div class="graph">{picture(program.graph, program.definitions)}</div>'


def _recurrence(told: Mapping[str, Any]) -> str:
    lines = ["two runs, from the first step on and from the last step back" + told["joined"]] * (told["direction"] == "both")
    for component in told["components"]:
        lines.append(f"{', '.join(component['states'])}: {component['class']}")
        lines += [f"transition of {name}: {text}" for name, text in component["transition"].items()]
        lines += [f"claim on {name}: {text}" for name, text in component["claims"].items()]
    lines += [text for text in (told["invariant"], told["stream"]) if text]
    tables = ("rates", "parallel", "pruned", "ends", "sparse")
    lines += [f"{subject}: {text}" for table in tables for subject, text in told[table].items()]
    return _list(lines or ["no state: every step is by itself"]) + "<h3>Derivatives</h3>" + _list(told["derivatives"])


def _costs(told: Mapping[str, Any]) -> str:
    rows = []
    for name, one in told["parts"].items():
        token = one["token"]
        cells = [amount(token["operations forward"]), amount(token["operations backward"]),
                 f"{100 * token['share in matrix products']:.0f}%", f"{amount(token['bytes in and out'], 'B')}",
                 f"{amount(token['bytes of state'], 'B')}"]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        rows.append(f"<tr><td>{escape(TITLES[name])}</td><td>{escape(part_form(one))}</td>{numbers}</tr>")
    heads = ["backend", "form", "operations forward", "backward", "in matrix products", "inputs and outputs", "state"]
    head = "".join(f"<th>{text}</th>" for text in heads)
    at = ", ".join(f"{d} = {n}" for d, n in told["extents"].items())
    assumed = " (assumed where the spec leaves them open)" if told["assumed"] else ""
    return f"<table><tr>{head}</tr>{''.join(rows)}</table><p>By the compiler's model, at {escape(at)}{assumed}, in fp32.</p>"


def _decisions(one: Mapping[str, Any]) -> str:
    parts = [
        f"<h3>{escape(', '.join(each['states']))}: {escape(form_of(each))}</h3>" + _decided(each["decisions"])
        for each in one.get("recurrences", [])
    ]
    return "".join(parts) + _decided(one["decisions"])


def _decided(decisions: Mapping[str, Iterable[str]]) -> str:
    return _list(f"{topic}: {text}" for topic, texts in decisions.items() for text in texts)


def _kernels(target: str, one: Mapping[str, Any]) -> str:
    if "clash" in one:
        return f"<h3>{escape(target)}</h3><p>no tiles: {_words(one['clash'])}</p>"
    rows = "".join(
        f"<tr><td><code>{escape(k['kernel'])}</code></td><td>{escape(k['tiles'])}</td><td>{_words(k['words'])}</td></tr>"
        for k in one["kernels"]
    )
    head = "<tr><th>kernel</th><th>tiles</th><th>the toolchain's figures</th></tr>"
    return f"<h3>{escape(target)}, bf16</h3><p>{_words(one['why'])}</p><table>{head}{rows}</table>"
