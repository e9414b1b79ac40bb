"""Runs the scripts beside it with Node.js against a service, each as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

Script = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def packages(program: Callable[[str], str]) -> None:
    """Installs what package-lock.json says, where it is not there yet."""
    lock = HERE / "package-lock.json"
    stamp = HERE / "node_modules" / ".installed-lock"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return
    installed = subprocess.run(
        [program("npm"), "ci", "--no-progress"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    if installed.returncode:
        lacking = f"npm ci did not succeed in tests/npm: {installed.stderr[-500:]}"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    stamp.write_bytes(lock.read_bytes())


@pytest.fixture(scope="session")
def sandbox() -> Iterator[dict[str, str]]:
    """A sandbox provider of its own, without delays or limits: what a script is told of it."""
    command = [sys.executable, "-m", "penstock", "sandbox", "--port", "0"]
    with subprocess.Popen(
        [*command, "--latency-ms", "0", "--tokens-per-second", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        yield {"PENSTOCK_URL": url, "PENSTOCK_KEY": "any", "PENSTOCK_MODEL": "sandbox"}
        process.terminate()


@pytest.fixture(scope="session", params=["sandbox"])
def target(request: pytest.FixtureRequest) -> dict[str, str]:
    """Where a script goes to: each of the fixtures named here gives url, key and model."""
    found: dict[str, str] = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def script(program: Callable[[str], str], packages: None, target: dict[str, str]) -> Script:
    """``script(name)`` runs a script and returns what it printed."""

    def run(name: str) -> dict[str, Any]:
        finished = subprocess.run(
            [program("node"), name],
            cwd=HERE,
            env={"PATH": os.environ["PATH"]} | target,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert finished.returncode == 0, finished.stderr
        seen: dict[str, Any] = json.loads(finished.stdout)
        return seen

    return run
