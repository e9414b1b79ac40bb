"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.cli.main import run


class Ending(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def penstock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ending]:
    """Runs a command line in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run_line(*arguments: str) -> Ending:
        code = run(list(arguments))
        captured = capsys.readouterr()
        return Ending(code, captured.out, captured.err)

    return run_line
