"""One token on a CPU: the call that goes past torch's dispatcher, states updated in place, results written into earlier ones.

The judge of a step is the dispatcher's own way (`_OPS.step`), which other tests compare with the oracle; and what must not go
past the dispatcher is seen to go through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import seqc

ROOT = Path(__file__).parents[2]
SHARED = """\
spec shared
dim H, K, V
input k[H, K], v[H, V], b[H, K] in [0, 1], c
state S[H, K, V] = 0, z[H, K] = 1, n = 2
z = b * z[t-1] + k * k
n = 0.5 * n[t-1] + c
S = z * S[t-1] + k * (v - sum[K](k * S[t-1])) * n[t-1]
output o = sum[K](k * S) + sum[K](z[t-1] * k)
output m = sum[H, K](z) + n
"""
TEXTS = {
    "gla": (ROOT / "specs" / "gla.seq").read_text(),  # one state, updated at every element
    "rnn": (ROOT / "specs" / "rnn.seq").read_text(),  # a vector that every element of the new one reads
    "mutual": (ROOT / "tests" / "recurrences" / "mutual.seq").read_text(),  # states that trade places
    "shared": SHARED,  # states that several programs read whole
}
SIZES = {"H": 2, "K": 5, "V": 40, "D": 6, "N": 3}


def drawn(name: str, batch: int = 2, dtype: torch.dtype = torch.float32) -> tuple[ModuleType, dict[str, torch.Tensor]]:
    """A spec's file, and the arguments of a step by name, in order."""
    module = seqc.compile(TEXTS[name], backend="cpu").module
    made = torch.Generator().manual_seed(batch)
    found = {}
    for key, axes in module._AXES.items():
        shape = [batch if axis == "B" else SIZES[axis] for axis in axes.split() if axis != "T"]
        found[key] = torch.rand(shape, generator=made, dtype=dtype) * (-1 if key == "g" else 1)
    return module, found


class Through(Exception):
    """The call went through torch's dispatcher."""


@contextmanager
def past_the_dispatcher(module: ModuleType) -> Iterator[None]:
    """Calls through torch's dispatcher raise."""

    def through(*_: Any) -> Any:
        raise Through

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_call", through)
        yield


def same(found: Any, want: Any) -> None:
    assert [(x.dtype, x.shape) for x in found] == [(x.dtype, x.shape) for x in want]
    assert all(map(torch.equal, found, want))


@pytest.mark.parametrize(("name", "dtype"), [(name, torch.float32) for name in TEXTS] + [("gla", torch.float64)])
def test_every_way_of_a_step_gives_the_same(name: str, dtype: torch.dtype) -> None:
    """To the bit: new tensors, in place, written into an earlier result, and into one that is read too."""
    module, given = drawn(name, dtype=dtype)
    step = getattr(module, f"{name}_step")
    states = [key for key in given if key.endswith("_0")]
    inputs = {key: x for key, x in given.items() if key not in states}

    def copies() -> dict[str, torch.Tensor]:
        return {key: given[key].clone() for key in states}

    with torch.no_grad():
        want = module._OPS.step.default(*given.values())
        then = module._OPS.step.default(*inputs.values(), *want[-len(states) :])
        with past_the_dispatcher(module):
            same(step(**given), want)
            own = copies()
            result = step(**inputs, **own, inplace=True)
            same(result, want)
            assert all(x is own[key] for x, key in zip(result[-len(states) :], states, strict=True))
            places = [x.data_ptr() for x in result]
            assert step(**inputs, **own, into=result) is result
            same(result, then)
            assert step(**given, into=result) is result and [x.data_ptr() for x in result] == places
            same(result, want)
            before, own = copies(), copies()
            into = step(**given)
            found = step(**inputs, **own, inplace=True, into=into)
            assert found.__class__ is into.__class__ and found[0] is into[0] and found[-1] is own[states[-1]]
            same(found, want)
            same(given.values(), drawn(name, dtype=dtype)[1].values())
            same(before.values(), [given[key] for key in states])


def test_other_batches_and_layouts() -> None:
    module, given = drawn("gla")
    for batch in (1, 3):
        _, other = drawn("gla", batch)
        with torch.inference_mode(), past_the_dispatcher(module):
            found = module.gla_step(**other)
        same(found, module._OPS.step.default(*other.values()))
    with torch.no_grad():
        want = module.gla_step(**given)
        for turned in (given["q"].mT.contiguous().mT, given["q"].repeat(1, 1, 2)[..., :5]):
            with past_the_dispatcher(module), pytest.raises(Through):
                module.gla_step(**{**given, "q": turned})
            same(module.gla_step(**{**given, "q": turned}), want)
        state = given["S_0"].mT.contiguous().mT
        found = module.gla_step(**{**given, "S_0": state}, inplace=True)
        assert found.S_T is state
        same(found, want)


