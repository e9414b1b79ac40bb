"""What all tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest
from hypothesis import settings

# Time is measured by benchmarks: a busy machine must not fail a test.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Finds a program that a test needs beyond Python.

    Where it is not installed the test skips, saying so; in CI, where .ci/run installs it, its
    absence is a failure, so that no test stays away unnoticed.
    """

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            lacking = f"{name} is not installed here (.ci/run installs it)"
            if os.environ.get("CI"):
                pytest.fail(lacking)
            pytest.skip(lacking)
        return found

    return find
