"""``penstock version``."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib import metadata

import penstock as package


def test_versions_are_printed_as_lines_or_as_json(penstock: Callable[..., tuple]) -> None:
    _, lines, _ = penstock("version")
    code, text, errors = penstock("version", "--json")
    found = json.loads(text)

    assert (code, errors) == (0, "")
    assert found["penstock"] == package.__version__
    assert found["python"] == platform.python_version()
    assert found["aiohttp"] == metadata.version("aiohttp")
    assert lines.splitlines() == [f"{k} {v or '(not installed)'}" for k, v in found.items()]
