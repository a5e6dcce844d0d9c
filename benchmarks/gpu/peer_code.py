"""`python -m benchmarks.gpu.peer_code`: the machine code of flash-linear-attention's and mamba-ssm's kernels, without a GPU.

In: an environment with these packages, torch and Triton. Their public functions are called forward and backward on meta tensors
with a driver that launches nothing; every launch that they ask for is compiled for the target, at the configurations that
their own tuning lists. Out: `report/peer_kernels.json`, what `seqc report --peers` prices with the model that prices ours.

A list of 48 configurations is tried at those nearest to what is usual: 4 warps, 3 stages, blocks of 64.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from math import prod
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu.peers import FLA
from seqc.backends.triton_gpu.report.peer_kernels import FLOAT32, TABLE
from seqc.backends.triton_gpu.tuning.machine_code import Text
from seqc.backends.triton_gpu.tuning.multiprocessor import Code, spent
from seqc.backends.triton_gpu.tuning.targets import Target, target_named
from seqc.backends.triton_gpu.tuning.toolchain_worker import read_nvidia

PROGRAMS = 64  # of a grid, whose loops are counted
SPREAD = (0.8191725134, 0.6710436067, 0.5497004779)  # by which they step along each of its axes: no two of them alike
AXES = (".x", ".y", ".z")  # as `Text.executed` takes the numbers of a program
BLOCKS = ("BT", "BC", "BK", "BV", "BS", "BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "BLOCK_SIZE_DSTATE", "BLOCK_SIZE_H")
SIZES = ("T", "H", "HV", "B", "N", "HQ", "NG", "seqlen")  # arguments on which the machine code hardly depends
PACKAGES = {"flash-linear-attention": "fla", "mamba-ssm": "mamba_ssm"}
USUAL = {"num_warps": 4, "num_stages": 3}
BLOCK = 64
FREE = ("empty", "view", "detach", "alias", "expand", "slice", "select", "squeeze", "transpose", "permute", "as_strided", "t")
Shape = tuple[int, int, int, int]  # batch, steps, heads, width
LONG, MEDIUM, SHORT, SMALL, WIDE = (
    (1, 8192, 96, 128), (2, 16384, 16, 128), (4, 2048, 16, 128), (8, 1024, 8, 64), (8, 2048, 32, 256),
)  # fmt: skip
PUBLISHED = ((1, 8192, 96, 128), (1, 8192, 64, 128), (1, 16384, 64, 128), MEDIUM)
SHAPES = {
    "gla": (LONG, SHORT, SMALL, WIDE), "kda": (LONG, SHORT, SMALL, WIDE), "gated_delta_rule": (LONG, SHORT, SMALL, WIDE),
    "simple_gla": (LONG, SHORT, SMALL, WIDE), "delta_rule": (LONG, SHORT, SMALL, WIDE), "mamba2": (LONG, SHORT, SMALL, WIDE),
    "retention": (LONG,), "kda:gates": PUBLISHED, "gated_delta_rule:norms": (LONG, (1, 8192, 64, 128), MEDIUM, SHORT),
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {  # as published times were taken: forward alone
    "kda:gates": {
        "use_gate_in_kernel": True, "use_qk_l2norm_in_kernel": True, "use_beta_sigmoid_in_kernel": True, "safe_gate": True,
        "lower_bound": -5.0,
    },
    "gated_delta_rule:norms": {"use_qk_l2norm_in_kernel": True},
}  # fmt: skip


class Recorder:
    """What was launched. A launch is a kernel, its arguments, and the configurations that it was tuned over."""

    def __init__(self, target: str, limit: int) -> None:
        self.target, self.limit = target_named(target), limit
        self.launches: list[tuple[str, list[tuple[Any, tuple[Any, ...], dict[str, Any], tuple[int, ...]]]]] = []
        self.tuned: list[Any] | None = None
        self.side = "forward"

    def install(self) -> None:
        """A driver that launches nothing, and a device of the target that is not there."""
        from triton.backends.compiler import GPUTarget
        from triton.runtime import driver
        from triton.runtime.autotuner import Autotuner
        from triton.runtime.jit import JITFunction

        target = self.target
        facts = {
            "multiprocessor_count": target.units, "max_shared_mem": target.shared_per_program, "warpSize": target.warp,
            "max_num_regs": target.registers_per_unit,
        }  # fmt: skip
        driver.set_active(SimpleNamespace(
            utils=SimpleNamespace(get_device_properties=lambda device: facts),
            get_current_target=lambda: GPUTarget(target.vendor, target.arch, target.warp),
            get_current_device=lambda: 0, get_current_stream=lambda device=None: 0,
            get_active_torch_device=lambda: torch.device("meta"), get_device_interface=lambda: torch.cuda,
            get_benchmarker=lambda: None,
        ))  # fmt: skip
        properties = SimpleNamespace(
            shared_memory_per_block_optin=target.shared_per_program, multi_processor_count=target.units, name=target.machine,
            shared_memory_per_block=49152, total_memory=80 << 30,
        )  # fmt: skip
        capability = divmod(int(target.arch), 10)
        cuda: Any = torch.cuda
        cuda.get_device_name, cuda.get_device_capability = lambda *_: target.machine, lambda *_: capability
        cuda.get_device_properties, cuda.is_available = lambda *_: properties, lambda: True
        cuda.current_device, cuda.device_count = lambda: 0, lambda: 1
        cuda.device = cuda.device_of = Nothing
        self.compile = JITFunction.run
        JITFunction.run = lambda kernel, *args, grid, warmup=False, **named: self.note(kernel, args, grid, named)
        Autotuner.run = lambda tuner, *args, **named: self.tune(tuner, args, named)

    def note(self, kernel: Any, args: tuple[Any, ...], grid: Any, named: dict[str, Any]) -> None:
        """One launch, or one configuration of one."""
        given = {**dict(zip((p.name for p in kernel.params), args, strict=False)), **named}
        one = kernel, args, named, tuple(grid(given) if callable(grid) else grid)
        if self.tuned is None:
            self.launches.append((self.side, [one]))
        else:
            self.tuned.append(one)

    def tune(self, tuner: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A launch at each of the configurations that are tried."""
        tuner.nargs = dict(zip(tuner.arg_names, args, strict=False))
        grid, _ = named.pop("grid"), named.pop("warmup", None)
        configs = tuner.prune_configs(named) if len(tuner.configs) > 1 else tuner.configs
        near = usual([config.all_kwargs() for config in configs], 1)
        tuner.best_config = next(config for config in configs if config.all_kwargs() == near[0])
        self.tuned = []
        for config in usual([config.all_kwargs() for config in configs], self.limit):
            tuner.fn.run(*args, grid=grid, warmup=False, **{**named, **config})
        self.launches.append((self.side, self.tuned))
        self.tuned = None


