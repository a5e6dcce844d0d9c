"""The process that compiles Triton kernels without a GPU: jobs in on standard input, verdicts out, a line each.

Comes in: one JSON object a line, the fields of `toolchain.Job`. Goes out: one JSON object a line, in the same order:
the fields of a `Verdict`. It runs apart from the compiler because the interpreter of Triton is chosen at import for a
whole process, and because a crash in LLVM or ptxas must not take the compiler along: what is no ordinary refusal ends
this process, and the reader of its output takes the last line of its errors for the verdict. It runs as a plain script.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

SASS_LINE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)
SASS_TEXT = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][^;]*?)\s*;", re.MULTILINE)
GCN_LINE = re.compile(r"^\s+([a-z][a-z0-9]*_[a-z0-9_]+)\s", re.MULTILINE)

NVIDIA_KINDS = {
    "matrix": ("HMMA", "DMMA", "IMMA", "QMMA", "OMMA", "HGMMA", "QGMMA", "UTCHMMA", "UTCQMMA", "UTCOMMA"),
    "load": ("LDG", "LDGSTS", "UTMALDG"),
    "async": ("LDGSTS", "UTMALDG"),
    "shuffle": ("SHFL",),
    "store": ("STG", "UTMASTG"),
    "shared": ("LDS", "LDSM", "STS", "STSM"),
    "spill": ("LDL", "STL"),
    "barrier": ("BAR", "SYNCS"),
    "special": ("MUFU",),
    "fma": ("FFMA", "FFMA2"),
}
AMD_KINDS = {
    "matrix": ("v_mfma_", "v_smfmac_"),
    "load": ("global_load_", "buffer_load_"),
    "shuffle": ("ds_bpermute", "ds_permute", "ds_swizzle"),
    "store": ("global_store_", "buffer_store_"),
    "shared": ("ds_read", "ds_write"),
    "spill": ("scratch_",),
    "barrier": ("s_barrier",),
    "special": ("v_exp_", "v_log_", "v_rcp_", "v_rsq_", "v_sqrt_", "v_sin_", "v_cos_"),
    "fma": ("v_fma_", "v_fmac_", "v_pk_fma_"),
}


def main() -> None:
    """Answer every job on standard input."""
    with tempfile.TemporaryDirectory() as folder:
        modules: dict[str, ModuleType] = {}
        for line in sys.stdin:
            print(json.dumps(_verdict(json.loads(line), modules, Path(folder))), flush=True)


def _verdict(job: dict[str, Any], modules: dict[str, ModuleType], folder: Path) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.errors import TritonError

    figures: dict[str, Any] = {
        "registers": 0,
        "spills": 0,
        "shared": 0,
        "tensor_memory": 0,
        "counts": [],
        "error": None,
    }
    figures["toolchain"] = f"triton {triton.__version__}"
    source = job["source"]
    if source not in modules:
        modules[source] = _load(source, folder / f"kernels_{len(modules)}.py")
    constants = dict(job["constants"])
    signature = dict(job["signature"])
    names = getattr(modules[source], job["kernel"]).arg_names
    types = {name: "constexpr" if name in constants else signature[name] for name in names}
    aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if types[name].startswith("*")}
    options = {"num_warps": job["warps"], "num_stages": job["stages"], "enable_fp_fusion": True}
    try:
        made = triton.compile(
            ASTSource(getattr(modules[source], job["kernel"]), types, constants, aligned),
            target=GPUTarget(job["vendor"], job["arch"], job["warp"]),
            options=options,
        )
    except (TritonError, RuntimeError) as error:  # RuntimeError is what a failing pass of MLIR raises
        return figures | {"error": _words(error)}
    figures["shared"] = made.metadata.shared
    figures["tensor_memory"] = getattr(made.metadata, "tmem_size", None) or 0
    if job["vendor"] != "cuda":
        return figures | _read_amd(made.asm)
    found = read_nvidia(made.asm, Path(triton.__file__).parent, folder)
    sass = found.pop("sass", None)
    return figures | found | ({} if sass is None else {"work": _reader().turns(sass, made.asm["ttir"], names)})


def _load(source: str, path: Path) -> ModuleType:
    path.write_text(source)
    return _load_file(path.stem, path)


def _load_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _words(error: BaseException) -> str:
    """The innermost cause, in one paragraph without file names."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\S*/(\S+\.py)", r"\1", str(error)).strip()
    return f"{type(error).__name__}: {' '.join(text.split())[:600]}"


