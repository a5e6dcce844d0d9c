"""A spec that is being written: what is wrong with it, and what its words mean. In: a text. Out: answers for an editor.

Places are offsets into the text. Every answer comes from the front end, the ranges and the classes that a compile finds too, so
that an editor and the compiler cannot differ. Nothing is lowered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from seqc.analysis.cost import cost
from seqc.diagnostics import Diagnostic, Label, Refusal, SeqcBug, Source, Span
from seqc.driver.pipeline import check, told_transitions
from seqc.editor.occurrences import Occurrence, occurrences
from seqc.editor.words import CONSTANT_HELP, FUNCTION_HELP, MARK_HELP, ONCE_HELP, STATEMENT_HELP
from seqc.frontend import syntax
from seqc.frontend.elaborate import build
from seqc.frontend.format import format_text, show
from seqc.frontend.logical_lines import DECLARED
from seqc.frontend.parse import Parsed, parse_with_errors
from seqc.frontend.values import part_names
from seqc.ir.graph import BATCH
from seqc.ir.intervals import ANY
from seqc.ir.program import Program

_NAME = re.compile(r"[^\W\d]\w*")
_TYPICAL = 64  # extent of a dim whose size nothing tells, for costs


@dataclass(frozen=True)
class Suggestion:
    """A word that may be written here. kind: "statement", "mark", "function", "constant", "dim", "name"."""

    word: str
    kind: str
    detail: str


class Document:
    """One version of a spec's text."""

    def __init__(self, source: Source) -> None:
        self.source = source

    @cached_property
    def _read(self) -> Parsed:
        return parse_with_errors(self.source)

    @property
    def _parsed(self) -> syntax.Spec:
        """The lines that can be read."""
        return self._read.spec

    @cached_property
    def _checked(self) -> tuple[Program | None, dict[str, object], tuple[Diagnostic, ...]]:
        """The program, what is found of it, and everything that is to be told."""
        try:
            program = build(self._read.spec, self._read.found, self._read.lost)
        except Refusal as refusal:
            return None, {}, refusal.diagnostics
        except SeqcBug as bug:
            return None, {}, (Diagnostic("bug", str(bug)),)
        try:
            return program, check(program), program.warnings
        except Refusal as refusal:
            return program, {}, (*refusal.diagnostics, *program.warnings)
        except SeqcBug as bug:
            return program, {}, (Diagnostic("bug", str(bug)), *program.warnings)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Every mistake and warning, in source order; what has no place stands at the name of the spec."""
        whole = next((s.span for s in self._parsed.statements if isinstance(s, syntax.SpecName)), Span(self.source, 0, 0))
        return tuple(d if d.labels else Diagnostic(d.code, d.message, (Label(whole),), d.cause, d.help, d.kind)
                     for d in self._checked[2])

    @property
    def program(self) -> Program | None:
        """The program, where the spec has no mistakes."""
        return self._checked[0]

    @cached_property
    def occurrences(self) -> list[Occurrence]:
        """Every name of the spec and its place, as far as the lines can be read."""
        return occurrences(self._parsed)

    def at(self, offset: int) -> Occurrence | None:
        """The name at a place."""
        return next((one for one in self.occurrences if one.span.start <= offset <= one.span.end), None)

    def word(self, offset: int) -> Span | None:
        """The word at a place, whatever it means."""
        words = (m for m in _NAME.finditer(self.source.text) if m.start() <= offset <= m.end())
        return next((Span(self.source, m.start(), m.end()) for m in words), None)

    def references(self, offset: int) -> list[Occurrence]:
        """All places of the name at a place; empty where there is none."""
        here = self.at(offset)
        return [] if here is None else [x for x in self.occurrences if (x.name, x.inside) == (here.name, here.inside)]

    def definition(self, offset: int) -> Span | None:
        """Where the name at a place is declared: a state where it is declared, and not where its new value is given."""
        return next((one.span for one in self.references(offset) if one.declares), None)

    def renamed(self, offset: int, new: str) -> list[Span]:
        """The places that change when the name at a place is called `new`. Raises ValueError with the reason where the spec
        would mean something else, or nothing."""
        places = [one.span for one in self.references(offset)]
        if not places:
            raise ValueError("no name of this spec stands here")
        if not _NAME.fullmatch(new):
            raise ValueError(f"`{new}` is no name: letters, digits and underscores, and no digit first")
        old, text = places[0].text, self.source.text
        if new != old and any(one.name == new for one in self.occurrences):
            raise ValueError(f"`{new}` is a name of this spec already")
        for span in reversed(places):
            text = text[: span.start] + new + text[span.end :]
        known = {(d.code, d.kind) for d in self._checked[2]}
        for d in Document(Source(self.source.name, text))._checked[2]:
            if d.kind != "warning" and (d.code, d.kind) not in known:
                raise ValueError(d.message)
        return places

    def formatted(self) -> str | None:
        """The canonical layout; None where the text has syntax mistakes."""
        try:
            return format_text(self.source)
        except Refusal:
            return None

    # ---- what a word means

    def hover(self, offset: int) -> tuple[Span, str] | None:
        """What the word at a place means, as Markdown, and where it stands."""
        here = self.at(offset)
        title = next((s for s in self._parsed.statements if isinstance(s, syntax.SpecName)), None)
        if title is not None and title.name.span.start <= offset <= title.name.span.end:
            return title.name.span, self._whole()
        if here is not None and (told := self._told(here)):
            return here.span, told
        span = self.word(offset)
        if span is None:
            return None
        tables = [FUNCTION_HELP, CONSTANT_HELP, MARK_HELP, ONCE_HELP, STATEMENT_HELP]
        if not self.source.line(span.line)[: span.column - 1].strip():
            tables.reverse()
        found = next((table[span.text] for table in tables if span.text in table), None)
        return (span, f"```seq\n{found[0]}\n```\n{found[1]}") if found else None

    def _told(self, here: Occurrence) -> str:
        """A name of the spec: how it is declared, and what is known of its values."""
        if here.inside is not None:
            return f"`{here.name}`: the running value of a `fold`"
        lines = [shown for statement in self._parsed.statements if (shown := _declaration(statement, here.name))]
        if not lines:
            return ""
        known = self._known(here.name)
        return "\n\n".join(["```seq\n" + "\n".join(lines) + "\n```", *known])

    def _known(self, name: str) -> list[str]:
        found = self._checked[1]
        program, ranges = found.get("program", self.program), found.get("ranges", {})
        if not isinstance(program, Program):
            return []
        assert isinstance(ranges, Mapping)
        told = []
        for part in part_names(name, True) if f"{name}_re" in program.graph or f"{name}_re" in program.states else [name]:
            node = program.updates.get(part) or program.outputs.get(part)
            node = node or next((n for n, given in program.definitions.items() if given == part), None)
            for table in (program.inputs, program.params):
                node = table[part].leaf() if part in table else node
            if node is None:
                continue
            dims = f"dims [{', '.join(d for d in node.dims if d != BATCH)}]"
            interval = ranges.get(node, ANY)
            values = f", values in {interval}" if interval != ANY else ""
            told.append((f"`{part}`: " if part != name else "") + dims + values)
        components, claims = found.get("components", ()), found.get("claims", ())
        assert isinstance(components, tuple) and isinstance(claims, tuple)
        own = part_names(name, True) if f"{name}_re" in program.states else (name,)
        told += [f"class: {c.kind}; {c.why}" for c in components if set(own) & set(c.states)]
        words = {"eigenvalues": "transition", "claim": "claim"}
        more = told_transitions(program) if components else ()
        told += [f"{words.get(r.topic, r.topic)}: {r.text}" for r in (*more, *claims) if r.subject in own]
        return told

    def _whole(self) -> str:
        """The spec: its documentation, the classes of its states, and what a step costs."""
        program, found, _ = self._checked
        if program is None:
            return "The spec has mistakes."
        components = found.get("components", ())
        assert isinstance(components, tuple)
        lines = [program.doc.strip()] if program.doc.strip() else []
        lines += [f"- {', '.join(c.states)}: {c.kind}; {c.why}" for c in components] or ["- no state"]
        sizes = {name: d.default or (d.choices[0] if d.choices else _TYPICAL) for name, d in program.dims.items()}
        step = cost(program.graph.values(), {**sizes, BATCH: 1})
        at = ", ".join(f"{d} = {n}" for d, n in sizes.items())
        return "\n".join([*lines, "", f"One step: {step.flops:,.0f} operations" + (f" at {at}." if at else ".")])

    # ---- what may be written

    def suggestions(self, offset: int) -> list[Suggestion]:
        """The words that may be written at a place: statement words where a line begins, names and functions elsewhere."""
        before = self.source.text[self.source.text.rfind("\n", 0, offset) + 1 : offset]
        head = before.strip()
        names = self._names()
        if _NAME.fullmatch(head) or not head:
            found = [Suggestion(word, "statement", told) for word, (_, told) in STATEMENT_HELP.items()]
            return found + [s for s in names if s.kind == "name" and s.detail.split()[0] in ("state", "output")]
        if before.count("[") > before.count("]"):
            return [s for s in names if s.kind == "dim"] + [s for s in names if s.kind != "dim"]
        found = names + [Suggestion(word, "function", f"{how}: {told}") for word, (how, told) in FUNCTION_HELP.items()]
        found += [Suggestion(word, "constant", told) for word, (_, told) in CONSTANT_HELP.items()]
        if head.split()[0] in (*DECLARED, "sparse"):
            found = [Suggestion(word, "mark", f"{how}: {told}") for word, (how, told) in MARK_HELP.items()] + found
        return found

    def _names(self) -> list[Suggestion]:
        found: dict[str, Suggestion] = {}
        for one in self.occurrences:
            if one.declares and one.inside is None and one.name not in found:
                declared = next(filter(None, (_declaration(s, one.name) for s in self._parsed.statements)), one.name)
                kind = "dim" if declared.startswith("dim ") else "name"
                found[one.name] = Suggestion(one.name, kind, declared)
        return list(found.values())

    def symbols(self) -> list[tuple[Occurrence, str]]:
        """What the spec declares and defines, each with its line."""
        kinds = {s.word: s.detail for s in self._names()}
        first: dict[str, Occurrence] = {}
        for one in self.occurrences:
            if one.declares and one.inside is None:
                first.setdefault(one.name, one)
        return [(one, kinds[name]) for name, one in first.items()]


def _declaration(statement: syntax.Statement, name: str) -> str:
    """The statement as far as it declares or defines the name; "" where it does neither."""
    match statement:
        case syntax.Dims(items=items):
            own = [item for item in items if item.name.id == name]
            return show(syntax.Dims(statement.span, tuple(own))) if own else ""
        case syntax.Declare(kind=kind, items=decls):
            mine = [item for item in decls if item.name.id == name]
            return show(syntax.Declare(statement.span, kind, tuple(mine))) if mine else ""
        case syntax.Define() | syntax.Output() | syntax.Feedback() if statement.name.id == name:
            return show(statement)
        case syntax.Every(body=body) | syntax.Before(body=body) | syntax.Down(body=body) if body.name.id == name:
            return show(statement)
        case syntax.Axes(names=names) if name in {n.id for n in names}:
            return show(statement)
    return ""
