"""Processes in which Triton is its interpreter, each forked from one that has read torch, Triton and seqc already.

In: `run(words, text)`: what stands behind `python` on a command line (`-m module ..`, `-c code`, or a file), and its
standard input. Out: what `subprocess.run` gives. The interpreter is chosen when Triton is first imported, so tests of kernels
run in processes of their own; reading all that takes four seconds of a processor, which is done once for a process of tests.
As a module (`python -m tests.triton.processes`): the process that forks; a JSON line for each, in and out.
"""

from __future__ import annotations

import atexit
import builtins
import functools
import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]


def run(words: Sequence[str], text: str = "", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a program in folder (first on its path), as `subprocess.run(capture_output=True, text=True)` would."""
    with tempfile.TemporaryDirectory() as streams:
        files = [Path(streams) / name for name in ("in", "out", "errors")]
        files[0].write_text(text)
        asked = {"words": [*words], "files": [*map(str, files)], "folder": str(folder)}
        server = _server()
        assert server.stdin is not None and server.stdout is not None
        print(json.dumps(asked), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess([*words], code, *(path.read_text() for path in files[1:]))


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The process that forks, of this process of tests; it ends with it."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.triton.processes"]
    server = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(server.communicate)  # no more lines: it ends
    return server


def _child(words: list[str], files: list[str], folder: str) -> int:
    """Be the process that was asked for; its exit status."""
    for number, path in enumerate(files):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
    sys.stdin, sys.stdout, sys.stderr = (open(i, mode, closefd=False) for i, mode in enumerate(("r", "w", "w")))  # noqa: SIM115
    os.chdir(folder)
    sys.path[0] = folder
    try:
        if words[0] == "-W":
            import warnings

            action, _, category = words[1].partition("::")
            warnings.filterwarnings(action, category=getattr(builtins, category))
            words = words[2:]
        kind, *others = words
        if kind == "-c":
            sys.argv = ["-c", *others[1:]]
            exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__"})
        elif kind == "-m":
            sys.argv = others
            runpy.run_module(others[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _serve(asked: IO[str], answers: IO[str]) -> None:
    """Fork for each line until there is none."""
    import numpy  # noqa: F401
    import torch  # noqa: F401
    import triton.language  # noqa: F401

    import tests.harness  # noqa: F401

    gc.freeze()
    for line in iter(asked.readline, ""):
        told: dict[str, Any] = json.loads(line)
        number = os.fork()
        if not number:
            os._exit(_child(**told))
        _, status = os.waitpid(number, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout)
