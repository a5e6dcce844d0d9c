"""The golden files: emitted text, kept in tests/golden/: four whole files to read, and a digest for every spec and backend.

`python -m tests.cli.golden` writes them all again and removes those that are no longer listed; the diff is the review.
"""

from pathlib import Path

from seqc.driver.compile import Compiled, Options, compile_spec
from tests.cli import digests

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "golden"
TRITON_TOLERANCE = 2e-5  # fp32 roundoff, times two blocks of a few roundings a step, as in tests/triton
CASES = [("gla", "torch"), ("gla", "cpu"), ("gla", "triton"), ("lstm", "triton")]  # blocks on each backend, and a cell


def emitted(spec: str, backend: str) -> Compiled:
    """The file as the compiler makes it now."""
    return compile_spec(ROOT / "specs" / f"{spec}.seq", Options(backend))


def path(spec: str, backend: str) -> Path:
    """Where it is kept."""
    return FOLDER / f"{spec}_{backend}.py"


def main() -> None:
    """Write every golden file."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.py"):
        old.unlink()
    for spec, backend in CASES:
        path(spec, backend).write_text(emitted(spec, backend).text, encoding="utf-8")
    digests.write()


def run_triton(specs: list[str]) -> None:
    """Run the Triton kernels of golden files in Triton's interpreter, in a process that chooses it."""
    from importlib.util import module_from_spec, spec_from_file_location

    import torch

    from tests.harness import compare, draw
    from tests.triton import interpreter

    interpreter.choose()
    for spec in specs:
        file = spec_from_file_location(f"{spec}_triton", path(spec, "triton"))
        assert file is not None and file.loader is not None
        module = module_from_spec(file)
        file.loader.exec_module(module)
        module._load_triton()
        made = emitted(spec, "triton")
        drawn = draw(made.program, made.blocks["triton"].rows + 1)
        compare(drawn, module._forward_triton, module._backward_triton, TRITON_TOLERANCE, torch.float32)


if __name__ == "__main__":
    main()