class Everywhere(list[int]):
    """What every device has, those without a number too: meta tensors have none."""

    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(at or 0)


class Nothing:
    """A context that does nothing, for those of a device."""

    def __init__(self, *_: object) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def usual(configs: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The configurations nearest to the usual one; of those that differ in stages alone, one."""

    def far(config: Mapping[str, Any]) -> int:
        blocks = [n for name, n in config.items() if name not in USUAL and isinstance(n, int) and n > 1]
        steps = sum(abs(n.bit_length() - BLOCK.bit_length()) for n in blocks)
        warps = abs(config.get("num_warps", 4).bit_length() - USUAL["num_warps"].bit_length())
        return 4 * (steps + warps) + abs(config.get("num_stages", 3) - USUAL["num_stages"])

    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for config in sorted(configs, key=far):
        found.setdefault(tuple((k, v) for k, v in sorted(config.items()) if k != "num_stages"), config)
    return list(found.values())[:limit]


class Torch(TorchDispatchMode):
    """Torch's own kernels between theirs: the bytes of each."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder, self.moved = recorder, list[tuple[str, str, int]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not any(word in name for word in FREE[:-1]) and name != "t":
            size = sum(x.nbytes for x in [*tensors(args), *tensors((out,))])
            self.moved.append((self.recorder.side, name, size))
        return out


def tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among nested values."""
    for one in values.values() if isinstance(values, dict) else values:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (list, tuple, dict)):
            yield from tensors(one)


def called(spec: str, shape: Shape, shared: int) -> tuple[dict[str, Tensor], Callable[[dict[str, Tensor]], Tensor]]:
    """(meta tensors, the function of a package). shared: bytes of shared memory that a program may have."""
    B, T, H, D = shape

    def made(*sizes: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(*sizes, dtype=dtype, device="meta", requires_grad=True)

    if spec == "mamba2":
        if "mamba_ssm" not in sys.modules:  # the package itself imports an extension in CUDA
            package = ModuleType("mamba_ssm")
            package.__path__ = list(find_spec("mamba_ssm").submodule_search_locations)  # type: ignore[union-attr,arg-type]
            sys.modules["mamba_ssm"] = package
        function = import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined
        f32 = torch.float32
        x = {"x": made(B, T, H, D), "dt": made(B, T, H), "A": made(H, dtype=f32), "B": made(B, T, 1, 128)}
        x |= {"C": made(B, T, 1, 128), "D": made(H, dtype=f32), "dt_bias": made(H, dtype=f32)}
        return x, lambda x: function(**x, chunk_size=256, dt_softplus=True)
    import_module("fla.utils.hardware").get_all_max_shared_mem = lambda: Everywhere([shared])
    variant, spec = VARIANTS.get(spec, {}), spec.partition(":")[0]
    module, name, names, options = FLA[spec]
    function = getattr(import_module(module), name)
    x = {n: made(B, T, H, D) for n in "qkv"}
    if "g" in names.split():
        width = [D] if spec in ("gla", "kda") else []
        x["g"] = made(B, T, H, *width, dtype=torch.float32 if "g" in FLOAT32 else torch.bfloat16)
    if "beta" in names.split():
        x["beta"] = made(B, T, H)
    if "use_gate_in_kernel" in variant:
        x |= {"g": made(B, T, H, D), "A_log": made(H, dtype=torch.float32), "dt_bias": made(H * D, dtype=torch.float32)}
    return x, lambda x: function(**x, **options, **variant)[0]


def recorded(recorder: Recorder, spec: str, shape: Shape) -> dict[str, Any]:
    """The launches of one call and its gradients, and what it saves between them."""
    x, function = called(spec, shape, recorder.target.shared_per_program)
    recorder.launches, recorder.side = [], "forward"
    saved: dict[int, Tensor] = {}
    with Torch(recorder) as torchs:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.setdefault(id(t), t), lambda t: t):
            out = function(x)
        recorder.side = "backward"
        if spec not in VARIANTS:
            torch.autograd.grad(out, list(x.values()), torch.empty_like(out), allow_unused=True)
    given = {t.untyped_storage()._cdata for t in x.values()}
    kept = {t.untyped_storage()._cdata: t.nbytes for t in saved.values()}
    between = [{"pass": side, "op": op, "bytes": size} for side, op, size in torchs.moved]
    return {"saved": sum(n for one, n in kept.items() if one not in given), "torch": between}


def compiled(recorder: Recorder, known: dict[str, Made], shape: Shape) -> Iterator[dict[str, Any]]:
    """The launches, each at the configuration of least modelled time."""
    for side, configs in recorder.launches:
        tried = []
        for kernel, args, named, grid in configs:
            given = {**dict(zip((p.name for p in kernel.params), args, strict=False)), **named}
            words = {k: v for k, v in given.items() if isinstance(v, int) and k not in SIZES}
            held = "".join(str(v.dtype)[6] if isinstance(v, Tensor) else "-" for v in given.values())
            key = f"{kernel.__name__} D{shape[3]} {held} {sorted(words.items())}"
            if key not in known:
                known[key] = made(recorder, kernel, args, named, grid)
                print(f"{len(known)} {kernel.__name__} {known[key].figures.get('error', '')}", file=sys.stderr, flush=True)
            seen = {t.untyped_storage()._cdata: t.nbytes for t in given.values() if isinstance(t, Tensor)}
            if "error" not in known[key].figures:
                tried.append(timed(recorder.target, known[key], given, grid, sum(seen.values())))
        if not tried:
            raise SystemExit(f"{configs[0][0].__name__}: no configuration compiles: {known[key].figures['error']}")
        best = min(tried, key=lambda one: one[0])[1]
        refused = len(configs) - len(tried)
        yield {"pass": side, "kernel": configs[0][0].__name__, "tried": len(configs), "refused": refused, **best}


@dataclass(frozen=True)
class Made:
    """One kernel at one configuration: figures, machine code, and IR."""

    figures: dict[str, Any]
    text: Text
    ir: str = ""


def made(recorder: Recorder, kernel: Any, args: Any, named: dict[str, Any], grid: tuple[int, ...]) -> Made:
    """The machine code of one configuration, or why there is none."""
    import triton

    try:
        told = recorder.compile(kernel, *args, grid=grid, warmup=True, **named)
    except Exception as error:  # what their tuning passes over too
        return Made({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"}, Text(""))
    with tempfile.TemporaryDirectory() as folder:
        found = read_nvidia(told.asm, Path(triton.__file__).parent, Path(folder))
    if "error" in found:
        return Made(found, Text(""))
    sass = found.pop("sass")
    found |= {"shared": told.metadata.shared, "warps": told.metadata.num_warps, "stages": told.metadata.num_stages}
    return Made(found, Text(sass), told.asm["ttir"])


def timed(
    target: Target, one: Made, given: Mapping[str, Any], grid: tuple[int, ...], moved: int
) -> tuple[float, dict[str, Any]]:
    """(modelled nanoseconds, the row of a configuration). What a warp runs is the mean over programs spread over the grid."""
    values = {name: n for name, n in given.items() if isinstance(n, int)}
    run: dict[str, float] = Counter()
    for i in range(PROGRAMS):
        at = {axis: int(n * (i * share % 1)) for axis, n, share in zip(AXES, grid, SPREAD, strict=False)}
        for kind, amount in one.text.executed(one.ir, {**values, **at}).items():
            run[kind] += amount / PROGRAMS
    figures, programs = one.figures, prod(grid)
    work = {kind: (0.0, round(amount, 1)) for kind, amount in sorted(run.items())}
    code = Code(figures["registers"], figures["shared"], figures["warps"], work)
    blocks = {k: v for k, v in given.items() if k in BLOCKS and isinstance(v, int)}
    row = {"programs": programs, "bytes": moved, "blocks": blocks, **figures, "work": {k: n for k, (_, n) in work.items()}}
    return spent(code, target, programs, 0, moved).nanoseconds, {**row, "counts": dict(figures["counts"])}


def main(arguments: list[str] | None = None) -> int:
    """Compile, choose, and write after every shape."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.peer_code", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--target", default="sm_90")
    parser.add_argument("--spec", action="append", choices=SHAPES, help="only these (default: all)")
    parser.add_argument("--limit", type=int, default=4, help="configurations of a kernel that are tried (default: 4)")
    parser.add_argument("--out", type=Path, default=TABLE)
    args = parser.parse_args(arguments)
    recorder = Recorder(args.target, args.limit)
    recorder.install()
    import triton

    told = {one: metadata.version(one) for one in ("flash-linear-attention", "mamba-ssm") if find_spec(PACKAGES[one])}
    versions = {"triton": triton.__version__, **told}
    known: dict[str, Made] = {}
    table: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    asked = [(at, spec, shape) for spec in args.spec or SHAPES for at, shape in enumerate(SHAPES[spec])]
    for _, spec, shape in sorted(asked, key=lambda one: 0.5 if one[1] in VARIANTS else one[0]):
        if ("mamba-ssm" if spec == "mamba2" else "flash-linear-attention") not in told:
            continue
        row = recorded(recorder, spec, shape)
        row |= {"versions": versions, "kernels": list(compiled(recorder, known, shape))}
        table[f"{args.target} {spec} B{shape[0]} T{shape[1]} H{shape[2]} D{shape[3]}"] = row
        lines = [f"{json.dumps(key)}: {json.dumps(table[key])}" for key in sorted(table)]
        args.out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
