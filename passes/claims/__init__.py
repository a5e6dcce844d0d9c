"""program, components -> every claim `eigenvalues S in [lo, hi]` proved, or refused; and what is known of all transitions.

Needs: classify, spectra. Gives: `Reason`s for `explain`. Only states that a claim is about, or whoever tells of a program, ask
for spectra: no lowering does. A claim means: real eigenvalues lie in [lo, hi], others in the
disc of radius min(-lo, hi). Refusals are SpecErrors: `false-claim` with an eigenvalue and the values of inputs that
break it, `unproved-claim` with what is proved instead and what to declare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product as choices

from seqc.analysis.component import Component
from seqc.analysis.norms import norm_over
from seqc.diagnostics import Diagnostic, Label, SpecError
from seqc.ir.block import Reason
from seqc.ir.formula import spell
from seqc.ir.graph import BATCH, Node, topological
from seqc.ir.intervals import INF, Interval
from seqc.ir.once import found_once
from seqc.ir.ops import TABLE
from seqc.ir.program import Claim, Program
from seqc.passes.claims.spectra import Spectra, Spectrum

SLACK = 1e-12  # rounding of the bounds themselves
PROBES = (2.0, 10.0, 1e3)  # values tried for something unbounded, to show a counterexample
MOST_LEAVES = 6


@found_once
def check_claims(program: Program, components: Iterable[Component]) -> tuple[Reason, ...]:
    """A reason for each proved claim. Raises SpecError with all claims that do not hold."""
    spectra = _spectra(program, components)
    problems = [p for claim in program.claims if (p := _problem(spectra, claim)) is not None]
    if problems:
        raise SpecError(problems)
    return tuple(Reason("claim", c.state, f"eigenvalues in {c.range}: proved") for c in program.claims)


def transitions(program: Program, components: Iterable[Component]) -> tuple[Reason, ...]:
    """What is known of each state's transition."""
    spectra = _spectra(program, components)
    return tuple(Reason("eigenvalues", name, spectra.words(name)) for name in spectra.components)


@found_once
def _spectra(program: Program, components: Iterable[Component]) -> Spectra:
    return Spectra(program, components)


def _problem(spectra: Spectra, claim: Claim) -> Diagnostic | None:
    s = spectra.spectrum(claim.state)
    wide = Interval(claim.range.lo - SLACK, claim.range.hi + SLACK)
    if s.range is not None and s.range.inside(wide):
        return None
    label = () if claim.span is None else (Label(claim.span, "claimed here"),)
    where = spectra.program.spans.get(spectra.program.updates[claim.state])
    witness = _witness(spectra, s, claim.range)
    if witness is not None:
        at, value, values = witness
        listed = ", ".join(f"{name} = {x:g}" for name, x in values.items())
        place = f" at {listed}" if listed and at.op != "leaf" else ""
        shown = f"`{spectra.text(at)}` {'can be' if at.op == 'leaf' else 'is'} {value:g}{place}"
        return Diagnostic(
            "false-claim", f"the eigenvalues of `{claim.state}` do not all lie in {claim.range}",
            label + (() if where is None else (Label(where, shown),)),
            f"`{spectra.text(at)}` is an eigenvalue of the transition of `{claim.state}`",
            _advice(s, values),
        )
    known = "" if s.range is None else f"proved is only this: {spectra.words(claim.state)}"
    return Diagnostic(
        "unproved-claim", f"cannot prove that the eigenvalues of `{claim.state}` lie in {claim.range}",
        label + (() if where is None else (Label(where, "the transition"),)),
        known or f"no eigenvalue range is known: {s.why}",
        _missing(spectra, claim.state),
    )


def _advice(s: Spectrum, values: Mapping[str, float]) -> str:
    assert s.range is not None
    names = " and ".join(f"`{n}`" for n in values)
    narrow = f"narrow the declared range of {names}" if names else ""
    honest = f"claim `eigenvalues {s.state} in {s.range}`" if s.range.magnitude < INF else ""
    return ", or ".join(x for x in (narrow, honest) if x)


def _missing(spectra: Spectra, name: str) -> str:
    """What to declare: a unit norm of a factor that is contracted, or a range of one that is not bounded."""
    form = spectra.components[name].forms.get(name)
    terms = form.terms if form is not None else ()
    for t in terms:
        for f in (*t.inner, *t.outer):
            over = tuple(d for d in t.over if d in f.dims)
            if f.op != "leaf" or f.text("kind") not in ("input", "param"):
                continue
            decl = spectra.program.declared(f)
            facts = spectra.survey([f])
            if over and norm_over(f, over, facts).hi == INF:
                return f"declare `{decl.name}[{', '.join(decl.dims)}] unit[{', '.join(over)}]`"
            if not over and facts.of(f).magnitude == INF:
                return f"declare a range: `{decl.name}[{', '.join(decl.dims)}] in [.., ..]`"
    return ""


def _witness(spectra: Spectra, s: Spectrum, claimed: Interval) -> tuple[Node, float, dict[str, float]] | None:
    """(eigenvalue, its value, values of the leaves) outside the claim: the mildest one tried."""
    best = None
    for e in s.exact:
        found = topological([e])
        inside = [n for n in found if n.op == "leaf"]
        if len(inside) > MOST_LEAVES or any(not TABLE[n.op].elementwise for n in found if n.args):
            continue
        if any(n.op in ("size", "index") for n in found):
            continue
        facts = spectra.survey([e])
        for values in choices(*(_probes(facts.of(n)) for n in inside)):
            value = _value(e, dict(zip(inside, values, strict=True)))
            beyond = max(claimed.lo - value, value - claimed.hi)
            if not beyond > SLACK or beyond == INF:
                continue
            free = max((abs(v) for n, v in zip(inside, values, strict=True)
                        if v not in (facts.of(n).lo, facts.of(n).hi)), default=0.0)
            named = {spell(n): v for n, v in zip(inside, values, strict=True)}
            if best is None or (free, -beyond) < best[0]:
                best = ((free, -beyond), (e, value, named))
    return None if best is None else best[1]


def _probes(known: Interval) -> list[float]:
    ends = [x for x in (known.lo, known.hi) if abs(x) < INF]
    more = [x for p in PROBES for x in (-p, p) if known.lo < x < known.hi]
    return sorted({*ends, *(more if known.magnitude == INF else [])})


def _value(e: Node, values: Mapping[Node, float]) -> float:
    import numpy as np

    from seqc.semantics.evaluate import evaluate

    dims = {d for n in values for d in n.dims} | {BATCH}
    arrays = {n: np.full((1,) * len(n.dims), v) for n, v in values.items()}
    return float(np.reshape(evaluate({"e": e}, arrays, dict.fromkeys(sorted(dims), 1))["e"], ()))
