"""What the tests of the source text look at: every file that is, or will be, in the repository."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[Path]:
    """Every file of the repository, those not yet added included, relative to the checkout."""
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        pytest.skip("not a git checkout: its files cannot be told from what lies beside them")
    listing = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = sorted(filter(None, listing.split("\0")))
    return [Path(name) for name in names if (root / name).is_file()]


@pytest.fixture(scope="session")
def modules(root: Path, tracked: list[Path]) -> Mapping[Path, ast.Module]:
    """Each Python file of the repository, parsed."""
    return {
        path: ast.parse((root / path).read_text(encoding="utf-8"), str(path))
        for path in tracked
        if path.suffix == ".py"
    }
