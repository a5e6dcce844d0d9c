"""The order of the tests: what runs for long comes first, so that the last of several workers has little left to wait for."""

from __future__ import annotations

import pytest

from seqc import cache

cache.KEEPS = False  # tests compile for themselves, and some change the compiler while it runs

LONG = tuple(
    f"tests/{name}.py" for name in ("triton/test_kernels", "native_cpu/test_sanitizers", "emit/test_packs", "cli/test_golden")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first; otherwise the order stays."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
