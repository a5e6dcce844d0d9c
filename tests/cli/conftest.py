"""The command line, run in this process."""

from collections.abc import Callable, Iterator

import pytest

from seqc.cli.main import main

Answer = tuple[int, str, str]


@pytest.fixture
def seqc(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Answer]]:
    """`seqc("check", path)` -> (exit code, stdout, stderr)."""

    def call(*words: object) -> Answer:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    yield call