def _reader() -> ModuleType:
    """What reads machine code: a file beside this one, since nothing of the compiler is imported here."""
    if "machine_code" not in sys.modules:
        _load_file("machine_code", Path(__file__).with_name("machine_code.py"))
    return sys.modules["machine_code"]


def read_nvidia(asm: Any, triton_home: Path, folder: Path) -> dict[str, Any]:
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(asm["cubin"])
    tool = triton_home / "backends" / "nvidia" / "bin" / "cuobjdump"
    told = subprocess.run(
        [tool, "--dump-resource-usage", "-sass", cubin], capture_output=True, text=True, check=True
    )
    sass = told.stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", told.stdout + told.stderr)
    if found is None:
        return {"error": "cuobjdump reports no registers"}
    counted = Counter(SASS_LINE.findall(sass))
    counts = {kind: sum(counted[name] for name in names) for kind, names in NVIDIA_KINDS.items()}
    counts["all"] = sum(counted.values()) - counted["NOP"]
    written = overwritten(sass)
    if written:
        return {"error": f"ptxas has {written} instructions write to operands of a wgmma that may still read them"}
    return {
        "registers": int(found[1]),
        "spills": int(found[2]),
        "counts": sorted(counts.items()),
        "sass": sass,
    }


def overwritten(sass: str) -> int:
    """How many instructions write to a register that a wgmma reads which has not been waited for.

    ptxas before 13.3 may give the registers of an asynchronous product's left operand to other values too early. A product ends
    at the next WARPGROUP.DEPBAR that leaves fewer groups under way than were begun after its own.
    """
    found, open_, groups = 0, set[int](), list[set[int]]()
    for line in SASS_TEXT.findall(sass):
        name, *operands = line.replace(",", " ").split()
        if name.startswith("WARPGROUP.DEPBAR"):
            left = int(operands[-1], 16)
            groups = groups[len(groups) - left :] if left else []
            continue
        target = re.fullmatch(r"R(\d+)", operands[0]) if operands else None
        if target and not name.startswith(("ST", "RED", "BAR")):
            first = int(target[1])
            wide = set(range(first, first + _width(name)))
            found += any(wide & read for read in (open_, *groups))
        if name.startswith(("HGMMA", "QGMMA", "IGMMA")):
            left_operand = re.fullmatch(r"R(\d+)", operands[1])
            if left_operand:
                open_ |= set(range(int(left_operand[1]), int(left_operand[1]) + 4))
            if any(x.startswith("gsb") for x in operands):
                groups, open_ = [*groups, open_], set()
    return found


def _width(name: str) -> int:
    """Registers that an instruction writes."""
    product = re.match(r"[HQI]GMMA\.64x(\d+)x", name)
    if product:
        return int(product[1]) // 2
    if name.startswith("HMMA") or ".128" in name or re.search(r"LDSM\S*\.4", name):
        return 4
    return 2 if ".64" in name or ".WIDE" in name or re.search(r"LDSM\S*\.2", name) else 1


def _read_amd(asm: Any) -> dict[str, Any]:
    text = asm["amdgcn"]
    values = {name: int(value) for name, value in re.findall(r"^\s+\.(\w+):\s+(\d+)\s*$", text, re.MULTILINE)}
    counted = Counter(GCN_LINE.findall(text))
    counts = {
        kind: sum(count for name, count in counted.items() if name.startswith(starts))
        for kind, starts in AMD_KINDS.items()
    }
    counts["all"] = sum(counted.values()) - counted["s_nop"]
    return {
        "registers": values["vgpr_count"],
        "spills": values["private_segment_fixed_size"],
        "counts": sorted(counts.items()),
    }


if __name__ == "__main__":
    main()