@contextmanager
def forward_mode() -> Iterator[None]:
    with torch.autograd.forward_ad.dual_level():
        yield


WATCHING: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "gradients": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "a profiler": lambda: torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
    "a mode of functions": lambda: torch.device("cpu"),
    "a mode of operators": lambda: FlopCounterMode(display=False),
    "forward mode": forward_mode,
}


@pytest.mark.parametrize("what", WATCHING)
def test_what_is_watched_goes_through_the_dispatcher(what: str) -> None:
    module, given = drawn("gla")
    with torch.no_grad():
        module.gla_step(**given)
        with past_the_dispatcher(module), WATCHING[what](), pytest.raises(Through):
            module.gla_step(**given)


def test_other_tensors_go_through_the_dispatcher() -> None:
    """Other dtypes, views that stand for their negative, subclasses, transforms; and arrays that lie over each other."""
    module, given = drawn("gla")
    half = {key: x.half() if key != "S_0" else x for key, x in given.items()}
    with torch.no_grad():
        for other in (half, {**given, "q": given["q"].to("meta")}):
            with past_the_dispatcher(module), pytest.raises(Through):
                module.gla_step(**other)
        with pytest.raises(ValueError, match=r"gla: v has shape \[2, 1, 40\] for \[B, H, V\]; H is 1 here and 2 in q"):
            module.gla_step(**{**given, "v": given["v"][:, :1]})
        want = module.gla_step(**given)
        over = module.GLAResult(given["v"], want.S_T)  # the output would be written over an input that is still read
        with past_the_dispatcher(module), pytest.raises(Through):
            module.gla_step(**given, into=over)
        values = given["v"].clone()
        module.gla_step(**{**given, "v": values}, into=module.GLAResult(values, want.S_T))
        assert torch.equal(values, want.o)
        mapped = torch.func.vmap(lambda q: module.gla_step(**{**given, "q": q}).o)(torch.stack([given["q"]] * 2))
        assert torch.equal(mapped[1], want.o)
        with FakeTensorMode() as fake:
            found = module.gla_step(**{key: fake.from_tensor(x) for key, x in given.items()})
            assert found.o.shape == want.o.shape
    one, given = drawn("shared", 1)
    negative = torch._neg_view(given["c"])
    with torch.no_grad():
        want = one.shared_step(**{**given, "c": -given["c"]})
        same(one.shared_step(**{**given, "c": negative}), want)


def test_gradients_and_mistakes() -> None:
    """What is written is told to autograd; where a gradient would be lost, and where tensors do not fit, is an error."""
    module, given = drawn("gla")
    inplace = {"inplace": True}
    with pytest.raises(RuntimeError, match="gla_step: inplace= and into= keep nothing that a gradient needs"):
        module.gla_step(**{**given, "q": given["q"].requires_grad_()}, **inplace)
    given = drawn("gla")[1]
    weight = torch.ones(2, 2, 5, 40, requires_grad=True)
    kept = (weight * given["S_0"]).sum()
    with torch.no_grad():
        result = module.gla_step(**given, **inplace)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.backward()
    with torch.no_grad():
        first = module.gla_step(**{key: x for key, x in given.items() if key != "S_0"}, **inplace)  # its own new state
        assert first.S_T.shape == result.S_T.shape
        with pytest.raises(ValueError, match=r"gla_step: a tensor to write has shape \[1, 2, 40\] of torch.float32, and"):
            module.gla_step(**given, into=module.GLAResult(result.o[:1], result.S_T))
        with pytest.raises(ValueError, match=r"of torch.float16, and the step gives"):
            module.gla_step(**{**given, "S_0": given["S_0"].half()}, **inplace)
        mutual, given = drawn("mutual")
        with pytest.raises(ValueError, match="one tensor is to be written twice"):
            mutual.mutual_step(**{**given, "a_0": given["b_0"]}, **inplace)
    recurrence = seqc.compile(TEXTS["gla"], backend="cpu")
    with pytest.raises(TypeError, match="gla_step: inplace is True or False, not a number"):
        recurrence.step(**drawn("gla")[1], inplace=1)
    with pytest.raises(TypeError, match="gla_step: into is the result of an earlier step, not a Tensor"):
        recurrence.step(**drawn("gla")[1], into=result.o)


def test_in_a_compiled_graph() -> None:
    module, given = drawn("gla")
    with torch.no_grad():
        want = module.gla_step(**given)
        quick = torch.compile(lambda given: module.gla_step(**given, inplace=True), fullgraph=True, backend="aot_eager")
        found = quick(given)
        same(found, want)
        assert torch.equal(given["S_0"], want.S_T)
