"""Kernels whose programs wait for each other, in Triton's interpreter: all programs of a launch at once, one running at a time.

In: nothing. Out: `choose(seed)`, after `interpreter.choose()`. A kernel that calls `meet` runs as one thread for each program.
A program runs until its next atomic operation, and then one that is drawn goes on, so that some are far ahead of others. The
order depends on the seed alone. The text of `meet` is the emitted one. Where every program waits, that is an error.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np

PLAIN: dict[str, Any] = {}  # what the interpreter does by itself


class Stuck(Exception):
    """Every program waits."""


class Together:
    """The programs of one launch."""

    def __init__(self, function: Any, arguments: dict[str, Any], programs: list[int], order: random.Random) -> None:
        self.function, self.arguments, self.order = function, arguments, order
        self.turn = {at: threading.Semaphore(0) for at in programs}
        self.back = threading.Semaphore(0)
        self.failed: list[BaseException] = []
        self.left = list(programs)
        self.now = -1
        self.idle = 0  # turns since something changed
        self.threads = [threading.Thread(target=self.program, args=(at,), daemon=True) for at in programs]

    def program(self, at: int) -> None:
        self.turn[at].acquire()
        try:
            with np.errstate(all="ignore"):  # which each thread has of its own: columns that no result has may be 0 / 0
                self.function(**self.arguments)
        except BaseException as error:
            self.failed.append(error)
        self.left.remove(at)
        self.idle = 0
        self.back.release()

    def run(self, begin: Any) -> None:
        for thread in self.threads:
            thread.start()
        while self.left and not self.failed:
            if self.idle > 50 * len(self.threads):
                raise Stuck(f"programs {self.left} wait for ever")
            self.now = self.order.choice(self.left)
            begin(self.now)
            self.turn[self.now].release()
            self.back.acquire()
        if self.failed:
            raise self.failed[0]

    def give_way(self, changes: bool) -> None:
        """Called by the running program."""
        self.idle = 0 if changes else self.idle + 1
        me = self.now
        self.back.release()
        self.turn[me].acquire()


def in_pieces(space: dict[str, Any]) -> None:
    """Have a team do all work, of short pieces. space: the globals of an emitted file. Each kernel holds another number of
    pieces of its matrices, and reads the others in every step; each takes another number at once."""
    some = {"team_forward": (1, 2), "team_infer": (0, 1), "team_backward": (2, 2)}
    space["_alone_triton"] = lambda *_: False
    space["_COLUMNS"] = 32
    space["_held_triton"] = lambda kernel, *_: (*some[kernel], 0, 1)


def choose(seed: int = 0, absent: int | None = None) -> list[int]:
    """Run such kernels so, from now on. absent: a program that never begins, as if there were no room for it. Gives a list that
    grows by the number of programs of each launch."""
    import inspect

    from triton.runtime import interpreter

    builder, order = interpreter.interpreter_builder, random.Random(seed)
    running: list[Together] = []
    launches: list[int] = []
    kind = interpreter.InterpretedFunction
    rmw = PLAIN.setdefault("rmw", type(builder).create_atomic_rmw)
    run = PLAIN.setdefault("run", kind.run)

    class Executor(interpreter.GridExecutor):  # type: ignore[misc, name-defined]
        """A launch."""

        def __call__(self, *given: Any, **named: Any) -> None:
            named = {name: x for name, x in named.items() if name in self.arg_names}
            here, named_here = self._init_args_hst(given, named)
            interpreter._patch_lang(self.fn)
            bound = inspect.getcallargs(self.fn, *here, **named_here)
            bound = {name: x if name in self.constexprs else interpreter._implicit_cvt(x) for name, x in bound.items()}
            (programs,) = self.grid
            builder.set_grid_dim(programs, 1, 1)
            launches.append(programs)
            running.append(Together(self.fn, bound, [at for at in range(programs) if at != absent], order))
            try:
                running[-1].run(lambda now: builder.set_grid_idx(now, 0, 0))
            finally:
                running.pop()
            self._restore_args_dev(given, here, named, named_here)

    def atomic(self: Any, op: Any, pointer: Any, value: Any, *others: Any) -> Any:
        found = rmw(self, op, pointer, value, *others)
        if running:
            running[-1].give_way(bool((value.data != 0).any()))
        return found

    def launched(self: Any, *given: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        function = self.rewrite()
        if "meet" not in function.__code__.co_names:
            return run(self, *given, grid=grid, warmup=warmup, **named)
        return Executor(function, self.arg_names, grid, self.pre_run_hooks)(*given, **named)

    type(builder).create_atomic_rmw = atomic
    kind.run = launched
    return launches
