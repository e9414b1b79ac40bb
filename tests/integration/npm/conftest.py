"""Runs the scripts beside it with Node.js, each as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[2] / "examples" / "typescript"

Script = Callable[[str], dict[str, Any]]

BOTH_KINDS = """
[providers.openai]
kind = "openai"
base_url = "{url}/v1"
key_env = "SANDBOX_KEY"

[providers.anthropic]
kind = "anthropic"
base_url = "{url}"
key_env = "SANDBOX_KEY"

[deployments.gpt]
provider = "openai"
model = "sandbox"
serves = ["gpt"]

[deployments.claude]
provider = "anthropic"
model = "sandbox"
serves = ["claude"]
"""


def _install(npm: str, directory: Path) -> None:
    """Installs what a package-lock.json says, where it is not there yet."""
    lock = directory / "package-lock.json"
    stamp = directory / "node_modules" / ".installed-lock"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return
    installed = subprocess.run(
        [npm, "ci", "--no-progress"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    if installed.returncode:
        lacking = f"npm ci did not succeed in {directory.name}: {installed.stderr[-500:]}"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    stamp.write_bytes(lock.read_bytes())


@pytest.fixture(scope="session")
def packages(program: Callable[[str], str]) -> None:
    """What the scripts beside this need is installed."""
    _install(program("npm"), HERE)


@pytest.fixture(scope="session")
def typescript(program: Callable[[str], str], service: Any) -> Script:
    """``typescript(name)`` runs a program of the example, compiled, against a service."""
    _install(program("npm"), EXAMPLE)
    compiler = [program("node"), "node_modules/typescript/bin/tsc"]
    compiled = subprocess.run(
        compiler, cwd=EXAMPLE, capture_output=True, text=True, check=False, timeout=110
    )
    assert compiled.returncode == 0, compiled.stdout

    def run(name: str) -> dict[str, Any]:
        return _printed(
            program("node"), f"dist/{name}.js", EXAMPLE, {"URL": service.url, "KEY": "dev"}
        )

    return run


def _printed(node: str, name: str, directory: Path, target: dict[str, str]) -> dict[str, Any]:
    """What a script printed, as JSON."""
    finished = subprocess.run(
        [node, name],
        cwd=directory,
        env={"PATH": os.environ["PATH"]} | {f"PENSTOCK_{k}": v for k, v in target.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    seen: dict[str, Any] = json.loads(finished.stdout)
    return seen


@pytest.fixture(scope="session")
def straight(fast_sandbox: Callable[..., Any]) -> dict[str, str]:
    """The provider itself: what the SDKs see without us."""
    return {"URL": fast_sandbox().url, "KEY": "any", "GPT": "sandbox", "CLAUDE": "sandbox"}


@pytest.fixture(scope="session")
def through(straight: dict[str, str], serve: Callable[..., Any]) -> dict[str, str]:
    """A service in front of that provider, in both shapes."""
    process = serve(BOTH_KINDS.format(url=straight["URL"]), SANDBOX_KEY="any")
    process.wait_ready()
    return {"URL": process.url, "KEY": "dev", "GPT": "gpt", "CLAUDE": "claude"}


@pytest.fixture(scope="session", params=["straight", "through"])
def target(request: pytest.FixtureRequest) -> dict[str, str]:
    """The same tests against the provider and through us: nobody sees a difference."""
    found: dict[str, str] = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def script(program: Callable[[str], str], packages: None, target: dict[str, str]) -> Script:
    """``script(name)`` runs a script and returns what it printed."""

    return lambda name: _printed(program("node"), name, HERE, target)
