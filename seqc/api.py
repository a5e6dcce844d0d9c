"""The public functions: a spec compiled, loaded and callable; the oracle; the explanation.

In: a path or a text, options, arrays or tensors. Out: `Recurrence`, which is called like the emitted function. torch is
loaded by the emitted file itself, when it is first called; what only writes or explains never loads it. The compiler is loaded
where it has work: what an earlier process has compiled is read from the person's cache (`seqc.cache`).
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from seqc import cache
from seqc.diagnostics import Source, Unsupported, near_miss
from seqc.driver.faces import Face, OfTheInstance, Picture, Text, arguments, head_of, signature_of
from seqc.driver.load_emitted import load_emitted
from seqc.driver.options import Options
from seqc.frontend.sources import read

if TYPE_CHECKING:
    from seqc.driver.compile import Compiled

_OF_A_CALL = ("cu_seqlens", "reverse", "axis", "states_every")
_ABOUT = "A compiled spec. Calling it runs the recurrence over a sequence, as the emitted file's function does."


class Recurrence:
    """A compiled spec. Calling it runs the recurrence over a sequence, as the emitted file's function does.

    `inspect.signature` and `help` of it show the arguments of the emitted function.
    """

    def __init__(self, face: Face, source: Source, options: Options, checks: bool = False) -> None:
        self._face, self._source, self._options, self._checks = face, source, options, checks
        self._functions: dict[str, tuple[Any, inspect.Signature]] = {}
        self.__name__ = self.__qualname__ = face.spec

    @cached_property
    def _compiled(self) -> Compiled:
        """All that the compiler decided: read from the text again where this process has not compiled it."""
        return _compiled(self._source, *_key(self._options))

    @property
    def source(self) -> str:
        """The emitted file."""
        return self._face.text

    @cached_property
    def module(self) -> ModuleType:
        """The emitted file as a module, loaded when it is first needed."""
        if not self._checks:
            return load_emitted(self.source, self._face.spec)
        from seqc.check.promises import watch

        module = load_emitted(f"{self.source}# calls of this file are checked\n", self._face.spec)  # one of its own
        watch(module, self._compiled.program, self._face.renamed)
        return module

    def _load(self, name: str) -> bool:
        """Look a function of the emitted file up, with its signature, for `_functions`."""
        if name not in self._functions:
            self._functions[name] = getattr(self.module, name), signature_of(head_of(self.source, name))
        return True

    # what torch.compiler.assume_constant_result says: loading a file is no part of a graph
    _load._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def _run(self, name: str, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self._load(name)
        function, signature = self._functions[name]
        return function(**arguments(name, signature, inputs, self._emitted(named)))

    def __call__(self, *inputs: Any, **states: Any) -> Any:
        """Inputs, then params, in the spec's order or by name; NAME_0 for a state's initial value. A named tuple.

        cu_seqlens: the bounds of a pack's sequences; reverse: from the last step to the first; states_every: states at
        positions too (`docs/calls.md`). Names are
        the spec's or, where those are words of Python, the emitted ones: `gla(**{"lambda": x})` or `gla(lambda_=x)`.
        """
        return self._run(self._face.spec, inputs, states)

    def step(self, *inputs: Any, **states: Any) -> Any:
        """One step, without a time axis; states as `NAME_0`."""
        return self._run(f"{self._face.spec}_step", inputs, states)

    def generate(self, *inputs: Any, **named: Any) -> Any:
        """The closed loop of a spec with `feedback`: over the prompt, then over what it makes itself; `steps` in all.

        A fed input has [B, P, dims], the P steps that are given; `given`: which steps are, where it has all of them. Of a pack,
        `cu_seqlens` are the bounds of the runs and `cu_prompts` those of their prompts. Raises AttributeError where the spec
        says no `feedback`.
        """
        name = f"{self._face.spec}_generate"
        if f"\ndef {name}(" not in self.source:
            raise AttributeError(f"{self._face.spec} has no closed loop: its spec says no `feedback x = ...`")
        return self._run(name, inputs, named)

    def convolution(self, *inputs: Any, **states: Any) -> Any:
        """What a call gives, by FFT over the whole sequence, of a linear time-invariant system (`docs/calls.md`).

        Arguments as of a call, without packs and directions. Outputs and states equal those of the recurrence up to
        rounding, and all arguments have their gradients. Raises Unsupported, with the reason, for any other spec.
        """
        name = self._face.spec
        convolution = getattr(self.module, f"{name}_convolution", None)
        if convolution is None:
            from seqc.driver.convolution import refused

            raise refused(self._compiled.program)
        given = arguments(name, self.__signature__, inputs, self._emitted(states))
        for word in _OF_A_CALL:
            value = given.pop(word, None)
            if value is not None and value is not False:
                raise TypeError(f"{name}: a convolution takes no `{word}`; call {name} for it")
        return convolution(**given)

    def context_parallel(self, group: Any = None) -> Any:
        """The function for one sequence over the processes of a group of `torch.distributed`, each with its steps of it.

        It is called as this one, by every process, with the inputs' own steps [B, T of this process, dims] and the same params;
        the process of rank 0 has the first steps. `cu_seqlens` are the bounds in the whole row. Outputs are of the own steps,
        NAME_T the states after these; of NAME_0 that of the first process counts. A gradient of what all have in common is this
        process's share. Raises Unsupported, with the reason, where the recurrence is not linear in its states.
        """
        from seqc.driver.context_parallel import run

        own, name = self._stretches, self._face.spec
        result = getattr(self.module, f"{self._face.class_name}Result")

        def call(*inputs: Any, **states: Any) -> Any:
            given = arguments(name, self.__signature__, inputs, self._emitted(states))
            for word in ("axis", "states_every"):
                if given.pop(word, None) is not None:
                    raise TypeError(f"{name}: a run over several processes takes no `{word}`")
            return run(own, result, given, group)

        return call

    def stream(self, *, latency: int | None = None, **given: Any) -> Any:
        """A sequence that arrives in portions: `push(x)` for each, then `flush()` (`docs/calls.md`).

        given: params, initial states NAME_0 and a seed, as of a call. latency: after so many further steps of input an output
        is there; None: the least at which blocks are whole. Raises Unsupported, with the reason, where the recurrence looks
        further ahead, or begins at the last step.
        """
        from seqc.driver.stream import Stream

        head, own, name = self.__signature__, self._streamed, self._face.spec
        taken = [p for p in head.parameters.values() if p.name not in (*own.inputs, *_OF_A_CALL)]
        given = arguments(f"{name}.stream", head.replace(parameters=taken), (), self._emitted(given))
        return Stream(own, latency, given)

    @cached_property
    def _streamed(self) -> Any:
        """The recurrence without reads at other steps, compiled and loaded."""
        from seqc.driver.stream import streamed

        return streamed(self._compiled)

    @cached_property
    def _stretches(self) -> Any:
        """The recurrence cut in stretches of steps, compiled and loaded."""
        from seqc.driver.context_parallel import stretches

        return stretches(self._compiled)

    def _emitted(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by their emitted names."""
        names = {own: emitted for emitted, own in self._face.renamed.items()}
        return {names.get(name, name): x for name, x in given.items()}

    @property
    def Module(self) -> Any:  # a class
        """The torch Module that owns the parameters. `stream` of it is that of this recurrence, with the Module's params."""
        found = getattr(self.module, self._face.class_name)
        if not hasattr(found, "stream"):
            found.stream = self._stream_of
        return found

    @cached_property
    def _stream_of(self) -> Any:
        """The method of the Module."""
        from seqc.driver.stream import Stream

        def stream(layer: Any, *, latency: int | None = None, **given: Any) -> Stream:
            """A sequence that arrives in portions; see `seqc.api.Recurrence.stream`."""
            table = self._compiled.signature.table
            own = {a.name: getattr(layer, a.name) for a in table if a.kind == "param" and not a.batched}
            made: Stream = self.stream(latency=latency, **own, **given)
            return made

        return stream

    @cached_property
    def _head(self) -> ast.FunctionDef:
        return head_of(self.source, self._face.spec)

    def _documentation(self) -> str:
        """The spec's words, then those of the emitted function."""
        words = ast.get_docstring(self._head) or ""
        return "\n\n".join(part for part in (self._face.doc, words) if part)

    @cached_property
    def _signature(self) -> inspect.Signature:
        return signature_of(self._head)

    __signature__: Any = OfTheInstance(lambda self: self._signature)
    __doc__: Any = OfTheInstance(lambda self: self._documentation(), _ABOUT)

    def explain(self) -> str:
        """What was decided, and why; see `seqc.explain`. A notebook shows it as it is laid out."""
        from seqc.driver.explain.text import explanation

        return Text(explanation(self._compiled))

    def graph(self, stage: str = "spec") -> str:
        """The graph after a stage of the pipeline in the DOT language; "spec" is the step itself. A notebook draws it.
        Raises Unsupported for a stage that gives no graph."""
        from seqc.driver.dump import graphs
        from seqc.driver.pipeline import lower
        from seqc.ir.dot import dot
        from seqc.ir.picture import picture

        program, options = self._compiled.program, self._compiled.options
        found: dict[str, Mapping[str, Any]] = {}

        def watch(name: str, value: object) -> None:
            found.update({f"{name}: {title}" if name != "spec" else name: graph for title, graph in graphs(value).items()})

        lower(program, options.form, options.rows, watch=watch)
        wanted = [title for title in found if title.partition(":")[0] == stage or title == stage]
        if not wanted:
            raise Unsupported.of("no-such-stage", f"there is no graph `{stage}`", help=near_miss(stage, found, "one of"))
        shown = Picture(dot(f"{program.name} after {wanted[-1]}", found[wanted[-1]], program.definitions))
        shown.drawn = picture(found[wanted[-1]], program.definitions)
        return shown

    def save(self, path: str | Path) -> Path:
        """Write the emitted file, whole or not at all, and never over its spec. Raises a diagnostic where that fails."""
        from seqc.files import write

        return write(path, self.source, self._source.name)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy elsewhere is the same text compiled with the same options."""
        return _again, (self._source.text, self._options, self._checks)

    def __repr__(self) -> str:
        face = self._face
        forms = ", ".join(f"{part}: {form}" for part, form in face.forms.items())
        return f"<seqc {face.spec}({', '.join(face.arguments)}) -> ({', '.join(face.results)}); {forms}>"


def compile(
    spec: str | Path,
    backend: str = "auto",
    *,
    target: str = "sm_90",
    dims: Mapping[str, int] | None = None,
    form: str | None = None,
    rows: int | None = None,
    save_states: int | None = None,
    check: bool | None = None,
) -> Recurrence:
    """The recurrence of a `.seq` file, of a spec that ships with seqc by its name, or of a spec given as a string.

    backend: "auto" (every form that the spec can have, chosen by device at the call), "triton", "cpu" or "torch".
    target: the GPU that tiles are chosen for. dims: extents fixed at compile time. form ("step", "scan", "chunkwise")
    and rows (steps per block) override the compiler's choice; save_states (steps between states that are kept for the
    backward pass, which computes those between again) the spec's `checkpoint`. The same text with the same options is
    compiled once: later processes read what the first one has kept in the person's cache. check: verify at each call what
    the spec promises of its arguments (ranges, norms; ValueError), and name the first value that is no finite number
    (FloatingPointError); slow. None: as the environment says, SEQC_CHECK=1. Raises seqc.SpecError and seqc.Unsupported.
    """
    checks = os.environ.get("SEQC_CHECK") == "1" if check is None else check
    return _again(read(spec), Options(backend, target, dict(dims or {}), form, rows, save_states), checks)


def _again(spec: Source | str, options: Options, checks: bool = False) -> Recurrence:
    """What is compiled of a text, in this process or an earlier one. A text alone is what `Recurrence.__reduce__` passes on."""
    source = spec if isinstance(spec, Source) else Source("<spec>", spec)
    return Recurrence(_face(source, *_key(options)), source, options, checks)


def _key(options: Options) -> tuple[Any, ...]:
    """The options as arguments that can be looked up."""
    dims = tuple(sorted(options.dims.items()))
    return options.backend, options.target, dims, options.form, options.rows, options.save_states


@lru_cache(maxsize=128)
def _face(source: Source, *wishes: Any) -> Face:
    """What a person sees of a compiled text: as an earlier process has kept it, or compiled now."""
    name = cache.key(source.text, wishes)
    if told := cache.recall(name):
        return Face(**told)
    face = Face.of(_compiled(source, *wishes))
    cache.remember(name, vars(face))
    return face


@lru_cache(maxsize=128)
def _compiled(
    source: Source, backend: str, target: str, dims: tuple[tuple[str, int], ...], form: str | None, rows: int | None,
    save_states: int | None,
) -> Compiled:
    """The emitted file of a text; a file that has changed is another text."""
    from seqc.driver.compile import compile_program
    from seqc.frontend.elaborate import built

    return compile_program(built(source, dict(dims)), Options(backend, target, dict(dims), form, rows, save_states))


def oracle(
    spec: str | Path, *, cu_seqlens: Any = None, reverse: bool = False, seed: Any = None, **arrays: Any
) -> dict[str, Any]:
    """The recurrence step by step in float64 numpy: outputs NAME and final states NAME_T.

    arrays: inputs [B, T, dims], params [dims], initial states NAME_0 [B, dims]; numpy arrays or tensors. cu_seqlens: the
    bounds of a pack's sequences; reverse: from the last step to the first. seed: of the noise that the spec draws (0 without
    one), one number or one for each sequence.
    """
    from seqc.analysis.noise import LOW
    from seqc.frontend.elaborate import load
    from seqc.semantics.noise import keys
    from seqc.semantics.reference import run

    bounds = None if cu_seqlens is None else [int(bound) for bound in cu_seqlens]
    program = load(spec)
    given = {name: _array(x) for name, x in arrays.items()}
    if LOW in program.states and f"{LOW}_0" not in given:
        count = len(bounds) - 1 if bounds is not None else next(len(given[x]) for x in program.inputs if x in given)
        width = next(given[x].shape[2] for x in program.inputs if x in given) if program.plane is not None else 0
        given |= keys(program, 0 if seed is None else _array(seed), count, width)
    return run(program, given, bounds, reverse)


def explain(spec: str | Path, backend: str = "auto", *, target: str = "sm_90", dims: Mapping[str, int] | None = None,
            form: str | None = None, rows: int | None = None, save_states: int | None = None) -> str:
    """What the compiler decides for a spec, and why, as text. Options as for `compile`."""
    return compile(spec, backend, target=target, dims=dims, form=form, rows=rows, save_states=save_states).explain()


def _array(x: Any) -> Any:
    """A tensor as a float64 array; anything else as it is."""
    return x.detach().cpu().double().numpy() if hasattr(x, "detach") else x
