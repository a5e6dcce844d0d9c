"""Keys of results and gradients are read back as they are written, whatever the declaration is called."""

import pytest

from seqc.ir.keys import is_next, next_key, prev_key, result_of, slope_key, slope_of


@pytest.mark.parametrize("name", ["x", "S", "d", "h.lag2", "every.128", "d.lag1"])
def test_keys_are_read_as_they_are_written(name: str) -> None:
    assert is_next(next_key(name)) and result_of(next_key(name)) == name and not is_next(name) and result_of(name) == name
    assert slope_of(prev_key(name)) == (name, 0, True)
    for offset in (0, 2, -3):
        assert slope_of(slope_key(name, offset)) == (name, offset, False)
    assert (slope_of(slope_key(name, 2)).word(), slope_of(slope_key(name, -3)).word()) == (f"{name}_ago2", f"{name}_ahead3")
