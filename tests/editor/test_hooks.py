"""The hooks of `.pre-commit-hooks.yaml`, run as pre-commit runs them: the entry's words, then the files of the commit."""

from pathlib import Path

import yaml

from seqc.cli.main import main

ROOT = Path(__file__).parents[2]
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))}


def run(hook: str, *files: Path) -> int:
    program, *words = HOOKS[hook]["entry"].split()
    assert program == "seqc"
    return main([*words, *map(str, files)])


def test_hooks(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.seq", tmp_path / "wrong.seq"
    right.write_text("spec right\ninput x\noutput o=x*2\n", encoding="utf-8")
    wrong.write_text("spec wrong\noutput o = x\n", encoding="utf-8")
    assert run("seqc-check", right) == 0
    assert run("seqc-check", right, wrong) == 1
    assert run("seqc-fmt", right) == 0
    assert right.read_text(encoding="utf-8").endswith("output o = x * 2\n")
