"""Emitted modules of the hand-written signatures, loaded once."""

from types import ModuleType

import pytest

from seqc.driver.load_emitted import load_emitted
from seqc.emit import emit
from tests.emit import bodies


@pytest.fixture(scope="session")
def decay() -> ModuleType:
    return load_emitted(emit(bodies.decay()), "decay")


@pytest.fixture(scope="session")
def cell() -> ModuleType:
    return load_emitted(emit(bodies.cell()), "cell")


@pytest.fixture(scope="session")
def square() -> ModuleType:
    return load_emitted(emit(bodies.square()), "square")
