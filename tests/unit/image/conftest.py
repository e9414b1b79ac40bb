"""What the tests of base images share."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def installed_objects() -> Callable[[str], list[Path]]:
    """The extension modules of an installed package."""

    def find(package: str) -> list[Path]:
        files = importlib.metadata.files(package) or []
        found = [Path(str(file.locate())) for file in files if file.suffix == ".so"]
        return found or pytest.fail(f"{package} has no extension modules here")

    return find
