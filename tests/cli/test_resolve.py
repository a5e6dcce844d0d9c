"""The set-up against the package index: every pin has wheels for Python 3.11 to 3.13, and the pins satisfy one another.

pip reads what the index says of the pinned releases and downloads none of them. Its configuration is left out, so that no
wheel of this machine answers for the index. Where a probe for a package without a version reaches no index, the tests skip.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.13", *(pytest.param(version, marks=pytest.mark.long) for version in ("3.11", "3.12")))
LOCAL = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "PIP_NO_INDEX", "PIP_INDEX_URL", "PIP_REQUIREMENT")
UNREACHED = ("ConnectionError", "NewConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "connection broken")
BUILT = (  # the pins whose wheels are made for one version of Python, or for none that is older than some
    "ast_serialize", "contourpy", "fonttools", "kiwisolver", "librt", "markupsafe", "matplotlib", "ml-dtypes", "mypy", "numpy",
    "onnx", "onnxruntime", "pillow", "torch", "triton",
)


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    """pip beside the public index alone."""
    kept = {name: value for name, value in os.environ.items() if name not in LOCAL}
    env = {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_RETRIES": "1", "PIP_TIMEOUT": "20"}
    return subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, env=env, timeout=400)


def pins() -> dict[str, str]:
    """The line of constraints.txt for each package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.partition("==")[0]): line for line in lines if line and not line.startswith("#")}


@cache
def reached() -> bool:
    """Whether pip reaches a package index at all."""
    return pip("index", "versions", "lark").returncode == 0


@cache
def told(python: str) -> dict[str, Any]:
    """What the index says of the pinned releases for one version of Python: metadata by name. Skips without an index."""
    if Version(version("pip")) < Version("23.3"):
        pytest.skip("this pip would download the wheels; `make` brings the one that is pinned")
    if not reached():
        pytest.skip("no package index is reached")
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = [line for name, line in pins().items() if python == ours or name in map(canonicalize_name, BUILT)]
    done = pip("install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--only-binary=:all:", "--target",
               "nowhere", "--python-version", python, "--report", "-", *wanted)
    if done.returncode and any(word in done.stderr for word in UNREACHED):
        pytest.skip("the package index was lost on the way")
    assert done.returncode == 0, done.stderr
    return {canonicalize_name(one["metadata"]["name"]): one["metadata"] for one in json.loads(done.stdout)["install"]}


@pytest.mark.skipif(sys.platform != "linux", reason="the pins are those of Linux")
@pytest.mark.parametrize("python", PYTHONS)
def test_every_pin_is_to_be_had_and_fits_the_others(python: str) -> None:
    found = told(python)
    assert set(map(canonicalize_name, BUILT)) <= set(found)
    here = {"python_version": python, "python_full_version": f"{python}.0", "platform_system": "Linux", "sys_platform": "linux",
            "platform_machine": "x86_64", "extra": ""}
    pinned = {name: line.partition("==")[2] for name, line in pins().items()}
    for name, metadata in found.items():
        assert metadata["version"] == pinned[name]
        for text in metadata.get("requires_dist") or ():
            one = Requirement(text)
            asked = canonicalize_name(one.name)
            if (one.marker is None or one.marker.evaluate(here)) and asked in pinned:
                assert one.specifier.contains(pinned[asked]), f"{name} asks for {text}; constraints.txt pins {pins()[asked]}"


def test_the_project_asks_for_nothing_that_the_pins_refuse() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {name: line.partition("==")[2] for name, line in pins().items()}
    asked = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    for text in asked:
        one = Requirement(text)
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), text
    assert f"torch=={pinned['torch']}" in (ROOT / "Makefile").read_text(encoding="utf-8")
