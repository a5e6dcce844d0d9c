"""A spec -> the text of a layer around it: the recurrence compiled, the plan made, the file printed.

In: the text of a spec, options, names of inputs that the caller of the layer gives. Out: `LayerFile`. Nothing here runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from seqc.diagnostics import Source
from seqc.driver.compile import Compiled, compile_program
from seqc.driver.layers.layer_of import layer_plan, with_history
from seqc.driver.options import DEFAULTS, Options
from seqc.emit.layer import layer_beside, layer_file
from seqc.emit.layer_plan import LayerPlan
from seqc.frontend.elaborate import built


@dataclass(frozen=True)
class LayerFile:
    """A layer. text: the file, the recurrence in it; plan: what it is made of; compiled: the recurrence."""

    text: str
    plan: LayerPlan
    compiled: Compiled

    def beside(self, module: str) -> str:
        """The text without the recurrence, which it imports from a module of this name."""
        return layer_beside(self.plan, module)


def compile_layer(source: Source, options: Options = DEFAULTS, given: Iterable[str] = ()) -> LayerFile:
    """The layer of a spec's text. Raises SpecError and Unsupported."""
    program = built(source)
    text = with_history(program)
    if text != program.source:
        program = built(Source(source.name, text))
    compiled = compile_program(program, options)
    plan = layer_plan(compiled.program, compiled.signature, given)
    return LayerFile(layer_file(plan, compiled.text), plan, compiled)
